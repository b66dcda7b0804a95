"""A report's tables and charts as files of their own: CSV, PNG, SVG.

With several runs the tables of each lie in a folder of its own; charts show all runs.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ares_eval.analysis import tables
from ares_eval.report import cells, drawing, page
from ares_eval.report.cells import Grid
from ares_eval.report.gather import Report


def write_charts(report: Report, folder: Path, suffix: str) -> list[Path]:
    """Every chart of the page as ``NAME.suffix`` (png or svg); raises DrawingUnavailable, OSError."""
    drawing.check()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for section in page.sections(report):
        for chart in section.charts:
            path = folder / f"{chart.name}.{suffix}"
            drawing.write(
                chart, path, chart.title if chart.title == section.title else f"{section.name}: {chart.title}"
            )
            written.append(path)
    return written


def write_tables(report: Report, folder: Path) -> list[Path]:
    """The summary, the causes of failure, and every table of the analysis with the draws behind them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [_write(cells.summary(report), folder / "summary.csv")]
    for number, run in enumerate(report.runs, 1):
        place = folder if len(report.runs) == 1 else folder / f"run-{number}"
        place.mkdir(parents=True, exist_ok=True)
        written.append(_write(cells.failures(run), place / "failures.csv"))
        if run.analysis is not None and run.seen is not None:
            written += tables.write_csv(run.analysis, run.seen, place)
    for number, comparison in enumerate(report.comparisons, 2):
        written.append(_write(cells.compared(comparison), folder / f"compared-1-{number}.csv"))
    return written


def _write(grid: Grid, path: Path) -> Path:
    """A table as it is shown; what is in small print has a column of its own."""
    split = [i for i in range(len(grid.head)) if any(row[i].more for row in grid.rows)]
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow([name for i, head in enumerate(grid.head) for name in _names(head, i in split)])
        for row in grid.rows:
            out.writerow([text for i, cell in enumerate(row) for text in _texts(cell.text, cell.more, i in split)])
    return path


def _names(head: str, split: bool) -> list[str]:
    return [head, f"{head}, interval"] if split else [head]


def _texts(text: str, more: str, split: bool) -> list[str]:
    return [text, more] if split else [text]
