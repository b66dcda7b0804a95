"""A series as one HTML page: tables and charts, styled inline, without a script or anything to load.

Everything that comes from models, servers or datasets goes through the template's escaping.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

from ares_eval import __version__, manifest
from ares_eval.analysis.tables import Table
from ares_eval.report import cells, drawing
from ares_eval.report import page as report_page
from ares_eval.report.cells import Grid
from ares_eval.series import table
from ares_eval.series.charts import charts
from ares_eval.series.gather import Series

FOLDER = Path(__file__).resolve().parent


def render(series: Series) -> str:
    """The whole page. Raises drawing.DrawingUnavailable without matplotlib."""
    from markupsafe import Markup

    drawing.check()
    pictures = itertools.groupby(charts(series), lambda chart: chart.group)
    page: str = report_page.template(FOLDER, "series.html.j2").render(
        series=series,
        style=Markup(report_page.style()),
        best=next((point for point in series.points if point.best), None),
        failed=[point for point in series.points if point.verdict == "fail"],
        groups=[(name, list(members)) for name, members in pictures],
        tables=[(one.title, _grid(one, series)) for one in table.by_task(series)],
        told=[(point, table.decision(point)) for point in series.points if point.findings or point.reason],
        inline=lambda chart: Markup(drawing.inline(chart)),
        created=manifest.now(),
        version=__version__,
    )
    return page


def _grid(one: Table, series: Series) -> Grid:
    """A task's table, the best step in bold."""
    best = frozenset(row for row, point in enumerate(series.points) if point.best)
    return dataclasses.replace(cells.of_table(one), strong=best)
