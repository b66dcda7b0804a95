"""results.json as a table for people: plain text for pipes and CI, rich on a terminal, the same cells in both.

Per task: draws asked for, the primary metric with its 95 % interval, what the unmeasured and unverifiable draws could
make of it, counts by outcome, mean and median tokens, and the further metrics; suites (macro averages) below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from ares_eval.types import Json

if TYPE_CHECKING:
    from rich.console import Group


NAMED_GROUPS = 5
"""Groups named in a note; results.json has all of them."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A table before it is drawn: rows of tasks and of suites under ``headers``, and ``notes``, lines below it."""

    headers: tuple[str, ...]
    tasks: tuple[tuple[str, ...], ...]
    suites: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def cells(results: Mapping[str, Json]) -> Cells:
    """The texts of the table. Columns that would be empty in every row are left out."""
    tasks: Mapping[str, Json] = results["tasks"]
    suites: Mapping[str, Json] = results.get("suites", {})
    entries = [(task, task["metrics"]["primary"]) for task in tasks.values()]
    entries += [(suite, "macro") for suite in suites.values()]
    columns: dict[str, list[str]] = {
        "task": [*tasks, *suites],
        "n": [str(entry["n"]) for entry, _ in entries],
        "score % [95 %]": [_with_interval(entry["metrics"], name) for entry, name in entries],
        "bounds %": [_bounds(entry["metrics"], name) for entry, name in entries],
        "unverifiable": [_count(entry["unverifiable"]) for entry, _ in entries],
        "not measured": [_count(sum(entry["not_measured"].values())) for entry, _ in entries],
        "truncated": [_count(entry["truncated"]) for entry, _ in entries],
        "tokens (median)": [_tokens(entry["metrics"]) for entry, _ in entries],
    }
    kept = {name: texts for name, texts in columns.items() if any(texts)}
    rows = list(zip(*kept.values(), strict=True))
    notes = [note for name, task in tasks.items() for note in _notes(name, task)] + _scoring(tasks)
    return Cells(tuple(kept), tuple(rows[: len(tasks)]), tuple(rows[len(tasks) :]), tuple(notes))


def results_table(results: Mapping[str, Json], rich: bool = False) -> Group | str:
    """Something that rich prints, or the same as plain text without a final newline."""
    content = cells(results)
    return _rich_table(content) if rich else _plain_table(content)


def write_table(results: Mapping[str, Json], stream: TextIO) -> None:
    """Draw the table onto ``stream``: in colour where it is a terminal, as plain text elsewhere."""
    if stream.isatty():
        from rich.console import Console

        Console(file=stream).print(results_table(results, rich=True))
    else:
        stream.write(f"{results_table(results)}\n")


# ---------------------------------------------------------------- texts of single cells


def _notes(name: str, task: Mapping[str, Json]) -> list[str]:
    """What has no column: the further metrics (pass@k for the largest k only), and the causes, most frequent first."""
    metrics, notes = task["metrics"], []
    shares = [key for key in sorted(metrics) if f"{key}_stderr" in metrics and key != metrics["primary"]]
    largest = max((key for key in shares if key.startswith("pass@")), key=lambda key: int(key[5:]), default=None)
    kept = [key for key in shares if metrics[key] is not None and (key[:5] != "pass@" or key == largest)]
    further = [f"{key} {_with_interval(metrics, key)}" for key in kept]
    if further:
        notes.append(f"{name}: {', '.join(further)}")
    partial = metrics.get("worst_case_partial")
    if partial:
        names = ", ".join(partial[:NAMED_GROUPS]) + (", ..." if len(partial) > NAMED_GROUPS else "")
        notes.append(f"{name}: not every variant was measured in {len(partial)} groups: {names}")
    causes = sorted(task["not_measured"].items(), key=lambda item: (-item[1], item[0]))
    if causes:
        notes.append(f"{name}: not measured: {', '.join(f'{cause} {count}' for cause, count in causes)}")
    return notes


def _scoring(tasks: Mapping[str, Json]) -> list[str]:
    """By whose rules it was scored, where that is not a matter of course."""
    official = [name for name, task in tasks.items() if str(task.get("scoring", "")).startswith("official")]
    judged = [name for name, task in tasks.items() if task.get("judge_is_official") and task["unverifiable"]]
    notes = []
    if official:
        ours = [name for name in tasks if name not in official]
        rest = f"; by the usual rules: {', '.join(ours)}" if ours else ""
        notes.append(f"scored as the official scripts do: {', '.join(official)}{rest}")
    if judged:
        notes.append(
            f"officially a judge decides ({', '.join(judged)}): rules decided what they can, the rest is unverifiable "
            "(--judge-model asks a judge)"
        )
    return notes


def _with_interval(metrics: Mapping[str, Json], key: str) -> str:
    if key not in metrics:
        return ""
    value, interval, stderr = metrics[key], metrics.get(f"{key}_ci95"), metrics.get(f"{key}_stderr")
    if value is None:
        return "-"
    text = f"{100 * value:.1f}"
    if interval is not None:
        return f"{text} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return text if stderr is None else f"{text} ± {100 * stderr:.1f}"


def _bounds(metrics: Mapping[str, Json], key: str) -> str:
    """Empty where nothing was left open."""
    worst, best = metrics.get(f"{key}_worst"), metrics.get(f"{key}_best")
    if worst is None or best is None or worst == best:
        return ""
    return f"{100 * worst:.1f} to {100 * best:.1f}"


def _count(count: int) -> str:
    return str(count) if count else ""


def _tokens(metrics: Mapping[str, Json]) -> str:
    mean, median = metrics.get("completion_tokens_mean"), metrics.get("completion_tokens_median")
    if mean is None:
        return ""
    mark = "~" if metrics.get("tokens_estimated") else ""
    return f"{mark}{mean:,.0f}" if median is None else f"{mark}{mean:,.0f} ({median:,.0f})"


# ---------------------------------------------------------------- drawing


def _plain_table(content: Cells) -> str:
    rows: list[Sequence[str]] = [content.headers, *content.tasks, *content.suites]
    widths = [max(len(row[i]) for row in rows) for i in range(len(content.headers))]

    def line(row: Sequence[str]) -> str:
        numbers = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join([row[0].ljust(widths[0]), *numbers]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [line(content.headers), rule, *map(line, content.tasks)]
    if content.suites:
        lines += [rule, *map(line, content.suites)]
    return "\n".join([*lines, *([rule, *content.notes] if content.notes else [])])


def _rich_table(content: Cells) -> Group:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for i, header in enumerate(content.headers):
        table.add_column(header, justify="right" if i else "left", style="" if i else "cyan")
    for j, row in enumerate(content.tasks):
        table.add_row(*map(Text, row), end_section=j == len(content.tasks) - 1)
    for row in content.suites:
        table.add_row(*map(Text, row), style="bold")
    return Group(table, *(Text(note) for note in content.notes))
