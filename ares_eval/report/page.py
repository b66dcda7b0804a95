"""The report as one HTML page: sections of charts and tables, styled inline, without a script or anything to load.

Everything that comes from models, servers or datasets goes through the template's escaping.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ares_eval import __version__, manifest
from ares_eval.analysis import summary as analysis_summary
from ares_eval.analysis import tables as analysis_tables
from ares_eval.report import cells, charts, charts_hwe, drawing, theme
from ares_eval.report.cells import Grid
from ares_eval.report.drawing import Chart, Key
from ares_eval.report.gather import Report, Reported
from ares_eval.types import Json

FOLDER = Path(__file__).resolve().parent

PAGE_ROWS = 80
"""Rows of a detailed table in the page; CSV has all."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. ``name``: its title in short; ``lead``: what is seen; ``keys``: the legend of its charts."""

    id: str
    name: str
    title: str
    lead: str
    charts: tuple[Chart, ...]
    keys: tuple[Key, ...] = ()

    @property
    def groups(self) -> list[tuple[str, list[Chart]]]:
        """The charts by their group, in order."""
        return [(name, list(members)) for name, members in itertools.groupby(self.charts, lambda chart: chart.group)]


def sections(report: Report) -> list[Section]:
    """Every section that has a chart, in the order of the page."""
    runs = charts.run_keys(report)
    accuracy = charts.accuracy(report)
    lines = (
        Key("stopped, last stated answer counts", theme.INK),
        Key("only replies that ended", theme.INK, dashed=True),
    )
    made = [
        Section("accuracy", "Accuracy", "Accuracy by task", "", tuple(accuracy), accuracy[0].keys if accuracy else ()),
        Section(
            "adaptivity",
            "Difficulty",
            "Does thinking follow difficulty?",
            "Mean length, tokens in high-entropy windows (HWE) and accuracy along the ladder of difficulty, from easy "
            "to hard, with 95 % intervals over questions; a hollow dot has too few "
            "questions for one. A model that adapts spends more where questions are harder.",
            tuple(charts.adaptivity(report)),
            runs,
        ),
        Section(
            "budgets",
            "Budgets",
            "Accuracy at token budgets",
            "What the same replies would have scored had each been stopped after so many tokens.",
            tuple(charts.budgets(report)),
            (*runs, *lines) if len(runs) > 1 else lines,
        ),
        Section("hwe", "HWE", "High window entropy", _hwe_lead(report), tuple(charts_hwe.density(report)), runs),
        Section(
            "interaction",
            "Right and wrong",
            "HWE of right and wrong replies, by tier",
            "",
            tuple(charts_hwe.interaction(report)),
            (Key("right replies", theme.RIGHT), Key("wrong replies", theme.WRONG)),
        ),
    ]
    study = charts_hwe.window_study(report)
    keys = max((chart.keys for chart in study), key=len, default=())
    made.append(Section("window-study", "Windows", "Which window finds critical tokens?", "", tuple(study), keys))
    words = charts_hwe.words(report)
    made.append(Section("words", "Words", "Words in HWE windows", "", tuple(words), words[0].keys if words else ()))
    made.append(
        Section(
            "lengths",
            "Lengths",
            "Length of replies by verdict",
            "The dot is the median, the bar reaches from the 10th to the 90th percentile.",
            tuple(charts.lengths(report)),
            runs,
        )
    )
    outcomes = charts.outcomes(report)
    made.append(
        Section(
            "outcomes",
            "Outcomes",
            "What became of the draws",
            "",
            tuple(outcomes),
            outcomes[0].keys if outcomes else (),
        )
    )
    return [section for section in made if section.charts]


def render(report: Report) -> str:
    """The whole page. Raises drawing.DrawingUnavailable without matplotlib."""
    from markupsafe import Markup

    drawing.check()
    page: str = template(FOLDER, "report.html.j2").render(
        title=" · ".join(run.label for run in report.runs),
        style=Markup(style()),
        report=report,
        summary=cells.summary(report),
        comparisons=[(comparison, cells.compared(comparison)) for comparison in report.comparisons],
        sections=sections(report),
        inline=lambda chart: Markup(drawing.inline(chart)),
        failures=[(run, cells.failures(run)) for run in report.runs],
        details=[(run, _details(run)) for run in report.runs],
        remarks=[(run, _remarks(run)) for run in report.runs],
        made=[(run, how_run(run)) for run in report.runs],
        several=len(report.runs) > 1,
        created=manifest.now(),
        version=__version__,
    )
    return page


def template(folder: Path, name: str) -> Any:
    """A page's template in ``folder``, escaping everything; the macros beside this file are found from anywhere."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def style() -> str:
    """The style sheet of every page, with the theme's colours in it."""
    text = (FOLDER / "report.css").read_text(encoding="utf-8")
    text = text.replace("/*light*/", theme.variables(dark=False)).replace("/*dark*/", theme.variables(dark=True))
    return text.replace("/*font*/", theme.FONT)


def _hwe_lead(report: Report) -> str:
    for run in report.runs:
        entropy = None if run.analysis is None else run.analysis.entropy
        if run.analysis is not None and entropy is not None:
            options = run.analysis.options.tokens
            return (
                f"A token counts as HWE where the mean entropy of the {options.window} tokens from it on reaches "
                f"tau = {entropy.tau:.3f} nats ({options.tau}, percentile {options.percentile:g}; entropies are the "
                f"{entropy.estimate} estimate from the top {entropy.top} alternatives)."
            )
    return ""


def _details(run: Reported) -> list[tuple[str, Grid, int]]:
    """The analysis' tables: title, table, rows left out."""
    if run.analysis is None:
        return []
    found = []
    for table in analysis_tables.tables(run.analysis):
        if table.name not in (*analysis_tables.ONLY_CSV, "words"):
            found.append((table.title, cells.of_table(table, PAGE_ROWS), max(len(table.rows) - PAGE_ROWS, 0)))
    return found


def _remarks(run: Reported) -> list[str]:
    lines = [] if run.finished else ["unfinished: the numbers are those of what is recorded so far"]
    if run.analysis is None:
        return [*lines, f"no analysis: {run.no_analysis}"]
    return lines + analysis_summary.remarks(run.analysis)


def how_run(run: Reported) -> list[tuple[str, list[tuple[str, str]]]]:
    """The manifest for people: groups of names and values."""
    found = run.run.manifest
    environment: Mapping[str, Json] = found.get("environment") or {}
    general = {
        "model": found.get("model"),
        "revision": found.get("revision"),
        "status": found.get("status"),
        "created": found.get("created"),
        "finished": found.get("finished"),
        "command": " ".join(map(str, environment.get("command", ()))),
        "folder": run.run.folder.name,
        "digest": found.get("digest"),
    }
    tasks = {
        name: f"{task.get('source', '')} · definition {str(task.get('fingerprint'))[:12]}"
        f" · data {str(task.get('dataset_digest'))[:19]}"
        for name, task in found.get("tasks", {}).items()
    }
    packages = environment.get("packages") or {}
    software = {key: value for key, value in environment.items() if key not in ("packages", "command")}
    groups: list[tuple[str, Mapping[str, Json]]] = [
        ("Run", general),
        ("Tasks", tasks),
        ("Not available", found.get("unavailable") or {}),
        ("Settings", found.get("settings") or {}),
        ("Server", found.get("server") or {}),
        ("Changed by the server", found.get("changes") or {}),
        ("Time", found.get("timing") or {}),
        ("Software", {**software, **packages}),
    ]
    return [(title, pairs) for title, values in groups if (pairs := _pairs(values))]


def _pairs(values: Mapping[str, Json]) -> list[tuple[str, str]]:
    return [(str(key).replace("_", " "), _plain(value)) for key, value in values.items() if _plain(value)]


def _plain(value: Json) -> str:
    if value is None or value == [] or value == {} or value is False:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text}" for key, each in value.items() if (text := _plain(each)))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(filter(None, map(_plain, value)))
    return "yes" if value is True else f"{value:g}" if isinstance(value, float) else str(value)
