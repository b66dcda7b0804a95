"""What a series shows, read from step files and the run folders they name; or from plain run folders.

A plain folder of runs is a series where each run's ``--model-revision`` ends in a number (``checkpoint-500``,
``step_20``, ``global_step_20``): that is its step. Intervals come from the run folders; where one is gone, the step
file's figures stand without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.summary import Analysis, TaskAnalysis
from ares_eval.records import MANIFEST, RESULTS, Run, RunError, load_run
from ares_eval.series import steps
from ares_eval.series.steps import StepResult, Threshold
from ares_eval.series.threshold import analysed, comparable, threshold_of
from ares_eval.types import Json

_STEP = re.compile(r"(?:^|[-_/])(?:step|steps|checkpoint|ckpt|iter|global_step)[-_]?(\d{1,12})$|^(\d{1,12})$")


class SeriesError(Exception):
    """A folder that holds no series; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class TaskPoint:
    """One task at one step. ``score``: its primary metric, whose name is ``metric``; ``tokens``, ``hwe``: means of a
    reply; ``density``: HWE tokens per token; shares in [0, 1]. None where it was not recorded."""

    metric: str
    n: int
    measured: int
    score: Estimated | None
    tokens: Estimated | None
    hwe: Estimated | None
    density: Estimated | None
    truncated: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """One step. ``verdict``: the gate's, empty where nothing was gated; ``reason``: why it failed or is incomplete."""

    step: int
    status: str
    digest: str
    model: str
    tasks: Mapping[str, TaskPoint]
    verdict: str = ""
    findings: tuple[str, ...] = ()
    reason: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """All steps of one run, in order. ``metric``: what the best one is chosen by, empty where nobody chose.
    ``threshold``: what HWE was counted by; ``notes``: what could not be shown, and why."""

    name: str
    points: tuple[Point, ...]
    metric: str = ""
    mode: str = "max"
    threshold: Threshold | None = None
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> list[str]:
        """Names of all tasks, in the order of their first appearance."""
        return list(dict.fromkeys(name for point in self.points for name in point.tasks))


def gather(folder: Path) -> Series:
    """The series of a training run's folder, or of a folder of runs. Raises SeriesError, steps.StepFileError."""
    found = steps.read_all(folder)
    if found:
        return _of_training(folder, list(found.values()))
    runs = _plain_runs(folder)
    if not runs:
        raise SeriesError(
            f"{folder} holds no series: neither {steps.FOLDER}/step_N.json (`ares-train watch` writes them) nor run "
            "folders whose --model-revision ends in a step (checkpoint-500, step_20)"
        )
    return _of_plain(folder, runs)


# ---------------------------------------------------------------- a training run


def _of_training(run_dir: Path, results: list[StepResult]) -> Series:
    best = steps.read_best(run_dir)
    threshold = next((result.threshold for result in results if result.threshold is not None), None)
    notes: list[str] = []
    points = []
    for result in results:
        gate = result.gate
        points.append(
            Point(
                step=result.step,
                status=result.status,
                digest=result.digest,
                model=result.model,
                tasks={} if result.status == "failed" else _tasks(run_dir, result, threshold, notes),
                verdict="" if gate is None else gate.verdict,
                findings=() if gate is None else gate.findings,
                reason=result.reason,
                best=best is not None and (best.step, best.digest) == (result.step, result.digest),
            )
        )
    name = run_dir.resolve().name
    if best is None:
        return Series(name, tuple(points), threshold=threshold, notes=tuple(notes))
    return Series(name, tuple(points), best.score.metric, best.mode, threshold, tuple(notes))


def _tasks(run_dir: Path, result: StepResult, threshold: Threshold | None, notes: list[str]) -> Mapping[str, TaskPoint]:
    """From the run's folder, with intervals; from the figures where that is gone or belongs to other weights."""
    if result.run is None:
        return _of_figures(result.figures)
    try:
        run = load_run(run_dir / result.run)
    except RunError as error:
        notes.append(f"step {result.step}: no intervals: {error}")
        return _of_figures(result.figures)
    if run.results is None or run.manifest.get("revision") != result.digest:
        notes.append(f"step {result.step}: no intervals: {result.run} is not the finished run of these weights")
        return _of_figures(result.figures)
    return _of_run(run, run.results, threshold, f"step {result.step}", notes)


# ---------------------------------------------------------------- plain runs


def _plain_runs(folder: Path) -> dict[int, Run]:
    """Runs with results in ``folder`` whose revision names a step; of several runs of a step the last one counts."""
    if not folder.is_dir():
        raise SeriesError(f"{folder}: no such folder")
    found: dict[int, Run] = {}
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        if not (manifest.parent / RESULTS).is_file():
            continue
        run = load_run(manifest.parent)
        match = _STEP.search(str(run.manifest.get("revision") or ""))
        if match is None:
            continue
        step = int(match[1] or match[2])
        if step not in found or _created(found[step]) < _created(run):
            found[step] = run
    return dict(sorted(found.items()))


def _created(run: Run) -> str:
    return str(run.manifest.get("created") or "")


def _of_plain(folder: Path, runs: Mapping[int, Run]) -> Series:
    notes: list[str] = []
    points: list[Point] = []
    threshold: Threshold | None = None
    for step, run in runs.items():
        if threshold is None:
            threshold = _own_threshold(run)
        points.append(
            Point(
                step=step,
                status="complete" if run.manifest.get("status") == "complete" else "incomplete",
                digest=str(run.manifest.get("revision")),
                model=str(run.manifest.get("model") or ""),
                tasks=_of_run(run, run.results or {"tasks": {}}, threshold, f"step {step}", notes),
            )
        )
    return Series(folder.resolve().name, tuple(points), threshold=threshold, notes=tuple(notes))


def _own_threshold(run: Run) -> Threshold | None:
    try:
        return threshold_of(analysed(run, None))
    except RunError:
        return None


# ---------------------------------------------------------------- one run


def _of_run(
    run: Run, results: Mapping[str, Json], threshold: Threshold | None, label: str, notes: list[str]
) -> dict[str, TaskPoint]:
    analysis: Analysis | None = None
    try:
        analysis = analysed(run, threshold)
    except RunError as error:
        notes.append(f"{label}: {error}")
    scaled = analysis is not None and comparable(analysis, threshold)
    if analysis is not None and not scaled:
        own = threshold_of(analysis)
        notes.append(f"{label}: HWE is left out: its entropies are {own.estimate if own else 'unknown'}")
    parts = {} if analysis is None else {part.name: part for part in analysis.tasks}
    return {name: _of_results(entry, parts.get(name), scaled) for name, entry in results["tasks"].items()}


def _of_results(entry: Mapping[str, Json], part: TaskAnalysis | None, scaled: bool) -> TaskPoint:
    metrics = entry["metrics"]
    metric = metrics.get("primary", "accuracy")
    hwe = part.hwe if part is not None and scaled else None
    spread = None if part is None or part.lengths.unit != "tokens" else part.lengths.completion
    measured = entry["n"] - sum(entry["not_measured"].values())
    return TaskPoint(
        metric=metric,
        n=entry["n"],
        measured=measured,
        score=_estimated(metrics.get(metric), metrics.get(f"{metric}_ci95"), measured),
        tokens=spread.mean if spread else _estimated(metrics.get("completion_tokens_mean"), None, measured),
        hwe=None if hwe is None else hwe.count,
        density=None if hwe is None else hwe.density,
        truncated=entry["truncated"] / measured if measured else None,
    )


def _of_figures(figures: Mapping[str, float]) -> dict[str, TaskPoint]:
    """From the flat figures alone: no intervals but that of accuracy."""
    names = [key.rpartition("/")[0] for key in figures if key.endswith("/not_measured")]
    return {name: _flat(figures, f"{name}/") for name in names}


def _flat(figures: Mapping[str, float], prefix: str) -> TaskPoint:
    def value(key: str) -> Estimated | None:
        return _estimated(figures.get(prefix + key), None, 0)

    n = int(figures.get(f"{prefix}n", 0))
    measured = n - int(figures[f"{prefix}not_measured"])
    bounds = [figures.get(f"{prefix}accuracy_ci95_{end}") for end in ("low", "high")]
    return TaskPoint(
        metric="accuracy",
        n=n,
        measured=measured,
        score=_estimated(figures.get(f"{prefix}accuracy"), None if None in bounds else bounds, measured),
        tokens=value("completion_tokens_mean"),
        hwe=value("hwe_tokens"),
        density=value("hwe_density"),
        truncated=figures.get(f"{prefix}truncated", 0.0) / measured if measured else None,
    )


def _estimated(value: float | None, interval: object, n: int) -> Estimated | None:
    if value is None:
        return None
    low, high = interval if isinstance(interval, list | tuple) else (None, None)
    return Estimated(float(value), low, high, n, n)
