"""VLMEvalKit's TSV files as a Table: rows by their columns, pictures (base64) by reference.

The cell of a picture is base64, a written list of such, or (VLMEvalKit's saving of space) the `index` of another row
that has the picture. Without a picture column, `image_path` names files below `DIR/images/<TSVName>/`.
"""

from __future__ import annotations

import base64
import binascii
import csv
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ares_eval.tasks.definition import Definition, TsvLayout, compile_expression
from ares_eval.tasks.errors import BadRow
from ares_eval.tasks.picture_store import PictureStore
from ares_eval.tasks.rows import Row, RowError, picture_file
from ares_eval.tasks.samples import context
from ares_eval.tasks.sources import Source, described
from ares_eval.tasks.templates import TemplateError, written_list
from ares_eval.types import Picture

MAX_FIELD = 256 << 20
"""Longest cell in characters; the csv module's default of 131,072 is less than one picture."""

REFERENCE_CHARS = 64
"""A picture cell this short is the `index` of another row (VLMEvalKit's own rule)."""


def tsv_source(definition: Definition, dataset_dir: Path) -> Source | None:
    """The task's rows from `DIR/<TSVName>.tsv` or `DIR/<name>/<TSVName>.tsv`; None where there is no such file."""
    layout = definition.tsv
    if layout is None:
        return None
    for folder in (dataset_dir, dataset_dir / definition.name):
        path = folder / f"{layout.name}.tsv"
        if path.is_file():
            split = definition.splits[0]
            table = Tsv(path, split, layout)
            return Source(
                definition.name,
                "tsv",
                f"VLMEvalKit TSV: {path} ({described(definition, [split])})",
                folder,
                (table,),
                _adapter(definition, layout, table),
            )
    return None


class Tsv:
    """One file. The first use reads it once through, to know where its rows begin."""

    def __init__(self, path: Path, split: str, layout: TsvLayout) -> None:
        self.path = path
        self.split = split
        self._pictures = set(layout.pictures.values())
        self._store = PictureStore(self._fetch)
        self._offsets: list[int] | None = None
        self._rows: dict[str, int] = {}
        self._header: list[str] = []

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(self._index())

    def files(self) -> Sequence[Path]:
        """The one file."""
        return (self.path,)

    def rows(self) -> Iterator[Row]:
        """The rows in order, cells as texts; picture cells as lists of Pictures."""
        self._index()
        for index, (_, cells) in enumerate(self._read(0, skip=1)):
            values: dict[str, Any] = self._named(index, cells)
            for column in self._pictures & values.keys():
                values[column] = self._cell(index, column, values[column])
            yield Row(values, str(self.path), index + 1, index, self.split)

    def _cell(self, index: int, column: str, cell: str) -> list[Picture]:
        if not cell:
            return []
        owner = index
        if len(cell) <= REFERENCE_CHARS and not cell.startswith("["):
            if cell not in self._rows:
                raise RowError(str(self.path), index + 1, f"{column} refers to row {cell!r}, which is not there")
            owner = self._rows[cell]
            return self._listed(owner, column, dict(self._fetched(owner, column)))
        return self._listed(owner, column, dict(_decoded(self.path, owner, column, cell)))

    def _listed(self, owner: int, column: str, pictures: dict[int, bytes]) -> list[Picture]:
        for position, data in pictures.items():
            self._store.keep((owner, column, position), data)
        return [
            self._store.picture((owner, column, position), f"{self.path.name} row {owner + 1} {column}[{position}]")
            for position in pictures
        ]

    def _fetch(self, key: Hashable) -> Iterator[tuple[Hashable, bytes]]:
        assert isinstance(key, tuple)
        row, column, _ = key
        for position, data in self._fetched(row, column):
            yield (row, column, position), data

    def _fetched(self, row: int, column: str) -> Iterator[tuple[int, bytes]]:
        _, cells = next(self._read(self._index()[row]))
        return _decoded(self.path, row, column, self._named(row, cells)[column])

    def _index(self) -> list[int]:
        if self._offsets is None:
            reading = self._read(0)
            _, self._header = next(reading, (0, []))
            if not self._header:
                raise RowError(str(self.path), 0, "has no header")
            at = self._header.index("index") if "index" in self._header else None
            self._offsets = []
            for offset, cells in reading:
                if at is not None and at < len(cells):
                    self._rows.setdefault(cells[at], len(self._offsets))
                self._offsets.append(offset)
        return self._offsets

    def _named(self, index: int, cells: list[str]) -> dict[str, str]:
        if len(cells) != len(self._header):
            raise RowError(str(self.path), index + 1, f"has {len(cells)} cells, the header {len(self._header)}")
        return dict(zip(self._header, cells, strict=True))

    def _read(self, start: int, skip: int = 0) -> Iterator[tuple[int, list[str]]]:
        """(byte offset, cells) of the records from ``start`` on; a record may span lines where it is quoted."""
        csv.field_size_limit(MAX_FIELD)
        with self.path.open("rb") as file:
            file.seek(start)
            position = start

            def lines() -> Iterator[str]:
                nonlocal position
                for line in file:
                    position += len(line)
                    yield line.decode("utf-8-sig" if position == len(line) else "utf-8")

            records = csv.reader(lines(), delimiter="\t", strict=True)
            begin, number = start, 0
            while True:
                try:
                    cells = next(records, None)
                except (csv.Error, UnicodeDecodeError) as error:
                    raise RowError(str(self.path), number, str(error)) from error
                if cells is None:
                    return
                if cells:
                    number += 1
                    if number > skip:
                        yield begin, cells
                begin = position


def _decoded(path: Path, row: int, column: str, cell: str) -> Iterator[tuple[int, bytes]]:
    try:
        texts = [cell]
        if cell.startswith("["):
            if len(cell) > MAX_FIELD:
                raise ValueError("too long")
            texts = [text.strip().strip("'\"") for text in cell.strip()[1:-1].split(",")]
        for position, text in enumerate(texts):
            yield position, base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RowError(str(path), row + 1, f"{column} is not base64: {error}") from error


def _adapter(definition: Definition, layout: TsvLayout, table: Tsv) -> Callable[[Row], Row]:
    columns = {
        name: compile_expression(definition, source, "tsv", "columns", name) for name, source in layout.columns.items()
    }
    root = table.path.parent / "images" / layout.name

    def adapt(row: Row) -> Row:
        values = dict(row.values)
        try:
            seen = context(row)
            for name, make in columns.items():
                values[name] = make(seen)
            for name, column in layout.pictures.items():
                values[name] = row.values[column] if column in row.values else _named_files(root, row)
        except (TemplateError, ValueError) as error:
            raise BadRow(definition.name, row.file, row.number, str(error)) from error
        return Row(values, row.file, row.number, row.index, row.split)

    return adapt


def _named_files(root: Path, row: Row) -> list[Picture]:
    named = row.values.get("image_path")
    if not named:
        raise ValueError("neither a picture column nor image_path")
    names = written_list(named) if named.startswith("[") else [named]
    return [picture_file(root, name) for name in names]
