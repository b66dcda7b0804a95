"""The charts of a report about scores, lengths, difficulty and budgets; those about entropy are in charts_hwe.

Each function gives the charts of one section, a chart a task, with all runs in it; runs keep their colour throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ares_eval.analysis.adaptivity import Adaptivity, Point
from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.budgets import Budgets
from ares_eval.analysis.lengths import Spread
from ares_eval.analysis.summary import OVERALL, TaskAnalysis
from ares_eval.report import marks, theme
from ares_eval.report.drawing import Chart, Key
from ares_eval.report.gather import Report, Reported

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def run_keys(report: Report) -> tuple[Key, ...]:
    """The legend of runs."""
    return tuple(Key(run.label, colour) for run, colour in zip(report.runs, theme.RUNS, strict=False))


def parts_of(report: Report) -> Iterator[tuple[str, list[tuple[int, TaskAnalysis]]]]:
    """Each task with its analyses, (number of the run, analysis); the pooled draws last, where there are several."""
    names = list(dict.fromkeys(t.name for run in report.runs if run.analysis for t in run.analysis.tasks))
    for name in names + ([OVERALL] if len(names) > 1 else []):
        found = [(i, part) for i, run in enumerate(report.runs) if (part := analysis_of(run, name)) is not None]
        yield name, found


def analysis_of(run: Reported, name: str) -> TaskAnalysis | None:
    """The analysis of one task of a run, None where it has none."""
    if run.analysis is None:
        return None
    if name == OVERALL:
        return run.analysis.overall
    return next((task for task in run.analysis.tasks if task.name == name), None)


# ---------------------------------------------------------------- scores


def accuracy(report: Report) -> list[Chart]:
    """One row a task: accuracy of every run with its interval, published numbers as diamonds."""
    tasks = list(dict.fromkeys(name for run in report.runs for name in run.results["tasks"]))
    if not tasks:
        return []
    printed = {
        (line.task, beside.model): line.printed for run in report.runs for beside in run.beside for line in beside.lines
    }
    models = list(dict.fromkeys(model for _, model in printed))

    def draw(axes: Axes) -> None:
        lanes = len(report.runs) + len(models)
        for row, task in enumerate(tasks):
            for i, run in enumerate(report.runs):
                metrics = run.results["tasks"].get(task, {}).get("metrics", {})
                marks.dot(axes, _estimate(metrics), _lane(row, i, lanes), theme.RUNS[i], scale=100)
            for j, model in enumerate(models):
                if (value := printed.get((task, model))) is not None:
                    lane = _lane(row, len(report.runs) + j, lanes)
                    axes.plot([value], [lane], "D", color=theme.MUTED.light, markerfacecolor="none", markersize=5)
        marks.rows_left(axes, tasks)
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, %")

    keys = run_keys(report) + tuple(Key(f"{model}, published (diamond)", theme.MUTED) for model in models)
    values = "; ".join(_spoken(run, tasks) for run in report.runs)
    height = 0.8 + 0.26 * len(tasks) * max(1.4, len(report.runs) + len(models))
    caption = "95 % intervals, clustered by question."
    return [Chart("accuracy", "Accuracy by task", caption, values, draw, keys, height=height)]


def _lane(row: int, i: int, lanes: int) -> float:
    return row + (i - (lanes - 1) / 2) * min(0.26, 0.8 / lanes)


def _estimate(metrics: dict[str, object]) -> Estimated | None:
    value, interval = metrics.get("accuracy"), metrics.get("accuracy_ci95")
    if not isinstance(value, float):
        return None
    low, high = interval if isinstance(interval, list | tuple) else (None, None)
    return Estimated(value, low, high, 0, 0)


def _spoken(run: Reported, tasks: Sequence[str]) -> str:
    found = []
    for task in tasks:
        value = run.results["tasks"].get(task, {}).get("metrics", {}).get("accuracy")
        if value is not None:
            found.append(f"{task} {100 * value:.1f} %")
    return f"{run.label}: {', '.join(found) or 'nothing measured'}"


def outcomes(report: Report) -> list[Chart]:
    """What became of the draws of each run, a bar a task."""
    charts = []
    kinds = (
        ("correct", "correct", theme.RIGHT),
        ("incorrect", "incorrect", theme.WRONG),
        ("unverifiable", "unverifiable", theme.OPEN),
        ("not measured", "not_measured", theme.LOST),
    )
    for number, run in enumerate(report.runs, 1):
        tasks: dict[str, dict[str, int]] = {
            name: {
                "correct": task["correct"],
                "incorrect": task["incorrect"],
                "unverifiable": task["unverifiable"],
                "not_measured": sum(task["not_measured"].values()),
            }
            for name, task in run.results["tasks"].items()
        }

        def draw(axes: Axes, tasks: dict[str, dict[str, int]] = tasks) -> None:
            for row, counts in enumerate(tasks.values()):
                total, left = sum(counts.values()) or 1, 0.0
                for _, key, colour in kinds:
                    width = 100 * counts[key] / total
                    axes.barh([row], [width], left=left, height=0.62, color=colour.light, linewidth=0)
                    left += width
            marks.rows_left(axes, list(tasks))
            axes.set_xlim(0, 100)
            axes.set_xlabel("draws, %")

        spoken = "; ".join(f"{name}: " + ", ".join(f"{k} {v}" for k, v in c.items()) for name, c in tasks.items())
        keys = tuple(Key(name, colour) for name, _, colour in kinds)
        name = f"outcomes-{number}"
        title = "What became of the draws" + (f": {run.label}" if len(report.runs) > 1 else "")
        height = 0.85 + 0.32 * max(len(tasks), 1)
        charts.append(Chart(name, title, "", spoken, draw, keys, height=height))
    return charts


def lengths(report: Report) -> list[Chart]:
    """A chart a task: length of correct, incorrect and unverifiable replies, median within p10 to p90."""
    verdicts = ("correct", "incorrect", "unverifiable")
    charts = []
    for name, parts in parts_of(report):
        if not any(part.lengths.by_verdict for _, part in parts):
            continue

        def draw(axes: Axes, parts: list[tuple[int, TaskAnalysis]] = parts) -> None:
            for lane, (i, part) in enumerate(parts):
                for row, verdict in enumerate(verdicts):
                    if (spread := part.lengths.by_verdict.get(verdict)) is not None:
                        y = _lane(row, lane, len(parts))
                        axes.hlines([y], [spread.p10], [spread.p90], color=theme.RUNS[i].light, linewidth=4, alpha=0.3)
                        axes.plot([spread.median], [y], "o", color=theme.RUNS[i].light, markersize=5.5, zorder=3)
            marks.rows_left(axes, verdicts)
            axes.set_xlim(left=0)
            axes.set_xlabel(f"{parts[0][1].lengths.unit} of a reply: median, and p10 to p90")

        spoken = "; ".join(_spoken_spread(report, i, part.lengths.by_verdict) for i, part in parts)
        height = 1.1 + 0.3 * max(3, len(parts))
        charts.append(
            Chart(f"lengths-{marks.file_name(name)}", name, "", spoken, draw, run_keys(report), height=height)
        )
    return charts


def _spoken_spread(report: Report, i: int, spreads: object) -> str:
    assert isinstance(spreads, dict)
    pieces = [f"{verdict} median {s.median:.0f}" for verdict, s in spreads.items() if isinstance(s, Spread)]
    return f"{report.runs[i].label}: {', '.join(pieces)}"


# ---------------------------------------------------------------- difficulty


Take = Callable[[Point], Estimated | None]

CURVES: tuple[tuple[str, str, Take, float], ...] = (
    ("length", "{unit} of a reply", lambda point: point.length, 1.0),
    ("hwe", "HWE tokens of a reply", lambda point: point.hwe, 1.0),
    ("accuracy", "accuracy, %", lambda point: point.accuracy, 100.0),
)


def adaptivity(report: Report) -> list[Chart]:
    """Up to three charts a task: length, HWE tokens and accuracy along the ladder of difficulty."""
    charts = []
    for name, parts in parts_of(report):
        ladders = [(i, part.adaptivity, part) for i, part in parts if part.adaptivity is not None]
        if not ladders:
            continue
        for key, label, take, scale in CURVES:
            curves = [(i, _ladder(ladder), ladder) for i, ladder, _ in ladders]
            if not any(take(point) is not None for _, points, _ in curves for point in points):
                continue
            charts.append(_along_difficulty(report, name, key, label, take, scale, curves))
    return charts


def _along_difficulty(
    report: Report,
    task: str,
    key: str,
    label: str,
    take: Take,
    scale: float,
    curves: list[tuple[int, tuple[Point, ...], Adaptivity]],
) -> Chart:
    rungs = _merged([[point.name for point in points] for _, points, _ in curves])
    place = {rung: i for i, rung in enumerate(rungs)}

    def draw(axes: Axes) -> None:
        for lane, (i, points, _) in enumerate(curves):
            shift = (lane - (len(curves) - 1) / 2) * min(0.08, 0.4 / len(curves))
            x = [place[point.name] + shift for point in points]
            marks.curve(axes, x, [take(point) for point in points], theme.RUNS[i], scale=scale)
        marks.names_below(axes, rungs)
        axes.set_xlabel("difficulty: easy to hard")
        axes.set_ylabel(label.format(unit=curves[0][2].unit))
        marks.from_zero(axes)

    spoken = "; ".join(
        f"{report.runs[i].label}: "
        + ", ".join(f"{p.name} {scale * value.value:.4g}" for p in points if (value := take(p)) is not None)
        for i, points, _ in curves
    )
    return Chart(
        f"adaptivity-{marks.file_name(task)}-{key}", f"{task}: {key}", "", spoken, draw, run_keys(report), group=task
    )


def _ladder(found: Adaptivity) -> tuple[Point, ...]:
    """The rungs, or the tiers where rungs are not common to all tasks or too many to be read."""
    return found.rungs if 1 < len(found.rungs) <= 24 else found.tiers


def _merged(ladders: Sequence[Sequence[str]]) -> list[str]:
    """The rungs of several runs in one order, each run's own order kept where they agree."""
    longest = max(ladders, key=len)
    return list(dict.fromkeys([*longest, *(rung for ladder in ladders for rung in ladder)]))


# ---------------------------------------------------------------- budgets


def budgets(report: Report) -> list[Chart]:
    """A chart a task: accuracy had replies been stopped after so many tokens."""
    charts = []
    for name, parts in parts_of(report):
        curves = [(i, part.budgets) for i, part in parts if part.budgets is not None]
        if not curves:
            continue

        def draw(axes: Axes, curves: list[tuple[int, Budgets]] = curves) -> None:
            for i, found in curves:
                x = [point.budget for point in found.points]
                if any(point.reached for point in found.points):
                    marks.curve(axes, x, [p.reached for p in found.points], theme.RUNS[i], scale=100, bars=False)
                    finished = [p.finished and Estimated(p.finished.value, None, None, 0, 0) for p in found.points]
                    marks.curve(axes, x, finished, theme.RUNS[i], scale=100, dashed=True, bars=False)
                else:
                    marks.curve(axes, x, [p.finished for p in found.points], theme.RUNS[i], scale=100, bars=False)
            marks.log_tokens(axes)
            marks.from_zero(axes)
            axes.set_xlabel(f"budget, {curves[0][1].unit}")
            axes.set_ylabel("accuracy, %")

        areas = []
        for i, found in curves:
            area = found.area_reached or found.area_finished
            if area is not None:
                areas.append(f"{report.runs[i].label}: area {100 * area.value:.1f} %")
        caption = "; ".join(areas) if len(areas) < 2 else ""
        chart = Chart(f"budget-{marks.file_name(name)}", name, caption, "; ".join(areas), draw, run_keys(report))
        charts.append(chart)
    return charts
