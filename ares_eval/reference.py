"""Published numbers (results/reference/*.csv), and a run beside one of their rows.

A published row has no samples, so nothing is paired: the run's score is set beside the printed one, with an interval
of the difference that treats both as independent (recovered from each side's own Wilson interval; Newcombe 1998), and
only where the metric is the same.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from ares_eval import resources
from ares_eval.analysis.statistics import proportion, wilson
from ares_eval.outcomes import Outcomes, TaskOutcomes
from ares_eval.types import Json

PREFIX = "reference:"
TABLES = ("accuracy", "lengths", "ablation")
"""The files that share the columns of Published; the others are plots' raw material."""

TOKENS = "completion_tokens_mean"


class UnknownModel(Exception):
    """A model that has no published row; the message names near ones."""


@dataclass(frozen=True, slots=True)
class Published:
    """One printed number. ``value`` in ``unit`` (percent or tokens); ``questions``, ``draws``: where they are known."""

    model: str
    group: str
    benchmark: str
    split: str
    metric: str
    value: float
    unit: str
    questions: int | None
    draws: int | None
    source: str


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """All rows of TABLES, in the order of the files."""
    folder = resources.folder("results/reference")
    return tuple(row for table in TABLES for row in _read(folder / f"{table}.csv"))


def _read(path: Path) -> list[Published]:
    def count(text: str) -> int | None:
        return int(text) if text else None

    with path.open(newline="", encoding="utf-8") as file:
        return [
            Published(
                model=row["model"],
                group=row["group"],
                benchmark=row["benchmark"],
                split=row["split"],
                metric=row["metric"],
                value=float(row["value"]),
                unit=row["unit"],
                questions=count(row["questions"]),
                draws=count(row["draws"]),
                source=row["source"],
            )
            for row in csv.DictReader(file)
        ]


def of_model(model: str) -> list[Published]:
    """The rows of one model, its name without regard to case; UnknownModel where there is none."""
    rows = [row for row in published() if row.model.casefold() == model.casefold()]
    if not rows:
        names = sorted({row.model for row in published()})
        near = difflib.get_close_matches(model, names, n=3, cutoff=0.4) or names
        raise UnknownModel(f"nothing is published of {model!r} here; there are {', '.join(near)}")
    return rows


def named(run: str) -> bool:
    """Whether an argument names a published row instead of a path."""
    return run.startswith(PREFIX)


# ---------------------------------------------------------------- beside a run


@dataclass(frozen=True, slots=True)
class Line:
    """One benchmark: the run's score and the printed one in percent, difference run - printed with its interval."""

    task: str
    metric: str
    draws: int
    run: float
    printed: float
    difference: float
    interval: tuple[float, float] | None
    source: str


@dataclass(frozen=True, slots=True)
class Beside:
    """A run beside a published row; ``left_out`` says why benchmarks are missing."""

    run: str
    model: str
    lines: tuple[Line, ...]
    left_out: tuple[str, ...]

    def text(self) -> str:
        """For a terminal."""
        width = max([len(line.task) for line in self.lines] + [4])
        rows = [f"{'task':{width}}  {'metric':10}  {'draws':>6}  {'run %':>6}  {'printed %':>9}  difference [95 %]"]
        rows += [
            f"{line.task:{width}}  {line.metric:10}  {line.draws:6}  {line.run:6.1f}  {line.printed:9.1f}  "
            f"{_shown(line)}"
            for line in self.lines
        ]
        return "\n".join([f"{self.run} beside {self.model} as published ({NOT_PAIRED})", *rows, *self.left_out]) + "\n"

    def markdown(self) -> str:
        """For a job's summary."""
        rows = ["| task | metric | draws | run % | printed % | difference [95 %] |", "|---|---|---:|---:|---:|---:|"]
        rows += [
            f"| {line.task} | {line.metric} | {line.draws} | {line.run:.1f} | {line.printed:.1f} | {_shown(line)} |"
            for line in self.lines
        ]
        notes = [f"- {note}" for note in self.left_out]
        head = f"### `{self.run}` beside {self.model} as published\n\nNot paired: {NOT_PAIRED}.\n"
        return "\n".join([head, *rows, "", *notes]) + "\n"

    def as_json(self) -> Json:
        """As values."""
        return asdict(self) | {"paired": False}


NOT_PAIRED = "its samples are not public, so nothing is paired; prompts, sampling and grader may differ"


def _shown(line: Line) -> str:
    interval = "" if line.interval is None else f" [{line.interval[0]:+.1f}, {line.interval[1]:+.1f}]"
    return f"{line.difference:+.1f}{interval}"


def beside(run: Outcomes, name: str) -> Beside:
    """``run`` beside the published row of a model (``reference:MODEL``); UnknownModel where there is none."""
    model = name.removeprefix(PREFIX)
    rows = {row.benchmark: row for row in reversed(of_model(model)) if row.unit == "percent"}
    lines: list[Line] = []
    left_out: list[str] = []
    for task, outcomes in sorted(run.tasks.items()):
        row = rows.get(task.removeprefix("ares_"))
        if row is None:
            left_out.append(f"{task}: nothing is published for {model}")
        elif row.metric not in ("accuracy", "avg@16"):
            left_out.append(
                f"{task}: the published {row.value} is {row.metric}, which is not computed from single draws"
            )
        elif (line := _line(task, outcomes, row)) is None:
            left_out.append(f"{task}: nothing was measured")
        else:
            lines.append(line)
            asked = len({sample for sample, _ in outcomes.draws})
            if row.questions is not None and asked != row.questions:
                left_out.append(f"{task}: the run has {asked} questions, the published number {row.questions}")
    return Beside(run.label, rows[next(iter(rows))].model, tuple(lines), tuple(left_out))


def _line(task: str, outcomes: TaskOutcomes, row: Published) -> Line | None:
    groups: dict[str, list[float]] = {}
    for (sample, _), outcome in outcomes.draws.items():
        if outcome.measured:
            groups.setdefault(outcome.group or sample, []).append(outcome.score)
    if not groups:
        return None
    estimate = proportion(groups)
    interval = None
    if estimate.interval is not None and row.questions is not None:
        printed = row.value / 100
        # One draw a question is what a binomial error knows; more draws make the printed number surer than this says.
        spread = wilson(min(printed * row.questions, row.questions), row.questions)
        interval = _newcombe(estimate.mean, estimate.interval, printed, spread)
    return Line(
        task=task,
        metric=row.metric,
        draws=sum(len(scores) for scores in groups.values()),
        run=100 * estimate.mean,
        printed=row.value,
        difference=100 * estimate.mean - row.value,
        interval=interval,
        source=row.source,
    )


def _newcombe(a: float, of_a: Sequence[float], b: float, of_b: Sequence[float]) -> tuple[float, float]:
    """Interval of a - b in points from the intervals of both (Newcombe 1998, method 10, for independent samples)."""
    low = a - b - math.hypot(a - of_a[0], of_b[1] - b)
    high = a - b + math.hypot(of_a[1] - a, b - of_b[0])
    return 100 * low, 100 * high
