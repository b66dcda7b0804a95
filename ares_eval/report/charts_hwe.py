"""The charts of a report about high window entropy: by tier and correctness, the window study, the words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ares_eval.analysis.adaptivity import TierHwe
from ares_eval.analysis.window_study import WindowStudy, WordCount
from ares_eval.report import marks, theme
from ares_eval.report.charts import parts_of, run_keys
from ares_eval.report.drawing import Chart, Key
from ares_eval.report.gather import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS = 24
"""Bars of the chart of words."""


def density(report: Report) -> list[Chart]:
    """One chart: HWE tokens per hundred tokens, in all and by part of the reply, a row a task."""
    parts = [(name, found) for name, found in parts_of(report) if any(part.hwe for _, part in found)]
    if not parts:
        return []

    def draw(axes: Axes) -> None:
        for row, (_, found) in enumerate(parts):
            for lane, (i, part) in enumerate(found):
                if part.hwe is not None:
                    y = row + (lane - (len(found) - 1) / 2) * min(0.26, 0.8 / max(len(found), 1))
                    marks.dot(axes, part.hwe.density, y, theme.RUNS[i], scale=100)
        marks.rows_left(axes, [name for name, _ in parts])
        axes.set_xlim(left=0)
        axes.set_xlabel("HWE tokens, % of all tokens")

    spoken = "; ".join(
        f"{name} {report.runs[i].label} {100 * part.hwe.density.value:.2f} %"
        for name, found in parts
        for i, part in found
        if part.hwe is not None and part.hwe.density is not None
    )
    height = 0.85 + 0.3 * len(parts) * max(1.0, 0.7 * len(report.runs))
    return [Chart("hwe-density", "Density of HWE tokens", "", spoken, draw, run_keys(report), height=height)]


def interaction(report: Report) -> list[Chart]:
    """A chart a task and run: HWE tokens of right and wrong replies, tier by tier (paper figure 4b)."""
    charts = []
    for name, parts in parts_of(report):
        for i, part in parts:
            tiers = () if part.adaptivity is None else part.adaptivity.interaction
            if tiers:
                charts.append(_interaction(report, name, i, tiers))
    return charts


def _interaction(report: Report, name: str, i: int, tiers: tuple[TierHwe, ...]) -> Chart:
    def draw(axes: Axes) -> None:
        places = range(len(tiers))
        marks.curve(axes, [p - 0.05 for p in places], [tier.hwe_right for tier in tiers], theme.RIGHT)
        marks.curve(axes, [p + 0.05 for p in places], [tier.hwe_wrong for tier in tiers], theme.WRONG)
        marks.names_below(axes, [tier.tier for tier in tiers])
        axes.set_ylabel("HWE tokens of a reply")
        marks.from_zero(axes)

    spoken = "; ".join(f"{tier.tier}: right {_value(tier.hwe_right)}, wrong {_value(tier.hwe_wrong)}" for tier in tiers)
    title = name + (f": {report.runs[i].label}" if len(report.runs) > 1 else "")
    keys = (Key("right replies", theme.RIGHT), Key("wrong replies", theme.WRONG))
    return Chart(f"interaction-{i + 1}-{marks.file_name(name)}", title, "", spoken, draw, keys)


def _value(found: object) -> str:
    value = getattr(found, "value", None)
    return "none" if value is None else f"{value:.3g}"


def window_study(report: Report) -> list[Chart]:
    """A chart a run: F1 of finding critical tokens against the percentile, a line a window size (paper figure 2)."""
    charts = []
    for i, run in enumerate(report.runs):
        study = None if run.analysis is None else run.analysis.window_study
        if study is not None and study.points:
            charts.append(_study(report, i, study))
    return charts


def _study(report: Report, i: int, study: WindowStudy) -> Chart:
    windows = sorted({point.window for point in study.points})
    colours = dict(zip(windows, theme.RUNS, strict=False))

    def draw(axes: Axes) -> None:
        for window, colour in colours.items():
            line = [(p.percentile, p.f1) for p in study.points if p.window == window and p.alignment == "containing"]
            axes.plot([x for x, _ in line], [y for _, y in line], color=colour.light, marker="o", markersize=3)
        axes.set_xlabel("percentile of the threshold")
        axes.set_ylabel("F1")
        marks.from_zero(axes)

    best = [p for p in study.best if p.alignment == "containing"]
    spoken = "; ".join(f"window {p.window}: best F1 {p.f1:.3f} at percentile {p.percentile:g}" for p in best)
    keys = tuple(Key(f"w = {window}", colour) for window, colour in colours.items())
    caption = (
        f"Tokens of trigger words ({study.critical:,} of {study.tokens:,}), found by the highest mean entropy of the "
        "windows that hold them."
    )
    title = "Finding critical tokens" + (f": {report.runs[i].label}" if len(report.runs) > 1 else "")
    return Chart(f"window-study-{i + 1}", title, caption, spoken, draw, keys, height=3.1)


def words(report: Report) -> list[Chart]:
    """A chart a run: the words that stand most often in HWE windows, those of the trigger list marked."""
    charts = []
    for i, run in enumerate(report.runs):
        study = None if run.analysis is None else run.analysis.window_study
        if study is not None and study.words:
            charts.append(_words(report, i, study.words[:WORDS]))
    return charts


def _words(report: Report, i: int, found: tuple[WordCount, ...]) -> Chart:
    def draw(axes: Axes) -> None:
        for row, word in enumerate(found):
            colour = theme.WRONG if word.trigger else theme.LOST
            axes.barh([row], [word.in_windows], color=colour.light, height=0.7, linewidth=0)
        marks.rows_left(axes, [word.word for word in found])
        axes.set_xlabel("times in an HWE window")

    spoken = ", ".join(f"{word.word} {word.in_windows}" for word in found)
    keys = (Key("trigger words", theme.WRONG), Key("other words", theme.LOST))
    title = "Words in HWE windows" + (f": {report.runs[i].label}" if len(report.runs) > 1 else "")
    return Chart(f"words-{i + 1}", title, "", spoken, draw, keys, height=0.7 + 0.19 * len(found))
