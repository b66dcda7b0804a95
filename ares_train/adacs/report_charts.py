"""The report's charts: length and density against difficulty, the paper's curve beside ours, questions by tier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ares_eval.analysis.bootstrap import Estimated
from ares_eval.report import marks, theme
from ares_eval.report.drawing import Chart, Key
from ares_eval.report.theme import Colour
from ares_eval.types import Json
from ares_train.adacs import findings
from ares_train.adacs.findings import Series, Tier

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER = "the paper's data (figure 5)"


def keys(series: Sequence[Series]) -> tuple[Key, ...]:
    """The legend: the pool in grey, what was chosen in colours."""
    return tuple(Key(one.name, _colour(one)) for one in series)


def against_difficulty(series: Sequence[Series]) -> list[Chart]:
    """Mean length, its course beside the paper's, and densities of trigger words and HWE tokens where known."""
    charts = [
        _curves("length", "Mean length", "tokens of a response", series, lambda tier: tier.length),
        *_beside_the_paper(series),
        _curves("triggers", "Trigger words", "trigger words in 1000 tokens", series, lambda tier: tier.triggers),
        _curves("hwe", "High window entropy", "HWE tokens in 1000 tokens", series, lambda tier: tier.hwe),
    ]
    return [chart for chart in charts if chart is not None]


def _curves(
    name: str, title: str, label: str, series: Sequence[Series], take: Callable[[Tier], Estimated | None]
) -> Chart | None:
    if not any(take(tier) is not None for one in series for tier in one.tiers):
        return None

    def draw(axes: Axes) -> None:
        for lane, one in enumerate(series):
            shift = 0.006 * (lane - (len(series) - 1) / 2)
            x = [1 - tier.tier / 8 + shift for tier in one.tiers]
            marks.curve(axes, x, [take(tier) for tier in one.tiers], _colour(one))
        _difficulty(axes)
        axes.set_ylabel(label)
        marks.from_zero(axes)

    spoken = "; ".join(
        f"{one.name}: "
        + ", ".join(f"{tier.tier}/8 {value.value:.4g}" for tier in one.tiers if (value := take(tier)) is not None)
        for one in series
    )
    return Chart(name, title, "", spoken, draw, keys(series))


def _beside_the_paper(series: Sequence[Series]) -> list[Chart]:
    """Mean lengths over that of the easiest tier, where a set has one."""
    shown = []
    for one in series:
        easiest = one.tiers[-1].length
        if easiest is not None and easiest.value > 0:
            shown.append((one, [_over(tier.length, easiest.value) for tier in one.tiers]))
    if not shown:
        return []
    printed = findings.published()

    def draw(axes: Axes) -> None:
        for one, values in shown:
            x = [1 - tier.tier / 8 for tier in one.tiers]
            marks.curve(axes, x, values, _colour(one))
        easiest = printed[0][1]
        curve = [Estimated(length / easiest, None, None, 0, 0) for _, length in printed]
        marks.curve(axes, [x for x, _ in printed], curve, theme.INK, dashed=True)
        _difficulty(axes)
        axes.set_ylabel("mean length over that at p = 1")
        marks.from_zero(axes)

    hardest = "; ".join(f"{one.name} {values[0].value:.2f}" for one, values in shown if values[0] is not None)
    spoken = f"at p = 0: {hardest or 'none'}; {PAPER} {printed[-1][1] / printed[0][1]:.2f}"
    caption = "Dashed: what the paper printed for its own data, thinking alone, partly read off its figure."
    legend = (*keys(series), Key(PAPER, theme.INK, dashed=True))
    return [Chart("relative", "Beside the paper", caption, spoken, draw, legend)]


def tiers(content: Mapping[str, Json]) -> Chart:
    """Questions by tier: rated, with a candidate, chosen."""
    rows = content["tiers"]

    def draw(axes: Axes) -> None:
        for word, colour, width in TIER_BARS:
            axes.bar(range(len(rows)), [row[word] for row in rows], width=width, color=colour.light, linewidth=0)
        marks.names_below(axes, [f"{row['tier']}/8" for row in rows])
        axes.set_xlabel("tier: hard to easy")
        axes.set_ylabel("questions")

    spoken = ", ".join(f"{row['tier']}/8: {row['chosen']} of {row['questions']}" for row in rows)
    legend = tuple(Key(name, colour) for name, (_, colour, _) in zip(TIER_NAMES, TIER_BARS, strict=True))
    return Chart("tiers", "Questions by tier", "", spoken, draw, legend)


TIER_NAMES = ("rated", "with a candidate", "chosen")
TIER_BARS = (("questions", theme.GRID, 0.8), ("possible", theme.LOST, 0.62), ("chosen", theme.RUNS[0], 0.44))


def _over(value: Estimated | None, unit: float) -> Estimated | None:
    if value is None:
        return None
    low, high = (None if end is None else end / unit for end in (value.low, value.high))
    return replace(value, value=value.value / unit, low=low, high=high)


def _difficulty(axes: Axes) -> None:
    axes.set_xlabel("difficulty, 1 - p")
    axes.set_xlim(-0.04, 1.04)


def _colour(one: Series) -> Colour:
    return {"adacs": theme.RUNS[0], "vanilla": theme.RUNS[1]}.get(one.name, theme.LOST)
