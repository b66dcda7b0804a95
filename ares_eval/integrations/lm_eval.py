"""`lm:TASK`: any task of lm-evaluation-harness as a task of ours, asked and scored as lm-eval itself does.

    ares-eval --model-name m --openai-base-url URL --datasets lm:gsm8k_cot,lm:arc_easy

A name is one of lm-eval's registry (task, group, tag, or a glob), or the path of a YAML file (`lm:my/task.yaml`), or a
name in a folder of such files (`lm:my/folder/NAME`). A group with a score of its own is one task here, its members are
in the results; tags and other groups become their members. Importing this module imports nothing of lm-eval, and this
process never does: its code runs in children (lm_eval_process.py).
"""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import msgspec

from ares_eval.config import user_cache
from ares_eval.integrations import lm_eval_index as registry
from ares_eval.integrations.lm_eval_index import Entry
from ares_eval.integrations.lm_eval_process import Child, ChildEnded
from ares_eval.integrations.lm_eval_scorer import Leaf, LmEvalScorer, ScorerProcess
from ares_eval.tasks.errors import DataUnavailable, UnknownTask
from ares_eval.types import AnswerSpec, Json, Message, Picture, PicturePart, Sample, TextPart

PREFIX = "lm:"
LOAD_SECONDS = 3600.0
"""For the loader: the Hub may have to send the whole data set first."""
INSTALL = "pip install 'ares[lm-eval]'"


class _Question(msgspec.Struct):
    leaf: str
    doc: int
    ask: str
    messages: list[tuple[str, list[str | dict[str, str]]]]
    reference: str
    hash: str


@dataclass(frozen=True)
class LmEvalTask:
    """A task or group of lm-eval, its questions written to a folder of this process. The interface is tasks.Task's."""

    name: str
    folder: Path
    leaves: Mapping[str, Leaf]
    fingerprint: str
    dataset_digest: str
    source: str
    modality: str
    metrics: tuple[str, ...]
    scorer: LmEvalScorer
    suites: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Questions."""
        return sum(leaf.size for leaf in self.leaves.values())

    @property
    def repeats(self) -> int:
        """Draws per question that the task asks for."""
        return max(leaf.repeats for leaf in self.leaves.values())

    @property
    def defaults(self) -> Mapping[str, Json]:
        """Prompt and pictures as lm-eval sends them; the settings of generation are in each question's own."""
        settings: dict[str, Json] = {"system_prompt": "", "min_pixels": 1, "max_pixels": 1 << 40}
        for leaf in self.leaves.values():
            settings.update(leaf.generation)
        return settings

    def samples(self) -> Iterator[Sample]:
        """The questions, in lm-eval's order."""
        decoder = msgspec.json.Decoder(_Question)
        with (self.folder / "questions.jsonl").open("rb") as lines:
            for line in lines:
                yield self._sample(decoder.decode(line))

    def _sample(self, question: _Question) -> Sample:
        alone = len(self.leaves) == 1
        name = str(question.doc) if alone else f"{question.leaf}/{question.doc}"
        messages = [
            Message(role, tuple(self._part(part, question) for part in parts))  # type: ignore[arg-type]
            for role, parts in question.messages
        ]
        return Sample(
            task=self.name,
            id=name,
            messages=tuple(messages),
            reference=question.reference,
            answer=AnswerSpec(),
            group=name,
            fields={"lm_task": question.leaf, "doc_id": question.doc, "doc_hash": question.hash},
            ask="likelihood" if question.ask == "likelihood" else "reply",
            defaults=self.leaves[question.leaf].generation,
        )

    def _part(self, part: str | dict[str, str], question: _Question) -> TextPart | PicturePart:
        if isinstance(part, str):
            return TextPart(part)
        path = self.folder / "pictures" / part["picture"]
        return PicturePart(Picture(f"{self.name}, document {question.doc}", path.read_bytes))


@dataclass
class LmEvalSource:
    """The source behind the prefix; its children start when they are needed and end when they are idle."""

    _loader: Child | None = None
    _broken: list[str] = field(default_factory=list)
    """A line for each file that the folder which was looked into last has in vain."""
    _scorer: ScorerProcess = field(default_factory=ScorerProcess)
    # A child ends with the thread that started it: one thread talks to the loader, whoever asks.
    _thread: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "lm-eval-loader"))

    def names(self) -> Iterable[str]:
        """Every name of lm-eval's registry, prefix included; nothing where lm-eval is not installed."""
        return [PREFIX + name for name in self._index(None)] if registry.version() else []

    def resolve(self, name: str) -> list[str]:
        """The tasks that a name stands for. Raises UnknownTask."""
        if registry.version() is None:
            return [name]
        folder, word = _place(name)
        index = self._index(folder)
        if word.endswith((".yaml", ".yml")):
            return [name]
        found = registry.expand(word, index)
        if not found:
            nearest = [PREFIX + one for one in registry.nearest(word, index)]
            cause = f"lm-eval {registry.version()} has no task {word!r}"
            if self._broken:
                cause += f", and cannot read {self._broken[0]}"
            raise UnknownTask(name, nearest, cause=cause)
        where = "" if folder is None else f"{folder}/"
        return [f"{PREFIX}{where}{one}" for one in found]

    def load(self, name: str, *, limit: int | None = None, **_: Any) -> LmEvalTask:
        """Load one task or whole group. Raises UnknownTask and DataUnavailable."""
        installed = registry.version()
        if installed is None:
            raise DataUnavailable(name, "lm-eval is not installed", INSTALL)
        folder, word = _place(name)
        index = self._index(folder)
        if word.endswith((".yaml", ".yml")):
            word, entries = str(Path(folder or ".", word).resolve()), dict(index)
        else:
            entries = registry.closure(word, index)
            if word not in entries:
                self.resolve(name)
        spool = Path(tempfile.mkdtemp(prefix="ares-lm-eval-"))
        asked = {"name": word, "entries": {one: msgspec.to_builtins(entry) for one, entry in entries.items()}}
        try:
            told = self._ask({"op": "load", **asked, "limit": limit, "folder": str(spool)}, LOAD_SECONDS)
            if "error" in told:
                raise DataUnavailable(name, *_complaint(told))
            task = self._task(name, asked, told, spool, installed)
        except BaseException:
            rmtree(spool, ignore_errors=True)
            raise
        weakref.finalize(task, rmtree, spool, ignore_errors=True)
        return task

    def _task(self, name: str, asked: dict[str, Json], told: dict[str, Any], spool: Path, installed: str) -> LmEvalTask:
        leaves = {one: msgspec.convert(leaf, Leaf, strict=False) for one, leaf in told["leaves"].items()}
        configs = {one: leaf["config"] for one, leaf in told["leaves"].items()}
        content = [installed, configs, told["groups"]]
        primary = _primary(told["groups"], leaves)
        return LmEvalTask(
            name=name,
            folder=spool,
            leaves=leaves,
            fingerprint=hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest(),
            dataset_digest=f"sha256:{told['data']}",
            source=f"lm-eval {installed}, {_data(configs)}",
            modality="image+text" if told["pictures"] else "text",
            metrics=() if primary is None else (primary[1],),
            scorer=LmEvalScorer(name, asked, leaves, primary, installed, self._scorer),
        )

    # ------------------------------------------------------------ the loader

    def _index(self, folder: str | None) -> dict[str, Entry]:
        """lm-eval's names, and those of a folder, which go before."""
        installed = registry.version() or ""
        path = registry.file(user_cache(), installed)
        names = registry.read(path, installed)
        if names is None:
            self._told({"op": "index", "folder": None, "file": str(path), "version": installed})
            names = registry.read(path, installed) or {}
        self._broken = []
        if folder is not None:
            told = self._told({"op": "index", "folder": folder, "file": None, "version": installed})
            names = {**names, **msgspec.convert(told["names"], dict[str, Entry])}
            self._broken = told["broken"]
        return names

    def _told(self, question: Json) -> dict[str, Any]:
        told = self._ask(question, LOAD_SECONDS)
        if "error" in told:
            raise UnknownTask(PREFIX, cause=f"lm-eval's tasks cannot be listed: {told['error']}")
        return told

    def _ask(self, question: Json, seconds: float) -> dict[str, Any]:
        return self._thread.submit(self._ask_here, question, seconds).result()

    def _ask_here(self, question: Json, seconds: float) -> dict[str, Any]:
        for last in (False, True):
            if self._loader is None or not self._loader.alive:
                self._loader = Child("loader")
            try:
                return self._loader.ask(question, seconds)
            except ChildEnded as error:
                self._loader = None
                if last or error.timeout:
                    return {"error": f"the process that loads it ended: {error}", "type": "", "known": True}
        raise AssertionError


SOURCE = LmEvalSource()


def _place(name: str) -> tuple[str | None, str]:
    """Folder and name of `lm:NAME`, `lm:folder/NAME` and `lm:folder/file.yaml`."""
    word = name.removeprefix(PREFIX)
    folder, slash, last = word.rpartition("/")
    if slash and Path(folder or "/").is_dir():
        return folder or "/", last
    return (None, word) if not word.endswith((".yaml", ".yml")) else (".", word)


def _complaint(told: Mapping[str, Any]) -> tuple[str, str]:
    """Cause and mend."""
    if told["type"] in ("ModuleNotFoundError", "ImportError"):
        return told["error"], "install that package beside lm-eval"
    if told["type"] == "Unsupported":
        return told["error"], "`ares-lm-eval` is lm-eval's own command line with our model"
    cause = told["error"] if told["known"] else f"{told['type']}: {told['error']}"
    return cause, "lm-eval takes its data from the Hub or from where the task's YAML says"


def _data(configs: Mapping[str, Mapping[str, Any]]) -> str:
    places = list(dict.fromkeys(str(config.get("dataset_path") or "its own data") for config in configs.values()))
    return ", ".join(places[:3]) + (", ..." if len(places) > 3 else "")


def _primary(groups: Mapping[str, Any], leaves: Mapping[str, Leaf]) -> tuple[str, str] | None:
    """(row of lm-eval's results, "metric,filter") that stands for the task: the outermost group's first, else the
    first metric of the first filter."""
    for name, group in groups.items():
        for wanted in group["metrics"]:
            having = [leaf for leaf in leaves.values() if wanted["metric"] in leaf.aggregation]
            filters = wanted["filters"] or sorted({one for leaf in having for one in leaf.filters})
            return name, f"{wanted['metric']},{filters[0] if filters else 'none'}"
    if len(leaves) == 1:
        ((name, leaf),) = leaves.items()
        return (name, leaf.primary) if leaf.primary else None
    return None
