"""lm-eval's tasks, as its evaluator prepares them: built, their documents frozen, asked and scored one by one.

Runs in the worker only (it imports lm_eval). What must be as in ``lm_eval.simple_evaluate`` is: the seeds before
loading, ``num_fewshot`` and the few-shot seed, documents and contexts in their order. Chat prompts are made with
``apply_chat_template`` and ``fewshot_as_multiturn`` (lm-eval's way for chat endpoints); likelihoods are asked for as
plain text, without a chat template.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ares_eval.integrations.lm_eval_index import Entry
from ares_eval.integrations.lm_eval_prompts import as_json, generation, interleaved, read_chat
from ares_eval.types import Json

FEWSHOT_SEED = 1234
KINDS: Mapping[str, Literal["task", "class", "group", "tag"]] = {
    "TASK": "task",
    "PY_TASK": "class",
    "GROUP": "group",
    "TAG": "tag",
}
"""lm-eval's words for the kinds of names, and ours."""


_ADDRESS = re.compile(rb" at 0x[0-9a-f]+")
"""What Python's words for a function say of where it lies, which changes from start to start."""


class Unsupported(Exception):
    """A kind of task that cannot be asked through a chat or completions endpoint, or must not be run here."""


def package() -> Path:
    """lm-eval's own folder."""
    import lm_eval

    assert lm_eval.__file__ is not None
    return Path(lm_eval.__file__).parent


def index(folder: str | None) -> dict[str, Entry]:
    """Every name of lm-eval, or of a folder with YAML of its kind."""
    from lm_eval.tasks import TaskManager

    root = package()
    manager = TaskManager() if folder is None else TaskManager(include_path=folder, include_defaults=False)
    names = {}
    for name, entry in manager.task_index.items():
        kind = KINDS[entry.kind.name]
        path = None if entry.yaml_path is None else Path(entry.yaml_path)
        if path is not None and path.is_relative_to(root):
            path = path.relative_to(root)
        members, inline = _members(entry.cfg or {}) if kind == "group" else (tuple(sorted(entry.tags)), False)
        names[name] = Entry(
            kind,
            None if path is None else str(path),
            members if kind in ("group", "tag") else (),
            inline or bool((entry.cfg or {}).get("aggregate_metric_list")),
        )
    return names


def broken(folder: str) -> list[str]:
    """A line for each YAML file of a folder that cannot be read; lm-eval leaves them out without a word."""
    from lm_eval.tasks._yaml_loader import load_yaml

    lines = []
    for path in sorted(Path(folder).glob("**/*.yaml")):
        try:
            load_yaml(path, resolve_func=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, the file is what has to be mended
            lines.append(f"{path}: {' '.join(str(error).split())[:300]}")
    return lines


def _members(config: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Names in a group's list, however deep, and whether one of its members is not just a name."""
    found: list[str] = []
    inline = False
    listed = config.get("task")
    for member in listed if isinstance(listed, list) else []:
        if isinstance(member, str):
            found.append(member)
            continue
        inline = True
        found += [member[key] for key in ("task", "group") if isinstance(member.get(key), str)]
        found += _members(member)[0]
    return tuple(found), inline


# ---------------------------------------------------------------- loading


class Loaded:
    """A task or group, with the leaves that it is made of."""

    def __init__(self, tasks: Mapping[str, Any], groups: Mapping[str, Any]) -> None:
        self.tasks, self.groups, self.chance = tasks, groups, Chance()
        self.leaves = {name: Leaf(name, task, self.chance) for name, task in tasks.items()}


def load(name: str, entries: Mapping[str, Entry]) -> Loaded:
    """Build a task as lm-eval's evaluator does. Raises what its code raises, and Unsupported."""
    import numpy as np
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks import _index as lm_index

    kinds = {ours: theirs for theirs, ours in KINDS.items()}
    manager = TaskManager(include_defaults=False)
    for one, entry in entries.items():
        path = None if entry.path is None else package() / entry.path
        manager.task_index[one] = lm_index.Entry(
            name=one, kind=lm_index.Kind[kinds[entry.kind]], yaml_path=path, cfg=None, tags=set(entry.members)
        )
    random.seed(0)
    np.random.seed(1234)
    found = manager.load([name])
    for task in found["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False):
            raise Unsupported(
                "it runs programs that the model writes; `ares-lm-eval --confirm_run_unsafe_code` does that, "
                "in a place where you can afford it"
            )
        if task.get_config("doc_to_audio") is not None:
            raise Unsupported("it asks about sounds, which cannot be sent")
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return Loaded(found["tasks"], found.get("groups", {}))


class Chance:
    """The state of Python's and numpy's random numbers, from which scoring goes on: some scorers guess."""

    def __init__(self) -> None:
        import numpy as np

        self._states = random.getstate(), np.random.get_state()

    def set(self) -> None:
        """Go back to that state."""
        import numpy as np

        random.setstate(self._states[0])
        np.random.set_state(self._states[1])


class Leaf:
    """One task of lm-eval with its documents frozen: reading them again may shuffle their options anew."""

    def __init__(self, name: str, task: Any, chance: Chance) -> None:
        self.name, self.task, self.chance = name, task, chance
        self.docs = docs = task.eval_docs
        if task.has_test_docs():
            task.test_docs = lambda: docs
        else:
            task.validation_docs = lambda: docs
        self._checked: dict[int, str] = {}

    @property
    def metric(self) -> str | None:
        """The first metric, which stands for the task."""
        return next(iter(self.task.aggregation()), None)

    @property
    def filters(self) -> list[str]:
        """Names of the filter pipelines, in their order."""
        return [one.name for one in getattr(self.task, "_filters", [])] or ["none"]

    def check(self, doc: int, digest: str) -> None:
        """Raise Unsupported where document ``doc`` is not the one that was asked about."""
        if doc not in self._checked:
            self._checked[doc] = doc_hash(self.docs[doc])
        if self._checked[doc] != digest:
            raise Unsupported(f"document {doc} of {self.name} is another one than was asked about: its data changed")

    def score(self, doc: int, digest: str, texts: list[str]) -> tuple[dict[str, dict[str, Json]], str | None]:
        """Metrics by filter of one question's replies, as if there were no other question; and the answer that the
        first filter made of them, where it is a text."""
        self.check(doc, digest)
        document = self.docs[doc]
        instances = self.instances(document, doc, len(texts))
        answer(instances, texts)
        self.chance.set()
        scores: dict[str, dict[str, Json]] = {}
        answered: str | None = None
        problem: Exception | None = None
        for pipeline in self.task._filters:
            try:
                pipeline.apply(instances)
                filtered = [one.filtered_resps[pipeline.name] for one in instances]
                scores[pipeline.name] = self.task.process_results(document, filtered)
                if len(scores) == 1 and isinstance(filtered[0], str):
                    answered = filtered[0][:1000]
            except Exception as error:  # noqa: BLE001 - a pipeline that wants several draws cannot judge one
                problem = problem or error
        if problem is not None and not scores:
            raise problem
        return scores, answered

    def instances(self, document: Any, doc: int, draws: int) -> list[Any]:
        """What lm-eval would ask about a document, without the prompts."""
        made = self.task.construct_requests(
            doc=document,
            ctx=self.no_context(document),
            metadata=(self.task.config["task"], doc, draws),
            apply_chat_template=False,
            chat_template=None,
        )
        return made if isinstance(made, list) else [made]

    def no_context(self, document: Any, *_: Any, **__: Any) -> str | list[str]:
        """In place of a prompt, where only the replies count."""
        if getattr(self.task, "multiple_input", 0):
            return [""] * len(self.task.doc_to_choice(document))
        return ""


def answer(instances: list[Any], texts: list[str]) -> None:
    """Put recorded replies where a model's would go."""
    if instances[0].request_type == "generate_until":
        instances[0].resps = list(texts)
        return
    for text in texts:
        for instance, (total, greedy) in zip(instances, json.loads(text), strict=True):
            rolling = instance.request_type == "loglikelihood_rolling"
            instance.resps.append(total if rolling else (total, greedy))


# ---------------------------------------------------------------- questions


def write_questions(loaded: Loaded, limit: int | None, folder: Path) -> dict[str, Json]:
    """Write ``questions.jsonl`` and ``pictures/`` for all leaves; what the task is, for the answer."""
    (folder / "pictures").mkdir()
    leaves = {}
    pictures = False
    everything = hashlib.sha256()
    with (folder / "questions.jsonl").open("wb") as file:
        for name, leaf in loaded.leaves.items():
            kinds: set[str] = set()
            count = 0
            for question in _questions(leaf, limit, folder):
                pictures = pictures or bool(question.pop("pictured"))
                kinds.add(question["ask"])
                everything.update(question["hash"].encode())
                file.write(msgspec.json.encode(question) + b"\n")
                count += 1
            leaves[name] = {
                "size": count,
                "metric": leaf.metric,
                "filters": leaf.filters,
                "higher": leaf.task.higher_is_better(),
                "aggregation": {key: getattr(one, "__name__", "") for key, one in leaf.task.aggregation().items()},
                "repeats": leaf.task.get_config("repeats") or 1,
                "generation": generation(leaf.task.get_config("generation_kwargs") or {}) if "reply" in kinds else {},
                "config": leaf.task.dump_config(),
            }
    return {
        "leaves": msgspec.json.decode(_ADDRESS.sub(b"", msgspec.json.encode(leaves, enc_hook=_named))),
        "groups": {name: _group(group) for name, group in loaded.groups.items()},
        "pictures": pictures,
        "data": everything.hexdigest(),
    }


def _group(group: Any) -> Json:
    listed = [
        {"metric": one.metric, "filters": one.filter_list, "weighted": one.weight_by_size}
        for one in group.aggregate_metric_list or []
    ]
    return {"metrics": listed, "leaves": [task.task_name for task in group.get_all_tasks()]}


def _questions(leaf: Leaf, limit: int | None, folder: Path) -> Any:
    task = leaf.task
    chat = task.OUTPUT_TYPE == "generate_until"
    task.build_all_requests(
        limit=limit,
        rank=0,
        world_size=1,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=as_json if chat else None,
        tokenizer_name="",
    )
    by_doc: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    for doc, instances in by_doc.items():
        instances.sort(key=lambda one: one.idx)
        kinds = {one.request_type for one in instances}
        pictured = False
        if kinds == {"generate_until"} and len(instances) == 1:
            messages, pictured = _chat(instances[0], folder)
            ask = "reply"
        elif kinds <= {"loglikelihood", "loglikelihood_rolling"}:
            messages, ask = [], "likelihood"
            for one in instances:
                if len(one.args) > (1 if one.request_type == "loglikelihood_rolling" else 2):
                    raise Unsupported("it asks for the likelihood of texts about pictures, which no server tells")
                context, text = one.args if len(one.args) == 2 else ("", one.args[0])
                messages += [["user", [context]], ["assistant", [text]]]
        else:
            raise Unsupported(
                f"it asks for several things about one document ({', '.join(sorted(kinds))}); `ares-lm-eval` runs it"
            )
        document = instances[0].doc
        yield {
            "leaf": leaf.name,
            "doc": doc,
            "ask": ask,
            "messages": messages,
            "reference": _target(task, document),
            "hash": doc_hash(document),
            "pictured": pictured,
        }
    task._instances = None


def _chat(instance: Any, folder: Path) -> tuple[list[Json], bool]:
    more = instance.args[2] if len(instance.args) > 2 else {}
    visual = [image for image in more.get("visual") or [] if image is not None]
    messages: list[Json] = [[role, [text]] for role, text in read_chat(instance.args[0])]
    if visual:
        names = [{"picture": keep_picture(image, folder / "pictures")} for image in visual]
        last = max(i for i, (role, _) in enumerate(messages) if role == "user")
        messages[last][1] = interleaved(messages[last][1][0], names)
    return messages, bool(visual)


def keep_picture(image: Any, folder: Path) -> str:
    """Write a picture once, as PNG (lm-eval's form); its name."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise Unsupported(f"its pictures are given as {type(image).__name__}")
    data = png(image)
    name = f"{hashlib.sha256(data).hexdigest()[:32]}.png"
    if not (folder / name).exists():
        (folder / name).write_bytes(data)
    return name


def png(image: Any) -> bytes:
    """The bytes of a picture as lm-eval sends it."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _target(task: Any, document: Any) -> str:
    """The right answer in words, as far as the task tells."""
    target = task.doc_to_target(document)
    if isinstance(target, int) and task.get_config("doc_to_choice") is not None:
        choices = task.doc_to_choice(document)
        if 0 <= target < len(choices):
            target = choices[target]
    return str(target)[:10_000]


def doc_hash(document: Any) -> str:
    """SHA-256 (hex) of a document; for one of plain values the ``doc_hash`` of lm-eval's sample files."""
    text = json.dumps(document, indent=2, default=_content, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _content(value: Any) -> Json:
    if hasattr(value, "tobytes") and hasattr(value, "size"):
        return hashlib.sha256(value.tobytes()).hexdigest()
    if hasattr(value, "tolist"):
        return value.tolist()
    return _named(value) if callable(value) else str(value)


def _named(value: Any) -> str:
    """A function by its name: its address would be another one each time."""
    return str(getattr(value, "__qualname__", None) or type(value).__qualname__)


Heartbeat = Callable[[str, int], None]
