"""The tables of a report's page as texts: a number, and apart from it the interval that is shown smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.tables import Table
from ares_eval.compare import Comparison
from ares_eval.report.charts import analysis_of
from ares_eval.report.gather import Report, Reported
from ares_eval.types import Json


@dataclass(frozen=True, slots=True)
class Cell:
    """``text``, and ``more`` in small print after it. ``number``: set to the right."""

    text: str
    more: str = ""
    number: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: ``head`` names the columns, ``strong`` are the rows that sum up others."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    strong: frozenset[int] = frozenset()


def summary(report: Report) -> Grid:
    """Tasks and suites of every run: score with interval, published numbers, what was lost, tokens, HWE."""
    models = list(dict.fromkeys(beside.model for run in report.runs for beside in run.beside if beside.lines))
    rows: list[dict[str, Cell]] = []
    strong = set()
    tasks = list(dict.fromkeys(name for run in report.runs for name in run.results["tasks"]))
    suites = list(dict.fromkeys(name for run in report.runs for name in run.results.get("suites", {})))
    for kind, names in (("tasks", tasks), ("suites", suites)):
        for name in names:
            for run in report.runs:
                entry = run.results.get(kind, {}).get(name)
                if entry is not None:
                    if kind == "suites":
                        strong.add(len(rows))
                    rows.append(_summary_row(run, name, entry, models if kind == "tasks" else []))
    columns = ["task", *(["run"] if len(report.runs) > 1 else []), "n", "score %", "if all were known %"]
    columns += [column for model in models for column in (f"{model} %", f"minus {model}")]
    columns += ["unverifiable", "not measured", "truncated", "tokens, mean", "median", "HWE tokens", "length slope"]
    kept = [column for column in columns if any(column in row and row[column].text for row in rows)]
    empty = Cell("", number=True)
    return Grid(tuple(kept), tuple(tuple(row.get(c, empty) for c in kept) for row in rows), frozenset(strong))


def _summary_row(run: Reported, name: str, entry: Mapping[str, Json], models: list[str]) -> dict[str, Cell]:
    metrics = entry["metrics"]
    primary = metrics.get("primary", "macro")
    row = {
        "task": Cell(name, "" if primary == "accuracy" else primary),
        "run": Cell(run.label),
        "n": Cell(f"{entry['n']:,}", number=True),
        "score %": _share(metrics.get(primary), metrics.get(f"{primary}_ci95")),
        "if all were known %": _bounds(metrics, primary),
        "unverifiable": _count(entry["unverifiable"]),
        "not measured": _count(sum(entry["not_measured"].values())),
        "truncated": _count(entry["truncated"]),
    }
    if (mean := metrics.get("completion_tokens_mean")) is not None:
        mark = "about " if metrics.get("tokens_estimated") else ""
        row["tokens, mean"] = Cell(f"{mark}{mean:,.0f}", number=True)
    if (median := metrics.get("completion_tokens_median")) is not None:
        row["median"] = Cell(f"{median:,.0f}", number=True)
    for beside in run.beside:
        line = next((line for line in beside.lines if line.task == name), None)
        if line is not None and beside.model in models:
            row[f"{beside.model} %"] = Cell(f"{line.printed:.1f}", number=True)
            row[f"minus {beside.model}"] = Cell(f"{line.difference:+.1f}", _span(line.interval, "{:+.1f}"), number=True)
    part = analysis_of(run, name)
    if part is not None and part.hwe is not None:
        row["HWE tokens"] = estimated(part.hwe.count)
    if part is not None and part.adaptivity is not None:
        row["length slope"] = estimated(part.adaptivity.length_slope)
    return row


def compared(comparison: Comparison) -> Grid:
    """One run against the first: accuracy, tokens, flips."""
    head = ("task", "pairs", "A %", "B %", "B - A, points", "p (Holm)", "lost", "gained", "tokens, B / A")
    rows = []
    for task in comparison.tasks:
        found = task.difference
        if found is None or task.accuracy_a is None or task.accuracy_b is None:
            continue
        low, high = found.interval()
        tokens = task.tokens
        ratio = None if tokens is None else tokens.value
        rows.append(
            (
                Cell(task.task),
                Cell(f"{task.measured:,}", number=True),
                Cell(f"{100 * task.accuracy_a:.1f}", number=True),
                Cell(f"{100 * task.accuracy_b:.1f}", number=True),
                Cell(f"{100 * found.mean:+.1f}", _span((100 * low, 100 * high), "{:+.1f}"), number=True),
                Cell(
                    "" if task.p_holm is None else "< 0.001" if task.p_holm < 0.001 else f"{task.p_holm:.3f}",
                    number=True,
                ),
                _count(len(task.lost)),
                _count(len(task.gained)),
                Cell("", number=True)
                if tokens is None or ratio is None
                else Cell(f"{ratio:.3f}", _span(tokens.interval(), "{:.3f}"), number=True),
            )
        )
    return Grid(head, tuple(rows))


def failures(run: Reported) -> Grid:
    """What went wrong in one run, by task and cause."""
    rows = tuple(
        (
            Cell(c.task),
            Cell(c.outcome),
            Cell(c.cause.replace("_", " ")),
            Cell(f"{c.count:,}", number=True),
            Cell(c.example),
        )
        for c in run.counts
    )
    named = any(c.example for c in run.counts)
    head = ("task", "outcome", "cause", "draws", "for example")
    return Grid(head if named else head[:-1], rows if named else tuple(row[:-1] for row in rows))


def of_table(table: Table, most: int | None = None) -> Grid:
    """A table of the analysis; columns without any content are left out."""
    rows = [
        [_cell(value, name in table.percent) for name, value in zip(table.columns, row, strict=True)]
        for row in table.rows[:most]
    ]
    kept = [i for i in range(len(table.columns)) if any(row[i].text for row in rows)]
    names = [table.columns[i].replace("_", " ") + (", %" if table.columns[i] in table.percent else "") for i in kept]
    return Grid(tuple(names), tuple(tuple(row[i] for i in kept) for row in rows))


def estimated(found: Estimated | None, percent: bool = False) -> Cell:
    """A number with its interval."""
    if found is None:
        return Cell("", number=True)
    known = found.low is not None and found.high is not None
    more = f"{_number(found.low, percent)} to {_number(found.high, percent)}" if known else ""
    return Cell(_number(found.value, percent), more, number=True)


def _cell(value: object, percent: bool) -> Cell:
    if isinstance(value, Estimated):
        return estimated(value, percent)
    if isinstance(value, bool):
        return Cell("yes" if value else "")
    if isinstance(value, int | float):
        return Cell(_number(value, percent), number=True)
    return Cell("" if value is None else str(value))


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return ""
    if percent:
        return f"{100 * value:.1f}"
    size = abs(value)
    if isinstance(value, int) or size >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def _share(value: float | None, interval: Sequence[float] | None) -> Cell:
    if value is None:
        return Cell("none", number=True)
    shown = None if interval is None else (100 * interval[0], 100 * interval[1])
    return Cell(f"{100 * value:.1f}", _span(shown, "{:.1f}"), number=True)


def _span(interval: Sequence[float] | None, form: str) -> str:
    return "" if interval is None else f"{form.format(interval[0])} to {form.format(interval[1])}"


def _bounds(metrics: Mapping[str, Json], key: str) -> Cell:
    worst, best = metrics.get(f"{key}_worst"), metrics.get(f"{key}_best")
    if worst is None or best is None or worst == best:
        return Cell("", number=True)
    return Cell(f"{100 * worst:.1f} to {100 * best:.1f}", number=True)


def _count(count: int) -> Cell:
    return Cell(f"{count:,}" if count else "", number=True)
