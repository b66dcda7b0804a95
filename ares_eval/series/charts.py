"""The charts of a series: score, tokens and HWE tokens of each task against the step, one row of charts a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ares_eval.analysis.bootstrap import Estimated
from ares_eval.report import marks, theme
from ares_eval.report.drawing import Chart
from ares_eval.series.gather import Point, Series, TaskPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Take = Callable[[TaskPoint], Estimated | None]

CURVES: tuple[tuple[str, str, Take, float], ...] = (
    ("score", "{metric}, %", lambda task: task.score, 100.0),
    ("tokens", "tokens of a reply", lambda task: task.tokens, 1.0),
    ("hwe", "HWE tokens of a reply", lambda task: task.hwe, 1.0),
)


def charts(series: Series) -> list[Chart]:
    """Every chart that has a point, grouped by task."""
    made = []
    for name in series.tasks:
        for key, label, take, scale in CURVES:
            points = [(point, value) for point in series.points if (value := _value(point, name, take)) is not None]
            if points:
                metric = points[0][0].tasks[name].metric
                made.append(_chart(name, key, label.format(metric=metric), points, scale))
    return made


def _value(point: Point, name: str, take: Take) -> Estimated | None:
    task = point.tasks.get(name)
    return None if task is None else take(task)


def _chart(task: str, key: str, label: str, points: list[tuple[Point, Estimated]], scale: float) -> Chart:
    def draw(axes: Axes) -> None:
        x = [float(point.step) for point, _ in points]
        marks.curve(axes, x, [value for _, value in points], theme.RUNS[0], scale=scale)
        if key == "score":
            for point, value in points:
                _mark(axes, point, scale * value.value)
        _steps_below(axes, [point.step for point, _ in points])
        axes.set_xlabel("training step")
        axes.set_ylabel(label)
        marks.from_zero(axes)

    spoken = ", ".join(f"step {point.step} {scale * value.value:.4g}" for point, value in points)
    return Chart(f"series-{marks.file_name(task)}-{key}", f"{task}: {key}", "", spoken, draw, group=task)


def _mark(axes: Axes, point: Point, height: float) -> None:
    """The best step has a ring, one that failed the gate a cross."""
    if point.best:
        axes.plot([point.step], [height], "o", color=theme.RIGHT.light, markerfacecolor="none", markersize=12, zorder=5)
    if point.verdict == "fail":
        axes.plot([point.step], [height], "x", color=theme.WRONG.light, markersize=9, markeredgewidth=2, zorder=6)


def _steps_below(axes: Axes, steps: list[int]) -> None:
    """Whole steps as ticks; a single one in the middle."""
    from matplotlib.ticker import MaxNLocator

    if len(steps) <= marks.MOST_LABELS:
        axes.set_xticks(steps, [f"{step:,}" for step in steps])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=marks.MOST_LABELS - 1, integer=True))
    room = (steps[-1] - steps[0]) * 0.05 or 1
    axes.set_xlim(steps[0] - room, steps[-1] + room)
