"""Marks that charts are made of: curves with intervals, dots with intervals, bars; labels that do not collide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ares_eval.analysis.bootstrap import Estimated
from ares_eval.report import theme
from ares_eval.report.theme import Colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELS = 9
"""Names below an axis; of more, every so-manieth is written."""


def curve(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Estimated | None],
    colour: Colour,
    *,
    scale: float = 1.0,
    dashed: bool = False,
    bars: bool = True,
) -> None:
    """A line through known values with their intervals, as bars (then a value without one is hollow), or as a band
    behind the line."""
    known = [(place, value) for place, value in zip(x, values, strict=True) if value is not None]
    if not known:
        return
    places = [place for place, _ in known]
    heights = [scale * value.value for _, value in known]
    axes.plot(
        places,
        heights,
        color=colour.light,
        linestyle="--" if dashed else "-",
        zorder=3,
    )
    spans = [(p, v.low, v.high) for p, v in known if v.low is not None and v.high is not None]
    if bars:
        for place, value in known:
            face = colour.light if value.low is not None else theme.GROUND.light
            axes.plot([place], [scale * value.value], "o", color=colour.light, markerfacecolor=face, zorder=4)
    lows, highs = [scale * low for _, low, _ in spans], [scale * high for _, _, high in spans]
    if bars:
        axes.vlines([p for p, _, _ in spans], lows, highs, color=colour.light, linewidth=1.2, alpha=0.7, zorder=2)
    else:
        axes.fill_between([p for p, _, _ in spans], lows, highs, color=colour.light, alpha=0.15, linewidth=0)


def dot(
    axes: Axes, value: Estimated | None, y: float, colour: Colour, *, scale: float = 1.0, hollow: bool = False
) -> None:
    """A dot in a row with its interval."""
    if value is None:
        return
    if value.low is not None and value.high is not None:
        axes.hlines([y], [scale * value.low], [scale * value.high], color=colour.light, linewidth=1.6, alpha=0.75)
    face = "none" if hollow else colour.light
    axes.plot([scale * value.value], [y], "o", color=colour.light, markerfacecolor=face, markersize=5.5, zorder=3)


def names_below(axes: Axes, names: Sequence[str]) -> None:
    """Names of the places 0, 1, 2, ... on the x axis, thinned out where they would run into each other."""
    longest = max(map(len, names), default=0)
    most = max(2, min(MOST_LABELS, 46 // max(longest, 1)))
    step = -(-len(names) // most)
    axes.set_xticks(range(0, len(names), step), [short(name) for name in names[::step]])
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.grid(False, axis="x")


def rows_left(axes: Axes, names: Sequence[str]) -> None:
    """Names of the rows 0, 1, 2, ... from top to bottom."""
    axes.set_yticks(range(len(names)), [short(name, 26) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")


def short(text: str, most: int = 16) -> str:
    """A label of bounded length; ``$`` would be read as mathematics."""
    line = " ".join(text.split())
    return (line if len(line) <= most else line[: most - 1] + "…").replace("$", r"\$")


def from_zero(axes: Axes) -> None:
    """Let the y axis begin at 0, with room above."""
    _, top = axes.get_ylim()
    axes.set_ylim(0, 1.05 * top if top > 0 else 1)


def log_tokens(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def count(value: float) -> str:
    """1536 -> 1.5k."""
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    if value >= 1000:
        return f"{value / 1000:.1f}k".replace(".0k", "k")
    return f"{value:g}"


def file_name(text: str) -> str:
    """A task's name as part of a chart's name."""
    return "".join(c if c.isalnum() else "_" for c in text)
