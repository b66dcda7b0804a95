"""Everything that a report shows, read from run folders once: results, analysis, causes of failure, published numbers.

A run that was interrupted has no results.json; its numbers are then made from what is recorded, and the report says so.
The analysis that lies in the folder (``ares-eval analyze``) is used where it is newer than the records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ares_eval import outcomes, records, reference
from ares_eval import results as run_results
from ares_eval.analysis import summary
from ares_eval.analysis.observe import Observed, Options, observe
from ares_eval.analysis.summary import Analysis
from ares_eval.compare import Comparison, Mismatch, compare_outcomes
from ares_eval.records import Run, RunError
from ares_eval.reference import Beside
from ares_eval.types import Json

MESSAGE = 240
"""Characters of a server's message that are shown."""

MOST_RUNS = 8
"""Runs in one report: as many as there are colours that can be told apart."""


@dataclass(frozen=True, slots=True)
class Count:
    """How often something happened in one task: ``outcome`` (not measured, unverifiable, ...), its cause, and an
    example in the server's own words."""

    task: str
    outcome: str
    cause: str
    count: int
    example: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """One run. ``analysis`` is None where nothing was measured, and ``no_analysis`` says why. ``seen``: the columns
    behind the analysis, where they were needed. ``beside``: published rows. ``finished``: results.json was there."""

    run: Run
    label: str
    results: Mapping[str, Json]
    finished: bool
    analysis: Analysis | None
    no_analysis: str
    seen: Observed | None
    counts: tuple[Count, ...]
    beside: tuple[Beside, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All runs; the first one is what the others are compared with. ``notes``: what could not be shown, and why."""

    runs: tuple[Reported, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def gather(
    folders: Sequence[Path], *, references: Sequence[str] = (), options: Options | None = None, columns: bool = False
) -> Report:
    """Read the runs. ``references``: models with published numbers; ``columns``: keep the draws for CSV.

    Raises RunError for a folder that is no run, reference.UnknownModel, and ValueError for too many runs.
    """
    if len(folders) > MOST_RUNS:
        raise ValueError(f"{len(folders)} runs are too many for one report; {MOST_RUNS} at most")
    runs = [records.load_run(folder) for folder in folders]
    labels = _labels(runs)
    notes: list[str] = []
    found = [_one(run, label, references, options, columns, notes) for run, label in zip(runs, labels, strict=True)]
    return Report(tuple(found), tuple(_compared(runs, notes)), tuple(dict.fromkeys(notes)))


def _one(
    run: Run, label: str, references: Sequence[str], options: Options | None, columns: bool, notes: list[str]
) -> Reported:
    analysis, seen, why = _analysed(run, options, columns)
    results = run.results if run.results is not None else _unfinished(run)
    beside = _beside(run, references, notes) if references else ()
    return Reported(run, label, results, run.results is not None, analysis, why, seen, tuple(_counts(run)), beside)


def _labels(runs: Sequence[Run]) -> list[str]:
    """The model's name where it tells the runs apart, else with the folder's name."""
    names = [str(run.manifest.get("model") or run.folder.name) for run in runs]
    labels = [
        name if names.count(name) == 1 else f"{name} / {run.folder.name}" for name, run in zip(names, runs, strict=True)
    ]
    return [label if labels.count(label) == 1 else f"{label} ({i})" for i, label in enumerate(labels, 1)]


def _analysed(run: Run, options: Options | None, columns: bool) -> tuple[Analysis | None, Observed | None, str]:
    kept = None if options is not None else kept_analysis(run)
    if kept is not None and not columns:
        return kept, None, ""
    options = options or (kept.options if kept is not None else Options())
    try:
        seen = observe(run, options)
        return summary.summed_up(run, seen, options), seen if columns else None, ""
    except RunError as error:
        return None, None, str(error)


def kept_analysis(run: Run) -> Analysis | None:
    """analysis.json, where it is of this version and not older than the records."""
    path = run.folder / summary.FILE
    try:
        if path.stat().st_mtime_ns < (run.folder / records.SAMPLES).stat().st_mtime_ns:
            return None
        return summary.read(path)
    except (OSError, RunError):
        return None


def _unfinished(run: Run) -> dict[str, Json]:
    """Results of what is recorded so far; draws that were planned and have no record count as missing."""
    tasks: Mapping[str, Json] = run.manifest.get("tasks", {})
    draws: Counter[str] = Counter()
    for record in run.records():
        draws[record.task] = max(draws[record.task], record.draw + 1)
    # A manifest names every suite that holds a task; a run has those that were asked for.
    asked = set(str((run.manifest.get("settings") or {}).get("datasets", "")).split(","))
    metas = {}
    for name in {*tasks, *draws}:
        task = tasks.get(name, {})
        k, planned = draws[name] or 1, task.get("planned")
        metas[name] = run_results.TaskMeta(
            name,
            suites=tuple(suite for suite in task.get("suites", ()) if suite in asked),
            metrics=tuple(metric for metric in task.get("metrics", ()) if metric in run_results.METRICS),
            questions=planned // k if planned else None,
            draws=k,
        )
    return run_results.summarise(run.records(), metas)


def _counts(run: Run) -> list[Count]:
    """What went wrong, by task: causes of what was not measured, reasons of what was not verified, truncation."""
    found: Counter[tuple[str, str, str]] = Counter()
    example: dict[tuple[str, str, str], str] = {}
    for record in run.records():
        keys = []
        if not record.measured:
            keys.append((record.task, "not measured", record.cause or ""))
            example.setdefault(keys[0], " ".join((record.message or "").split())[:MESSAGE])
        elif record.verdict is None or record.verdict.value == "unverifiable":
            keys.append((record.task, "unverifiable", (record.verdict and record.verdict.reason) or "not judged"))
        elif record.verdict.value == "incorrect" and record.verdict.reason:
            keys.append((record.task, "incorrect", record.verdict.reason))
        if record.measured and record.truncated:
            keys.append((record.task, "truncated", "token limit"))
        for key in keys:
            found[key] += 1
    for name, task in (run.results or {}).get("tasks", {}).items():
        if missing := task["not_measured"].get(run_results.MISSING):
            found[name, "not measured", run_results.MISSING] = missing
    return [Count(*key, count, example.get(key, "")) for key, count in sorted(found.items())]


def _beside(run: Run, references: Sequence[str], notes: list[str]) -> tuple[Beside, ...]:
    seen = outcomes.of_run(run)
    found = []
    for name in references:
        row = reference.beside(seen, name)
        found.append(row)
        notes += row.left_out
    return tuple(found)


def _compared(runs: Sequence[Run], notes: list[str]) -> list[Comparison]:
    """Each further run against the first, over what both have."""
    if len(runs) < 2:
        return []
    first, *others = (outcomes.of_run(run) for run in runs)
    found = []
    for other in others:
        try:
            found.append(compare_outcomes(first, other, partial=True))
        except Mismatch as error:
            notes += [f"not compared with {other.label}: {reason}" for reason in error.reasons]
    return found
