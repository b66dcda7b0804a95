"""Stage report: W/report/report.html, report.md and report.json, of whatever stages have finished.

The page loads nothing and runs no script; names from data go through the template's escaping. The same work folder
gives the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from ares_eval import __version__
from ares_eval.analysis.tables import Table
from ares_eval.report import cells, drawing
from ares_eval.report import page as report_page
from ares_eval.report.drawing import DrawingUnavailable
from ares_eval.types import Json
from ares_train.adacs import findings, report_charts, report_tables, store
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.findings import Sampled, Series
from ares_train.adacs.layout import Layout

FOLDER = Path(__file__).resolve().parent


def run(config: AdacsConfig, work: Path, note: Callable[[str], None]) -> None:
    """Write the three files. Raises AdacsError."""
    layout = Layout(work)
    page, text, values = (layout.report / f"report.{suffix}" for suffix in ("html", "md", "json"))
    shown = config.settings()
    settings = store.fingerprint("report", shown, __version__)
    inputs = _inputs(layout)
    if not inputs:
        raise AdacsError(f"{work} holds no finished stage to report on")
    if store.artifact_done(values, settings, inputs) and page.is_file() and text.is_file():
        note("report: done before")
        return
    try:
        drawing.check()
    except DrawingUnavailable as error:
        raise AdacsError(str(error)) from error
    read = findings.read(layout)
    series = [] if read is None else findings.series(config, layout, *read)
    pools = [] if read is None else findings.sampled(read[1])
    tables = _tables(layout, series, pools)
    remarks = _remarks(layout)
    store.write_text(page, _page(config.report.title, layout, series, tables, remarks, shown))
    store.write_text(text, report_tables.markdown(config.report.title, remarks, tables))
    store.write_artifact(values, _json(config.report.title, series, pools, tables, remarks), settings, inputs)
    note(f"report: {page}")


def _inputs(layout: Layout) -> list[str]:
    """Digests of all finished files that the report draws on."""
    single = (
        layout.ingest_report, layout.contamination_report, layout.rates, layout.rate_drops, layout.rate_report,
        layout.lengths, layout.selected, layout.vanilla, layout.dropped, layout.selection, layout.sft_report,
    )  # fmt: skip
    paths = [path for path in single if path.is_file() and store.artifact_manifest(path).is_file()]
    return [f"{path.name} {store.digest(path)}" for path in [*paths, *store.opened(layout.rated).parts()]]


def _tables(layout: Layout, series: list[Series], pools: list[Sampled]) -> list[Table]:
    made = [report_tables.overview(series)]
    lengths = report_tables.read_json(layout.lengths)
    selection = report_tables.read_json(layout.selection)
    written = report_tables.read_json(layout.sft_report)
    contamination = report_tables.read_json(layout.contamination_report)
    made += [] if lengths is None else [report_tables.sources(lengths)]
    made += [] if selection is None else [report_tables.tiers(selection)]
    made += [report_tables.by_tier(series), report_tables.verdicts(pools), report_tables.left_out(layout)]
    made += [] if written is None else [report_tables.files(written)]
    made += [] if contamination is None else [report_tables.contamination(contamination)]
    return made


def _remarks(layout: Layout) -> list[str]:
    """What a reader must know: what is not there yet, and what was odd."""
    stages = (
        ("ingest", layout.ingest_report), ("rate", layout.rates), ("lengths", layout.lengths),
        ("select", layout.selection), ("write", layout.sft_report),
    )  # fmt: skip
    missing = [name for name, path in stages if not store.artifact_manifest(path).is_file()]
    lines = [f"unfinished: {', '.join(missing)} not done yet"] if missing else []
    lengths = report_tables.read_json(layout.lengths)
    if lengths is not None:
        what = "thinking alone" if lengths["measure"] == "think_tokens" else "whole responses"
        lines.append(f"lengths: {what} in tokens of {lengths['tokenizer']}; L(0), L(1) of the {lengths['pool']}")
        lines += lengths["warnings"]
    selection = report_tables.read_json(layout.selection)
    if selection is not None:
        lines += selection["shortfalls"]
        if selection["few_valid"]:
            lines.append(f"{selection['few_valid']:,} chosen questions have fewer valid draws than were asked for")
    contamination = report_tables.read_json(layout.contamination_report)
    if contamination is not None:
        for name, cause in contamination["not_checked"].items():
            lines.append(f"not held against {name}: {cause}")
        if not contamination["checked"]:
            lines.append("the questions were held against no benchmark")
    return lines


def _page(
    title: str, layout: Layout, series: list[Series], tables: list[Table], remarks: list[str], shown: Mapping[str, Json]
) -> str:
    from markupsafe import Markup

    selection = report_tables.read_json(layout.selection)
    page: str = report_page.template(FOLDER, "report.html.j2").render(
        title=title,
        style=Markup(report_page.style()),
        charts=report_charts.against_difficulty(series),
        keys=report_charts.keys(series),
        questions=None if selection is None else report_charts.tiers(selection),
        tables=tables,
        of_table=cells.of_table,
        remarks=remarks,
        settings=[(name, _pairs(value)) for name, value in shown.items()],
        inline=lambda chart: Markup(drawing.inline(chart)),
        version=__version__,
    )
    return page


def _pairs(value: Json, name: str = "") -> list[tuple[str, str]]:
    """Settings as names with dots and values."""
    if isinstance(value, Mapping) and value:
        return [pair for key, inner in value.items() for pair in _pairs(inner, f"{name}.{key}" if name else key)]
    if isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        return [pair for place, inner in enumerate(value) for pair in _pairs(inner, f"{name}[{place}]")]
    return [(name, "" if value is None else str(value))]


def _json(
    title: str, series: list[Series], pools: list[Sampled], tables: list[Table], remarks: list[str]
) -> dict[str, Json]:
    by_name = {table.name: table for table in tables}
    return {
        "title": title,
        "remarks": remarks,
        "series": [asdict(one) for one in series],
        "pools": [asdict(one) for one in pools],
        **{
            name: [dict(zip(by_name[name].columns, row, strict=True)) for row in by_name[name].rows]
            for name in ("sources", "tiers", "left_out", "files", "contamination")
            if name in by_name
        },
    }
