"""An Analysis as tables for people and for CSV: the same rows in both, numbers with their intervals.

``tables`` gives the tables of one analysis, ``text`` draws one as plain text, ``write_csv`` writes all of them and the
per-draw columns into a folder, a file each. An interval becomes two columns (``low``, ``high``) in CSV.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.observe import Observed
from ares_eval.analysis.summary import Analysis, TaskAnalysis

if TYPE_CHECKING:
    import numpy as np

Cell = str | int | float | Estimated | None


@dataclass(frozen=True, slots=True)
class Table:
    """``name`` is a file's name, ``title`` what people read; ``percent``: columns whose numbers are shares."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    percent: frozenset[str] = frozenset()


def tables(analysis: Analysis) -> list[Table]:
    """Every table that has a row."""
    parts = (*analysis.tasks, analysis.overall) if len(analysis.tasks) > 1 else analysis.tasks
    made = [_overview(parts), _lengths(parts)]
    made += [_ladder(parts, "tiers", "By tier of difficulty"), _ladder(parts, "rungs", "By rung of difficulty")]
    made += [_adaptivity(parts), _targets(parts), _interaction(parts), _thinking(parts), _budgets(parts)]
    if analysis.window_study is not None:
        best = analysis.window_study.best
        points = ("window", "alignment", "percentile", "threshold", "precision", "recall", "f1", "predicted")
        share = frozenset(("precision", "recall", "f1"))
        rows = tuple(tuple(getattr(point, name) for name in points) for point in best)
        made.append(Table("window_study_best", "Finding critical tokens: best F1 of each window", points, rows, share))
        every = tuple(tuple(getattr(point, name) for name in points) for point in analysis.window_study.points)
        made.append(Table("window_study", "Finding critical tokens", points, every, share))
        names = ("word", "count", "in_windows", "mean_entropy", "lift", "trigger")
        words = tuple(
            (w.word, w.count, w.in_windows, w.mean_entropy, w.lift, "yes" if w.trigger else "")
            for w in analysis.window_study.words
        )
        made.append(Table("words", "Words in HWE windows", names, words))
    return [table for table in made if table.rows]


PRINTED = 60
PRINTED_WORDS = 15
"""Rows of a table that are printed; CSV has all."""

ONLY_CSV = ("window_study", "budgets")
"""Tables too long to be read."""


def text(table: Table) -> str:
    """A table as aligned plain text, columns without any content left out."""
    most = PRINTED_WORDS if table.name == "words" else PRINTED
    rows = [[_shown(cell, name in table.percent) for name, cell in zip(table.columns, row, strict=True)]
            for row in table.rows[:most]]  # fmt: skip
    kept = [i for i in range(len(table.columns)) if any(row[i] for row in rows)]
    heads = [table.columns[i].replace("_", " ") + (" %" if table.columns[i] in table.percent else "") for i in kept]
    cells = [heads, *([row[i] for i in kept] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(kept))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
    more = len(table.rows) - len(rows)
    return "\n".join([table.title, "-" * len(lines[0]), *lines, *([f"... and {more} more"] if more else [])])


def write_csv(analysis: Analysis, seen: Observed, folder: Path) -> list[Path]:
    """Every table, and the draws, as CSV files in ``folder`` (made where it does not exist); their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in [*tables(analysis), draws_table(seen)]:
        written.append(write_table(table, folder / f"{table.name}.csv"))
    return written


def write_table(table: Table, path: Path) -> Path:
    """One table as a CSV file."""
    spans = {name for i, name in enumerate(table.columns) if any(isinstance(row[i], Estimated) for row in table.rows)}
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow([part for name in table.columns for part in _parts(name, name in spans)])
        for row in table.rows:
            cells = zip(table.columns, row, strict=True)
            out.writerow([value for name, cell in cells for value in _values(cell, name in spans)])
    return path


def draws_table(seen: Observed) -> Table:
    """One row a draw: verdict, lengths, difficulty, HWE."""
    import numpy as np

    draws, tokens = seen.draws, seen.tokens
    n = len(draws)
    value, tier = np.full(n, np.nan), np.full(n, -1)
    for task, part in seen.difficulty.items():
        rows = draws.of_task(task)
        value[rows], tier[rows] = part.value, part.tier
    columns: dict[str, Sequence[Cell]] = {
        "task": [r.task for r in draws.records],
        "sample": [r.sample for r in draws.records],
        "draw": [r.draw for r in draws.records],
        "verdict": ["unverifiable" if r.verdict is None else r.verdict.value for r in draws.records],
        "level": [r.level for r in draws.records],
        "tier": [("easy", "medium", "hard", "")[t] for t in tier.tolist()],
        "difficulty": _numbers(value),
        "truncated": ["yes" if r.truncated else "" for r in draws.records],
        "completion_tokens": _numbers(draws.completion),
        "reasoning_tokens": _numbers(draws.reasoning),
        "characters": _numbers(draws.characters),
    }
    if tokens is not None:
        names = ("tokens", "hwe", "windows", "confirmed", "first", "density", "mean", "quantile", "tau", "triggers")
        columns |= {f"hwe_{name}" if name != "hwe" else name: _numbers(getattr(tokens, name)) for name in names}
    return Table("draws", "Draws", tuple(columns), tuple(zip(*columns.values(), strict=True)))


# ---------------------------------------------------------------- the tables


def _overview(parts: Sequence[TaskAnalysis]) -> Table:
    columns = ("task", "draws", "questions", "accuracy", "length", "hwe", "windows", "confirmed", "density", "first")
    rows = []
    for part in parts:
        hwe, spread = part.hwe, part.lengths.completion or part.lengths.characters
        more = (None,) * 5 if hwe is None else (hwe.count, hwe.windows, hwe.confirmed, hwe.density, hwe.first)
        rows.append((part.name, part.draws, part.questions, part.accuracy, spread and spread.mean, *more))
    return Table("overview", "Accuracy, length and HWE", columns, tuple(rows), frozenset(("accuracy", "density")))


def _lengths(parts: Sequence[TaskAnalysis]) -> Table:
    columns = ("task", "of", "unit", "draws", "mean", "median", "p10", "p90", "largest", "total")
    rows: list[tuple[Cell, ...]] = []
    for part in parts:
        found = part.lengths
        spreads = {"completion": found.completion, "reasoning": found.reasoning, "answer": found.answer}
        spreads |= {"characters": found.characters if found.unit == "characters" else None}
        spreads |= {**found.by_verdict, "truncated": found.truncated}
        for name, s in spreads.items():
            if s is not None:
                numbers = (s.mean.n, s.mean, s.median, s.p10, s.p90, s.largest, s.total)
                rows.append((part.name, name, found.unit, *numbers))
    return Table("lengths", "Length", columns, tuple(rows))


def _ladder(parts: Sequence[TaskAnalysis], field: str, title: str) -> Table:
    columns = ("task", field[:-1], "difficulty", "draws", "questions", "accuracy", "length", "median", "hwe", "density",
               "confirmed")  # fmt: skip
    rows = tuple(
        (part.name, p.name, p.difficulty, p.draws, p.questions, p.accuracy, p.length, p.median_length, p.hwe,
         p.hwe_density, p.confirmed_windows)
        for part in parts
        if part.adaptivity is not None
        for p in getattr(part.adaptivity, field)
    )  # fmt: skip
    return Table(field, title, columns, rows, frozenset(("accuracy", "density")))


def _adaptivity(parts: Sequence[TaskAnalysis]) -> Table:
    names = ("length_slope", "length_correlation", "length_ratio", "hwe_slope", "hwe_correlation")
    rows = tuple(
        (part.name, part.difficulty.kind, *(getattr(part.adaptivity, name) for name in names),
         part.hwe.regression.slope if part.hwe is not None and part.hwe.regression is not None else None)
        for part in parts
        if part.adaptivity is not None and part.difficulty is not None
    )  # fmt: skip
    return Table(
        "adaptivity", "Does thinking follow difficulty?", ("task", "difficulty", *names, "length_per_hwe"), rows
    )


def _targets(parts: Sequence[TaskAnalysis]) -> Table:
    columns = ("task", "pass_rate", "draws", "target", "median", "relative")
    rows = tuple(
        (part.name, point.pass_rate, point.draws, point.target, point.median, point.relative)
        for part in parts
        if part.adaptivity is not None and part.adaptivity.target is not None
        for point in part.adaptivity.target.points
    )
    return Table("target", "AdaCS's target length L(p)", columns, rows, frozenset(("relative",)))


def _interaction(parts: Sequence[TaskAnalysis]) -> Table:
    names = ("tier", "threshold", "accuracy_below", "accuracy_above", "hwe_right", "hwe_wrong", "length_right",
             "length_wrong")  # fmt: skip
    rows = tuple(
        (part.name, *(getattr(tier, name) for name in names))
        for part in parts
        if part.adaptivity is not None
        for tier in part.adaptivity.interaction
    )
    share = frozenset(("accuracy_below", "accuracy_above"))
    return Table("interaction", "HWE and correctness by tier", ("task", *names), rows, share)


def _thinking(parts: Sequence[TaskAnalysis]) -> Table:
    rows = [(part.name, *measure) for part in parts for measure in _measures(part) if measure[1] is not None]
    return Table("thinking", "Overthinking and underthinking", ("task", "measure", "value"), tuple(rows))


def _measures(part: TaskAnalysis) -> Iterator[tuple[str, Estimated | None]]:
    t = part.thinking
    if t.after_first_right is not None:
        yield "tokens after the first right answer", t.after_first_right.tokens
        yield "the same, as a share of the reply", t.after_first_right.share
        yield "the same share, computed answers included", t.after_first_right.share_with_computed
    yield "easy replies: excess over the easy median", t.easy_excess
    yield "easy replies longer than twice the median", t.easy_long
    yield "hard replies wrong and short", t.hard_wrong_short
    if t.changes is not None:
        yield "right to wrong, per reply", t.changes.right_to_wrong
        yield "wrong to right, per reply", t.changes.wrong_to_right
        yield "right answers given up", t.changes.lost
    yield f"reflection markers per 1000 {t.unit}", t.reflection
    yield "truncated", t.truncated
    yield "ends in a loop", t.loops
    if part.budgets is not None:
        yield "area under accuracy against budget", part.budgets.area_reached or part.budgets.area_finished


def _budgets(parts: Sequence[TaskAnalysis]) -> Table:
    columns = ("task", "budget", "spent", "ended", "finished", "reached")
    rows = tuple(
        (part.name, p.budget, p.spent, p.ended, p.finished, p.reached)
        for part in parts
        if part.budgets is not None
        for p in part.budgets.points
    )
    return Table("budgets", "Accuracy at token budgets", columns, rows, frozenset(("ended", "finished", "reached")))


# ---------------------------------------------------------------- cells


def _shown(cell: Cell, percent: bool) -> str:
    if isinstance(cell, Estimated):
        shown = _number(cell.value, percent)
        if cell.low is None or cell.high is None:
            return shown
        return f"{shown} [{_number(cell.low, percent)}, {_number(cell.high, percent)}]"
    if isinstance(cell, float):
        return _number(cell, percent)
    return "" if cell is None else str(cell)


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.1f}"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == 0 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def _parts(name: str, span: bool) -> tuple[str, ...]:
    return (name, f"{name}_low", f"{name}_high") if span else (name,)


def _values(cell: Cell, span: bool) -> Iterator[Cell]:
    if isinstance(cell, Estimated):
        yield from (cell.value, cell.low, cell.high)
    else:
        yield cell
        if span:
            yield from (None, None)


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]
