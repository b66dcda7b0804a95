"""Charts and what becomes of them: SVG inside a page, SVG and PNG files on their own.

A Chart draws onto matplotlib axes when it is asked to. The same chart gives the same bytes: no time, no random ids.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ares_eval.report import theme
from ares_eval.report.theme import Colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class DrawingUnavailable(Exception):
    """matplotlib is not installed; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend; ``dashed``: the line it stands for."""

    text: str
    colour: Colour
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture. ``name`` is a file's name; ``title`` and ``caption`` stand beside it in a page, the title in it on
    its own; ``description`` is read aloud in its place; charts of one ``group`` stand in one row. Size in inches."""

    name: str
    title: str
    caption: str
    description: str
    draw: Callable[[Axes], None]
    keys: tuple[Key, ...] = ()
    width: float = theme.WIDTH
    height: float = theme.HEIGHT
    group: str = ""


def check() -> None:
    """Raise DrawingUnavailable where charts cannot be drawn."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError:
        raise DrawingUnavailable("charts need matplotlib: pip install 'ares[report]'") from None


def inline(chart: Chart) -> str:
    """The chart as an ``<svg>`` element that follows the page's colours and font."""
    with _figure(chart) as figure:
        text = _svg(figure)
    text = text[text.index("<svg") :]
    text = theme.as_variables(text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    # Ids are unique within a page only with the chart's name in front.
    text = re.sub(r'id="([^"]+)"', rf'id="{chart.name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{chart.name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{chart.name}-\1"', text)
    label = escape(f"{chart.title}. {chart.description}", quote=True)
    return re.sub(
        r'<svg [^>]*?width="([\d.]+)pt"[^>]*viewBox="([^"]*)"[^>]*>|<svg [^>]*>',
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {chart.width * 72:g} {chart.height * 72:g}" '
        f'style="max-width:{chart.width * 96:.0f}px" xmlns:xlink="http://www.w3.org/1999/xlink">',
        text,
        count=1,
    )


def write(chart: Chart, path: Path, title: str | None = None) -> None:
    """The chart as a file of its own, with a title (else its own) and a legend; SVG or PNG by the suffix."""
    with _figure(chart, title or chart.title) as figure:
        if path.suffix == ".svg":
            path.write_text(_svg(figure), encoding="utf-8")
        else:
            figure.savefig(path, dpi=200, metadata={"Software": None})


@contextmanager
def _figure(chart: Chart, title: str = "") -> Iterator[Figure]:
    import matplotlib
    from matplotlib.figure import Figure as NewFigure

    with matplotlib.rc_context(_settings(chart)):
        figure = NewFigure(figsize=(chart.width, chart.height), layout="constrained")
        axes = figure.add_subplot()
        chart.draw(axes)
        if title:
            axes.set_title(title.replace("$", r"\$"), fontsize=10, loc="left", color=theme.INK.light)
            _legend(figure, axes, chart.keys)
        else:
            figure.patch.set_visible(False)
        yield figure


def _settings(chart: Chart) -> Any:
    """matplotlib types its settings' names one by one."""
    return {**theme.RC, "svg.hashsalt": chart.name}


def _legend(figure: Any, axes: Axes, keys: Sequence[Key]) -> None:
    from matplotlib.lines import Line2D

    if len(keys) < 2:
        return
    lines = [Line2D([], [], color=key.colour.light, linestyle="--" if key.dashed else "-") for key in keys]
    height = figure.get_figheight() + 0.2 * len(keys)
    figure.set_figheight(height)
    axes.figure.legend(lines, [key.text for key in keys], loc="outside lower left")


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
