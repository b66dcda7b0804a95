"""Colours of reports, in a light and a dark form, and matplotlib's settings.

Charts are drawn once, in the light colours. Inside a page each of them becomes a CSS variable, so one picture follows
the reader's theme; files on their own keep the light ones. Runs' colours can be told apart with any colour vision
(after Okabe and Ito 2008, darkened or lightened to a contrast of at least 3:1 on their ground).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", "DejaVu Sans", sans-serif'


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour by its CSS variable; ``light`` is unique among all, since pictures are recoloured by it."""

    name: str
    light: str
    dark: str


INK = Colour("ink", "#1b2330", "#e7eaef")
MUTED = Colour("muted", "#586474", "#a5afbd")
GRID = Colour("grid", "#dde2e9", "#333c49")
GROUND = Colour("ground", "#fefefe", "#14181f")
PANEL = Colour("panel", "#f5f7fa", "#1c222b")

RUNS = (
    Colour("run-1", "#1f6fb5", "#6cb2f2"),
    Colour("run-2", "#c4551d", "#f39a63"),
    Colour("run-3", "#23845a", "#5fca97"),
    Colour("run-4", "#8b4a9f", "#cf96e4"),
    Colour("run-5", "#8a6d00", "#e3bf4c"),
    Colour("run-6", "#b0306b", "#f48bb9"),
    Colour("run-7", "#4b6470", "#a9c3cf"),
    Colour("run-8", "#5b5bd6", "#a5a6ff"),
)

RIGHT = Colour("right", "#24855b", "#60ca98")
WRONG = Colour("wrong", "#c3541c", "#f29962")
OPEN = Colour("open", "#8b6e01", "#e2be4b")
LOST = Colour("lost", "#7d8896", "#8a95a4")

ALL = (INK, MUTED, GRID, GROUND, PANEL, *RUNS, RIGHT, WRONG, OPEN, LOST)

WIDTH, HEIGHT = 4.5, 2.9
"""Inches of one chart, so that it is read on a phone at nearly its own size."""

RC: dict[str, Any] = {
    "figure.facecolor": GROUND.light,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED.light,
    "axes.labelcolor": MUTED.light,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID.light,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED.light,
    "ytick.color": MUTED.light,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": INK.light,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "axes.unicode_minus": False,
}
"""Text stays text: it can be searched, copied and read aloud, and takes the page's own font."""


def variables(dark: bool) -> str:
    """The CSS declarations of one theme."""
    return "".join(f"--{colour.name}:{colour.dark if dark else colour.light};" for colour in ALL)


def as_variables(svg: str) -> str:
    """A picture in light colours, recoloured to follow the page."""
    for colour in ALL:
        svg = svg.replace(colour.light, f"var(--{colour.name})")
    return svg
