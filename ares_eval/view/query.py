"""Filters, pages and counts over the indexes of runs. SQL is fixed text; whatever a reader typed is a parameter."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ares_eval.types import Json
from ares_eval.view.index import Files

FACETS = ("task", "verdict", "tier", "level", "reason")
"""Columns to filter by; each shows how many records its values have under the other filters."""

SORTS = ("row", "sample", "tokens", "hwe", "density", "mean")

FLIPS = {
    "lost": "r.verdict = 'correct' AND o.verdict IN ('incorrect', 'unverifiable')",
    "gained": "r.verdict IN ('incorrect', 'unverifiable') AND o.verdict = 'correct'",
    "any": "(r.verdict = 'correct') <> (o.verdict = 'correct')"
    " AND r.verdict <> 'not measured' AND o.verdict <> 'not measured'",
}
"""Draws whose verdict differs in the other run: right here and not there, the reverse, or both."""

LARGEST_PAGE = 500
MOST_VALUES = 60
"""Values of a facet that are listed, most frequent first."""

COLUMNS = ("task", "sample", "draw", "level", "tier", "verdict", "reason", "answer", "reference", "tokens", "truncated",
           "trace")  # fmt: skip


class BadQuery(ValueError):
    """A filter that does not exist; the message says which."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which records. ``values``: column -> wanted value (FACETS). ``search``: part of a sample's id, answer or
    reference. ``flip`` (see FLIPS) needs ``other``, the index of the run that is compared with."""

    values: Mapping[str, str]
    search: str = ""
    truncated: bool = False
    flip: str = ""
    other: Files | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(self.values.keys() - set(FACETS)):
            raise BadQuery(f"no filter {unknown[0]!r}; there are {', '.join(FACETS)}")
        if self.flip and self.flip not in FLIPS:
            raise BadQuery(f"no flips {self.flip!r}; there are {', '.join(FLIPS)}")
        if self.flip and self.other is None:
            raise BadQuery("flips need another run")


class Queries:
    """One DuckDB, in memory; each thread has a connection of its own to it."""

    def __init__(self) -> None:
        import duckdb

        self._database = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "1GB"})
        self._local = threading.local()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def page(
        self,
        files: Files,
        filters: Filters,
        *,
        sort: str = "row",
        descending: bool = False,
        first: int = 0,
        size: int = 50,
    ) -> Json:
        """``{"total": n, "rows": [{...}]}``: one page of the records, from number ``first`` on."""
        if sort not in SORTS:
            raise BadQuery(f"no order {sort!r}; there are {', '.join(SORTS)}")
        source, values = _source(files, filters)
        where, more = _where(filters)
        shown = [f"r.{name}" for name in COLUMNS]
        shown += (
            ["t.hwe", "t.density", "t.mean"] if files.tokens else ["NULL AS hwe", "NULL AS density", "NULL AS mean"]
        )
        if filters.other is not None:
            shown.append("o.verdict AS other")
        order = (
            "r.row" if sort == "row" else f"{_column(sort, files)} {'DESC' if descending else 'ASC'} NULLS LAST, r.row"
        )
        if sort == "row" and descending:
            order += " DESC"
        text = f"SELECT {', '.join(shown)} FROM {source} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
        bounds = [max(1, min(size, LARGEST_PAGE)), max(0, first)]
        return {
            "total": self._rows(f"SELECT count(*) AS n FROM {source} WHERE {where}", [*values, *more])[0]["n"],
            "rows": self._rows(text, [*values, *more, *bounds]),
        }

    def facets(self, files: Files, filters: Filters) -> Json:
        """For each facet its values with their counts, all other filters applied."""
        found: dict[str, Json] = {}
        for name in FACETS:
            others = {key: value for key, value in filters.values.items() if key != name}
            without = Filters(others, filters.search, filters.truncated, filters.flip, filters.other)
            source, values = _source(files, without)
            where, more = _where(without)
            found[name] = self._rows(
                f"SELECT r.{name} AS value, count(*) AS n FROM {source} WHERE {where} AND r.{name} IS NOT NULL "
                f"GROUP BY 1 ORDER BY n DESC, value LIMIT {MOST_VALUES}",
                [*values, *more],
            )
        return found

    def place(self, files: Files, task: str, sample: str, draw: int) -> Json | None:
        """What the index has of a record: place (offset, length), tau, the estimate that tau is of; else None."""
        source, values = _source(files, Filters({}))
        extra = "t.tau, t.estimate" if files.tokens else "NULL AS tau, NULL AS estimate"
        text = f"SELECT r.*, {extra} FROM {source} WHERE r.task = ? AND r.sample = ? AND r.draw = ?"
        rows = self._rows(text, [*values, task, sample, draw])
        return rows[0] if rows else None

    def prompt(self, files: Files, task: str, sample: str) -> tuple[int, int] | None:
        """Offset and length of a question's line in prompts.jsonl."""
        text = "SELECT p.offset, p.length FROM read_parquet(?) AS p WHERE p.task = ? AND p.sample = ?"
        rows = self._rows(text, [str(files.prompts), task, sample])
        return (rows[0]["offset"], rows[0]["length"]) if rows else None

    def draws(self, files: Files, task: str, sample: str) -> Json:
        """The draws of one question."""
        text = "SELECT draw, verdict, tokens FROM read_parquet(?) WHERE task = ? AND sample = ? ORDER BY draw LIMIT 200"
        return self._rows(text, [str(files.records), task, sample])

    def counts(self, files: Files) -> Json:
        """Records by task and verdict."""
        text = "SELECT task, verdict, count(*) AS n FROM read_parquet(?) GROUP BY ALL ORDER BY ALL"
        return self._rows(text, [str(files.records)])

    def _rows(self, text: str, values: Sequence[object]) -> list[dict[str, Any]]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._database.cursor()
        found = connection.execute(text, list(values))
        names = [column[0] for column in found.description]
        return [
            {name: None if value != value else value for name, value in zip(names, row, strict=True)}
            for row in found.fetchall()
        ]


def _source(files: Files, filters: Filters) -> tuple[str, list[object]]:
    text, values = "read_parquet(?) AS r", [str(files.records)]
    if files.tokens is not None:
        text += " LEFT JOIN read_parquet(?) AS t ON (r.task = t.task AND r.sample = t.sample AND r.draw = t.draw)"
        values.append(str(files.tokens))
    if filters.other is not None:
        kind = "JOIN" if filters.flip else "LEFT JOIN"
        text += f" {kind} read_parquet(?) AS o ON (r.task = o.task AND r.sample = o.sample AND r.draw = o.draw)"
        values.append(str(filters.other.records))
    return text, list(values)


def _where(filters: Filters) -> tuple[str, list[object]]:
    conditions, values = ["TRUE"], []
    for name, value in filters.values.items():
        conditions.append(f"r.{name} = ?")
        values.append(value)
    if filters.search:
        conditions.append("(contains(r.sample, ?) OR contains(r.answer, ?) OR contains(r.reference, ?))")
        values += [filters.search] * 3
    if filters.truncated:
        conditions.append("r.truncated")
    if filters.flip:
        conditions.append(FLIPS[filters.flip])
    return " AND ".join(conditions), list(values)


def _column(sort: str, files: Files) -> str:
    if sort in ("hwe", "density", "mean"):
        return f"t.{sort}" if files.tokens is not None else "r.row"
    return f"r.{sort}"
