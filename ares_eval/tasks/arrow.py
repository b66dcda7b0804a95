"""Arrow rows as a Table: parquet files, and whatever else comes in record batches.

Rows are decoded in small batches; cells in the form of the `datasets` Image feature (struct of bytes and path)
become Pictures by reference. pyarrow is imported when the first row or size is asked for, and local files never pass
through the `datasets` cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ares_eval.tasks.picture_store import PictureStore
from ares_eval.tasks.rows import Row, RowError
from ares_eval.types import Picture

BATCH = 16
"""Rows decoded at a time: pictures may have megabytes."""

TEXT_BATCH = 256
"""Rows decoded at a time where no column holds pictures."""


class ArrowTable(ABC):
    """One split in one or more pieces (files), each giving record batches. Subclasses open and name the pieces."""

    def __init__(self, split: str) -> None:
        self.split = split
        self._store = PictureStore(self._fetch)

    @abstractmethod
    def pieces(self) -> Sequence[str]:
        """The names of the pieces, for people."""

    @abstractmethod
    def schema(self, piece: int) -> Any:
        """The Arrow schema of a piece."""

    @abstractmethod
    def batches(self, piece: int, size: int) -> Iterator[Any]:
        """The record batches (or tables) of a piece, at most ``size`` rows each."""

    @abstractmethod
    def cells_from(self, piece: int, row: int, column: str) -> Iterator[tuple[int, Any]]:
        """(row, cell) pairs of one column, starting at or shortly before ``row``, through it at least."""

    def rows(self) -> Iterator[Row]:
        """The rows in order; cells of picture columns are Pictures."""
        import pyarrow as pa

        index = 0
        for piece, name in enumerate(self.pieces()):
            pictures = picture_columns(self.schema(piece))
            number = 0
            try:
                for batch in self.batches(piece, BATCH if pictures else TEXT_BATCH):
                    for values in batch.to_pylist():
                        for column in pictures:
                            values[column] = self._cell(values[column], piece, number, column)
                        number += 1
                        yield Row(values, name, number, index, self.split)
                        index += 1
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise RowError(name, number + 1, str(error)) from error

    def _cell(self, cell: Any, piece: int, row: int, column: str) -> Any:
        if isinstance(cell, list):
            return [self._picture(item, (piece, row, column, position)) for position, item in enumerate(cell)]
        return self._picture(cell, (piece, row, column, 0))

    def _picture(self, cell: Any, key: tuple[int, int, str, int]) -> Picture | None:
        if cell is None:
            return None
        piece, row, column, position = key
        if cell.get("bytes") is None:
            return self.outside(cell.get("path"))
        self._store.keep(key, cell["bytes"])
        return self._store.picture(key, f"{self.pieces()[piece]} row {row + 1} {column}[{position}]")

    def outside(self, path: Any) -> Picture | None:  # noqa: ARG002
        """A picture that a cell only names by its path; none by default, as rows may name any file."""
        return None

    def _fetch(self, key: Hashable) -> Iterator[tuple[Hashable, bytes]]:
        assert isinstance(key, tuple)
        piece, row, column, _ = key
        for number, cell in self.cells_from(piece, row, column):
            for position, item in enumerate(cell if isinstance(cell, list) else [cell]):
                if item is not None and item.get("bytes") is not None:
                    yield (piece, number, column, position), item["bytes"]


class Parquet(ArrowTable):
    """One split, in one or more parquet files."""

    def __init__(self, paths: Sequence[Path], split: str) -> None:
        super().__init__(split)
        self.paths = tuple(paths)
        self._size: int | None = None

    @property
    def size(self) -> int:
        """Rows of all files, from their footers."""
        if self._size is None:
            self._size = sum(self._open(piece).metadata.num_rows for piece in range(len(self.paths)))
        return self._size

    def files(self) -> Sequence[Path]:
        """The files in order."""
        return self.paths

    def pieces(self) -> Sequence[str]:
        """The files."""
        return [str(path) for path in self.paths]

    def schema(self, piece: int) -> Any:
        """From the file's footer."""
        return self._open(piece).schema_arrow

    def batches(self, piece: int, size: int) -> Iterator[Any]:
        """Read as they are asked for."""
        yield from self._open(piece).iter_batches(batch_size=size)

    def cells_from(self, piece: int, row: int, column: str) -> Iterator[tuple[int, Any]]:
        """From the start of the batch, within its row group, that holds the row."""
        file = self._open(piece)
        start = group = 0
        while group < file.metadata.num_row_groups and start + file.metadata.row_group(group).num_rows <= row:
            start += file.metadata.row_group(group).num_rows
            group += 1
        for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=[column]):
            if start + batch.num_rows > row:
                yield from enumerate(batch.column(0).to_pylist(), start)
                return
            start += batch.num_rows

    def _open(self, piece: int) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.paths[piece]
        try:
            return pq.ParquetFile(path, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise RowError(str(path), 0, f"not a parquet file: {error}") from error


def picture_columns(schema: Any) -> list[str]:
    """Columns in the form of the `datasets` Image feature: struct<bytes, path>, or a list of it."""
    import pyarrow as pa

    def is_picture(kind: Any) -> bool:
        return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}

    return [
        field.name
        for field in schema
        if is_picture(field.type)
        or ((pa.types.is_list(field.type) or pa.types.is_large_list(field.type)) and is_picture(field.type.value_type))
    ]
