"""Parquet files as a Table: rows in small batches, pictures (struct of bytes and path) by reference.

pyarrow is imported when the first row or size is asked for. Nothing passes through the `datasets` cache.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ares_eval.tasks.picture_store import PictureStore
from ares_eval.tasks.rows import Row, RowError

BATCH = 16
"""Rows decoded at a time: pictures may have megabytes."""

TEXT_BATCH = 256
"""Rows decoded at a time where no column holds pictures."""


class Parquet:
    """One split, in one or more parquet files."""

    def __init__(self, paths: Sequence[Path], split: str) -> None:
        self.paths = tuple(paths)
        self.split = split
        self._store = PictureStore(self._fetch)
        self._size: int | None = None

    @property
    def size(self) -> int:
        """Rows of all files, from their footers."""
        if self._size is None:
            self._size = sum(self._open(path).metadata.num_rows for path in self.paths)
        return self._size

    def files(self) -> Sequence[Path]:
        """The files in order."""
        return self.paths

    def rows(self) -> Iterator[Row]:
        """The rows in order; cells of picture columns are Pictures."""
        import pyarrow as pa

        index = 0
        for number, path in enumerate(self.paths):
            file = self._open(path)
            pictures = _picture_columns(file.schema_arrow)
            in_file = 0
            try:
                for batch in file.iter_batches(batch_size=BATCH if pictures else TEXT_BATCH):
                    for values in batch.to_pylist():
                        for column in pictures:
                            values[column] = self._cell(values[column], number, in_file, column)
                        yield Row(values, str(path), in_file + 1, index, self.split)
                        index += 1
                        in_file += 1
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise RowError(str(path), in_file + 1, str(error)) from error

    def _open(self, path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(path, memory_map=False, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise RowError(str(path), 0, f"not a parquet file: {error}") from error

    def _cell(self, cell: Any, number: int, row: int, column: str) -> Any:
        if isinstance(cell, list):
            return [self._picture(item, (number, row, column, position)) for position, item in enumerate(cell)]
        return self._picture(cell, (number, row, column, 0))

    def _picture(self, cell: Any, key: tuple[int, int, str, int]) -> Any:
        if cell is None or cell.get("bytes") is None:
            return None
        number, row, column, position = key
        self._store.keep(key, cell["bytes"])
        return self._store.picture(key, f"{self.paths[number].name} row {row + 1} {column}[{position}]")

    def _fetch(self, key: Hashable) -> Iterator[tuple[Hashable, bytes]]:
        assert isinstance(key, tuple)
        number, row, column, _ = key
        file = self._open(self.paths[number])
        start, group = 0, 0
        while start + file.metadata.row_group(group).num_rows <= row:
            start += file.metadata.row_group(group).num_rows
            group += 1
        for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=[column]):
            if start + batch.num_rows <= row:
                start += batch.num_rows
                continue
            for offset, cell in enumerate(batch.column(0).to_pylist()):
                for position, item in enumerate(cell if isinstance(cell, list) else [cell]):
                    if item is not None and item.get("bytes") is not None:
                        yield (number, start + offset, column, position), item["bytes"]
            return


def _picture_columns(schema: Any) -> list[str]:
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
