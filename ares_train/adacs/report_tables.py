"""The report's tables, the same in HTML, markdown and JSON, and its remarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.tables import Cell, Table
from ares_eval.types import Json
from ares_train.adacs import schemas, select, sft_rows
from ares_train.adacs.findings import Sampled, Series, Tier
from ares_train.adacs.layout import Layout
from ares_train.adacs.tiers import TIERS

RATE_WHY: Mapping[str, str] = {
    "few_valid": "fewer verdicts of right or wrong than rate.min_valid",
    "unverifiable": "rules cannot tell whether its answers are right",
    "not_measured": "no draw was answered",
    "not_sampled": "no draw was asked",
}
"""Reasons by which rate gives a question no pass rate."""


def overview(series: Sequence[Series]) -> Table:
    """A row a series."""
    columns = ("responses", "n", "tokens", "slope, tokens", "Spearman", "off target")
    rows = [(one.name, one.responses, one.tokens, one.slope, one.spearman, one.away) for one in series]
    return Table("overview", "Length against difficulty", columns, tuple(rows), frozenset(("off target",)))


def by_tier(series: Sequence[Series]) -> Table:
    """A row a tier, from hard to easy, the series side by side."""
    takes: tuple[tuple[str, Callable[[Tier], Cell]], ...] = (
        ("n", lambda tier: tier.responses),
        ("mean tokens", lambda tier: tier.length),
        ("median", lambda tier: tier.median),
        ("trigger words per 1000", lambda tier: tier.triggers),
        ("HWE tokens per 1000", lambda tier: tier.hwe),
    )
    columns = ("tier", *(f"{name}: {one.name}" for name, _ in takes for one in series))
    rows = [
        (f"{number}/8", *(take(one.tiers[number]) for _, take in takes for one in series))
        for number in range(TIERS)
        if any(one.tiers[number].responses for one in series)
    ]
    return Table("by_tier", "By tier", columns, tuple(rows))


def sources(content: Mapping[str, Json]) -> Table:
    """L(0) and L(1) of every source, from lengths.json."""
    columns = (
        "source", "L(0)", "from", "questions at p = 0", "cut off at p = 0", "L(1)", "from ", "questions at p = 1",
        "cut off at p = 1", "rule", "flags",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for name, ends in content["sources"].items():
        hard, easy = ends["hard"], ends["easy"]
        rows.append(
            (
                name, ends["l0"], ends["l0_from"], hard["questions"], hard["truncated"], ends["l1"], ends["l1_from"],
                easy["questions"], easy["truncated"], "length" if ends["rule"] else "none", ", ".join(ends["flags"]),
            )
        )  # fmt: skip
    return Table("sources", "L(0) and L(1) by source, in tokens", columns, tuple(rows))


def tiers(content: Mapping[str, Json]) -> Table:
    """Questions of every tier: there, possible, chosen; from selection.json."""
    rows = [(f"{row['tier']}/8", row["questions"], row["possible"], row["chosen"]) for row in content["tiers"]]
    return Table("tiers", "Questions by tier", ("tier", "rated", "with a candidate", "chosen"), tuple(rows))


def verdicts(pools: Sequence[Sampled]) -> Table:
    """What became of the responses of each pool, from the rated ones."""
    columns = ("pool", "responses", "right", "wrong", "unverifiable", "not measured", "cut off", "tokens")
    rows = [
        (one.pool, one.responses, one.right, one.wrong, one.unverifiable, one.not_measured, one.truncated, one.tokens)
        for one in pools
    ]
    return Table("verdicts", "Responses", columns, tuple(rows))


def files(content: Mapping[str, Json]) -> Table:
    """Rows and tokens of verl's files, from sft/report.json."""
    columns = ("file", "rows", "tokens of responses", "tokens of rows", "longest row")
    rows = [
        (name, one["rows"], one["response_tokens"], one["row_tokens"], one["longest_row"])
        for name, one in content["files"].items()
    ]
    return Table("files", "SFT files", columns, tuple(rows))


def left_out(layout: Layout) -> Table:
    """Questions and rows by the stage and reason that left them out."""
    rows: list[tuple[Cell, ...]] = []
    ingest = read_json(layout.ingest_report)
    if ingest is not None:
        lost: Counter[str] = Counter()
        for one in ingest["sources"].values():
            lost.update(one["left_out"])
        rows += [("ingest", reason, count, "") for reason, count in sorted(lost.items())]
    path = layout.dropped if layout.dropped.is_file() else layout.rate_drops
    if path.is_file():
        reasons = Counter(pq.read_table(path, schema=schemas.DROPPED)["reason"].to_pylist())
        for reason, count in sorted(reasons.items()):
            ours = reason in select.WHY
            rows.append(
                ("select" if ours else "rate", reason, count, (select.WHY if ours else RATE_WHY).get(reason, ""))
            )
    written = read_json(layout.sft_report)
    if written is not None:
        for name in sft_rows.SETS:
            rows += [
                (f"write, {name}", reason, count, sft_rows.REASONS[reason])
                for reason, count in written["left_out"][name].items()
            ]
    return Table("left_out", "Left out", ("stage", "reason", "questions", "meaning"), tuple(rows))


def contamination(content: Mapping[str, Json]) -> Table:
    """Benchmarks that the questions were held against."""
    rows = [
        (name, one["questions"], sum(one["matches"].values()), one["benchmark_questions_hit"])
        for name, one in content["checked"].items()
    ]
    columns = ("benchmark", "its questions", "matches", "its questions matched")
    return Table("contamination", "Decontamination", columns, tuple(rows))


def read_json(path: Path) -> dict[str, Json] | None:
    """A JSON file of the work folder; None where it is not there yet."""
    try:
        found: dict[str, Json] = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    return found


# ---------------------------------------------------------------- markdown


def markdown(title: str, remarks: Sequence[str], tables: Sequence[Table]) -> str:
    """All of it as markdown."""
    lines = [f"# {_plain(title)}", ""]
    lines += [f"- {_plain(remark)}" for remark in remarks]
    for table in tables:
        if not table.rows:
            continue
        kept = [i for i in range(len(table.columns)) if any(row[i] not in (None, "") for row in table.rows)]
        numbers = [not isinstance(table.rows[0][i], str) for i in kept]
        lines += ["", f"## {table.title}", "", _line(_head(table, i) for i in kept)]
        lines.append("|" + "|".join("---:" if number else "---" for number in numbers) + "|")
        lines += [_line(_text(row[i], table.columns[i] in table.percent) for i in kept) for row in table.rows]
    return "\n".join(lines) + "\n"


def _head(table: Table, column: int) -> str:
    name = table.columns[column]
    return f"{name.strip()}, %" if name in table.percent else name.strip()


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """No markup from names in data."""
    return text.replace("<", "&lt;")


def _text(value: Cell, percent: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, Estimated):
        known = value.low is not None and value.high is not None
        more = f" [{_text(value.low, percent)}, {_text(value.high, percent)}]" if known else ""
        return _text(value.value, percent) + more
    if isinstance(value, float):
        value = 100 * value if percent else value
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value
