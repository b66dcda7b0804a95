"""A series as tables: one a task for people, all of them in one long table for CSV."""

from __future__ import annotations

from ares_eval.analysis.tables import Cell, Table
from ares_eval.series.gather import Point, Series, TaskPoint

_FIGURES = ("score", "tokens", "HWE_tokens", "HWE_density", "truncated", "not_measured")
_PERCENT = frozenset(("score", "HWE_density", "truncated"))


def by_task(series: Series) -> list[Table]:
    """A table a task, a row a step; steps without a figure (failed ones) stand in each."""
    tables = []
    for name in series.tasks or ["no figures"]:
        rows = tuple((point.step, *_row(point, name)) for point in series.points)
        metrics = {point.tasks[name].metric for point in series.points if name in point.tasks} - {"accuracy"}
        title = name + (f" (score: {', '.join(sorted(metrics))})" if metrics else "")
        columns = ("step", *_FIGURES, "decision", "best")
        tables.append(Table(f"series_{name}", title, columns, rows, _PERCENT))
    return tables


def whole(series: Series) -> Table:
    """One row a step and task, with the weights' digest."""
    rows: list[tuple[Cell, ...]] = []
    for point in series.points:
        for name in point.tasks or [""]:
            task = point.tasks.get(name)
            asked: tuple[Cell, ...] = (None, None) if task is None else (task.metric, task.n)
            rows.append((point.step, point.digest, name, *asked, *_row(point, name)))
    columns = ("step", "digest", "task", "metric", "n", *_FIGURES, "decision", "best")
    return Table("series", "Series", columns, tuple(rows), _PERCENT)


def decision(point: Point) -> str:
    """What became of a step: the gate's verdict, or that there is none to be had."""
    if point.status == "failed":
        return "failed"
    parts = [point.verdict] if point.verdict else []
    if point.status == "incomplete" and point.verdict != "incomplete":
        parts.append("incomplete")
    return ", ".join(parts)


def _row(point: Point, name: str) -> tuple[Cell, ...]:
    task = point.tasks.get(name)
    figures: tuple[Cell, ...] = (None,) * len(_FIGURES) if task is None else _cells(task)
    return (*figures, decision(point), "best" if point.best else "")


def _cells(task: TaskPoint) -> tuple[Cell, ...]:
    return (task.score, task.tokens, task.hwe, task.density, task.truncated, task.n - task.measured or None)
