"""lm-evaluation-harness (0.4) and lmms-eval: the sample lines that ``--log_samples`` writes, as a run.

A path is a samples file, a results file, or a folder that holds them; of several runs in a folder the newest counts
for each task. One filter and one metric score a task, by the preferences below or as ``PATH::metric[,filter]`` says;
a note tells which. The harness aborts where a request fails, so all its samples are measured. Files that
``ares-eval --export lm-eval`` wrote carry our draws and verdicts, and these are read instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ares_eval.foreign.files import LARGEST_LINE, ForeignError, decode, mapping, read_json, score
from ares_eval.outcomes import Key, Outcome, Outcomes, TaskOutcomes, reference_digest
from ares_eval.types import Json

_TIME = r"\d{4}-?\d\d-?\d\d[T_][\d.:-]+"
_SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<time>{_TIME})\.jsonl|(?P<time2>{_TIME})_samples_(?P<task2>.+)\.jsonl")
_RESULTS = re.compile(rf"results_(?P<time>{_TIME})\.json|(?P<time2>{_TIME})_results\.json")

METRICS = ("exact_match", "acc", "accuracy", "math_verify", "correct", "pass@1", "acc_norm", "score")
FILTERS = ("none", "flexible-extract", "strict-match")
"""In order of preference; whatever else a file has comes after, in its own order."""

DEPTH = 3
"""Folders below the given one that are searched: OUT/MODEL/..."""

_LEVELS = ("level", "difficulty")


def recognises(path: Path) -> bool:
    """Whether lm-eval's or lmms-eval's samples lie at ``path``."""
    if path.is_file():
        return bool(_SAMPLES.fullmatch(path.name) or _RESULTS.fullmatch(path.name))
    return any(True for _ in _sample_files(path))


def load(path: Path, selection: str = "") -> Outcomes:
    """Read them; ``selection`` is ``metric[,filter]``. ForeignError where a file is broken or no metric fits."""
    files = _chosen(path)
    if not files:
        raise ForeignError(f"{path} has results but no samples beside them; run lm-eval with --log_samples")
    metric, _, kind = selection.partition(",")
    notes: list[str] = []
    tasks: dict[str, TaskOutcomes] = {}
    for task, file in files.items():
        read = _Task(task, file, metric, kind)
        read.read()
        tasks[task] = TaskOutcomes(read.draws, planned=None, judges=read.judges, file=str(file))
        notes += read.notes()
    model = _model(path, files)
    return Outcomes(f"lm-eval {model or path.name}", path, "lm-eval", model, tasks, notes=tuple(notes))


def _sample_files(folder: Path) -> Iterator[Path]:
    for depth in range(DEPTH + 1):
        for file in sorted(folder.glob("*/" * depth + "*samples_*.jsonl")):
            if _SAMPLES.fullmatch(file.name):
                yield file


def _chosen(path: Path) -> dict[str, Path]:
    """The samples file of each task: those of one time for a results file, else the newest."""
    if path.is_file():
        samples = _SAMPLES.fullmatch(path.name)
        if samples:
            return {samples["task"] or samples["task2"]: path}
        time = _named(_RESULTS, path.name)
        found = {}
        for file in _sample_files(path.parent):
            match = _SAMPLES.fullmatch(file.name)
            if match and time in (match["time"], match["time2"]):
                found[match["task"] or match["task2"]] = file
        return found
    newest: dict[str, tuple[str, Path]] = {}
    for file in _sample_files(path):
        match = _SAMPLES.fullmatch(file.name)
        assert match is not None
        task, time = match["task"] or match["task2"], match["time"] or match["time2"]
        if task not in newest or time > newest[task][0]:
            newest[task] = (time, file)
    return {task: file for task, (_, file) in sorted(newest.items())}


def _named(pattern: re.Pattern[str], name: str) -> str:
    match = pattern.fullmatch(name)
    return (match["time"] or match["time2"]) if match else ""


def _model(path: Path, files: Mapping[str, Path]) -> str | None:
    """The model's name from a results file beside the samples."""
    folder = next(iter(files.values())).parent
    for file in sorted(folder.glob("*results*.json"), reverse=True):
        if _RESULTS.fullmatch(file.name) and (not path.is_file() or path == file or path.suffix == ".jsonl"):
            content = read_json(file)
            name = content.get("model_name") if isinstance(content, dict) else None
            if isinstance(name, str):
                return name
    return None


@dataclass(slots=True)
class _Task:
    """The reading of one samples file, line by line."""

    task: str
    file: Path
    metric: str
    filter: str
    draws: dict[Key, Outcome] = field(default_factory=dict)
    judges: tuple[str, ...] = ()
    _others: set[str] = field(default_factory=set)
    _ours: bool = False

    def read(self) -> None:
        """Fill ``draws``: the preferred filter and metric are decided by what the file holds."""
        if not self.filter or not self.metric:
            self._choose()
        for number, line in _lines(self.file):
            if isinstance(line.get("ares"), dict):
                self._ours = True
                try:
                    self._own(number, line)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise ForeignError(f"{self.file}, line {number}: a broken line of our export ({error!r})") from None
            elif line.get("filter", self.filter) == self.filter:
                self._take(number, line)
        if not self.draws:
            raise ForeignError(f"{self.file}: no line has the filter {self.filter!r} and the metric {self.metric!r}")
        self.judges = () if self._ours else (f"lm-eval {self.metric},{self.filter}",)

    def notes(self) -> list[str]:
        """Which score was read, where there was a choice."""
        if self._ours or not self._others:
            return []
        return [f"{self.task}: scored by {self.metric},{self.filter}; there are also {', '.join(sorted(self._others))}"]

    def _choose(self) -> None:
        filters: dict[str, dict[str, None]] = {}
        for number, (_, line) in enumerate(_lines(self.file)):
            metrics = line["metrics"] if isinstance(line.get("metrics"), list) else list(line)
            known = [name for name in metrics if score(line.get(name)) is not None and name not in _NOT_METRICS]
            filters.setdefault(str(line.get("filter", "none")), {}).update(dict.fromkeys(known))
            if number >= 100:
                break
        filters = {name: metrics for name, metrics in filters.items() if metrics}
        if not filters:
            raise ForeignError(f"{self.file} has no metric between 0 and 1")
        self.filter = self.filter or _preferred(list(filters), FILTERS)
        self.metric = self.metric or _preferred(list(filters.get(self.filter, {})) or [""], METRICS)
        pairs = {f"{metric},{name}" for name, metrics in filters.items() for metric in metrics}
        self._others = pairs - {f"{self.metric},{self.filter}"}

    def _take(self, number: int, line: Mapping[str, Json]) -> None:
        value = score(line.get(self.metric))
        if value is None:
            raise ForeignError(f"{self.file}, line {number}: {self.metric} is no number between 0 and 1")
        doc = mapping(line.get("doc"))
        sample = str(line.get("doc_id"))
        self.draws[sample, 0] = Outcome(
            score=value,
            group=sample,
            level=next((str(doc[name]) for name in _LEVELS if doc.get(name) is not None), None),
            reference=_reference(line.get("target")),
            position=line["doc_id"] if isinstance(line.get("doc_id"), int) else None,
            line=number,
        )

    def _own(self, number: int, line: Mapping[str, Json]) -> None:
        """A line of our own export: its draws, under our sample's id."""
        doc, ours = line["doc"], line["ares"]
        for draw in ours["draws"]:
            verdict = draw.get("verdict") or {}
            usage = draw.get("usage") or {}
            self.draws[str(doc["id"]), int(draw["draw"])] = Outcome(
                score=float(verdict.get("value") == "correct"),
                group=str(doc["group"]),
                level=doc.get("level"),
                tokens=usage.get("completion"),
                truncated=bool(draw.get("truncated")),
                unverifiable=verdict.get("value") not in ("correct", "incorrect"),
                prompt=str(ours.get("prompt", ""))[:12],
                reference=_reference(line.get("target")),
                position=line.get("doc_id"),
                line=number,
            )


_NOT_METRICS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "ares"}


def _reference(target: Json) -> str:
    return reference_digest(target) if isinstance(target, str) and not target.startswith("[") else ""


def _preferred(names: list[str], order: tuple[str, ...]) -> str:
    return next((name for name in order if name in names), names[0])


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Json]]]:
    number = 0
    with file.open("rb") as stream:
        while line := stream.readline(LARGEST_LINE):
            number += 1
            content = decode(line, f"{file}, line {number}")
            if not isinstance(content, dict) or "doc_id" not in content:
                raise ForeignError(f"{file}, line {number}: no sample of lm-eval")
            yield number, content
