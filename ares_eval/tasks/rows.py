"""Rows of a dataset, one at a time: a mapping of columns to values, and where it comes from.

JSON lines and JSON files are read here, straight from the files. Picture cells are `Picture` objects in every
source, so what makes samples of rows knows no file format.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from ares_eval.types import Picture

MAX_LINE_BYTES = 256 << 20
"""A line of JSON longer than this is no row (VLMEvalKit's widest rows, base64 pictures, stay under 100 MB)."""


class RowError(ValueError):
    """A row that cannot be read. ``row`` counts the data rows of ``file`` from 1."""

    def __init__(self, file: str, row: int, cause: str) -> None:
        super().__init__(cause)
        self.file = file
        self.row = row


@dataclass(frozen=True, slots=True)
class Row:
    """``number`` counts the data rows of ``file`` from 1; ``index`` those of the split from 0; ``variant`` (from 1):
    which of the tables read side by side it is from."""

    values: Mapping[str, Any]
    file: str
    number: int
    index: int
    split: str
    variant: int | None = None


class Table(Protocol):
    """One split of a dataset, in one layout."""

    @property
    def size(self) -> int | None:
        """Number of rows; None where only reading would tell."""

    def files(self) -> Sequence[Path]:
        """The files that hold the rows, for the dataset's digest."""

    def rows(self) -> Iterator[Row]:
        """The rows, lazily, in the order of the source. Raises RowError."""


class JsonLines:
    """A file of JSON lines (blank lines are skipped) as a Table."""

    def __init__(self, path: Path, split: str) -> None:
        self.path = path
        self.split = split
        self._size: int | None = None

    @property
    def size(self) -> int:
        """Number of non-blank lines."""
        if self._size is None:
            with self.path.open("rb") as file:
                self._size = sum(1 for line in file if line.strip())
        return self._size

    def files(self) -> Sequence[Path]:
        """The one file."""
        return (self.path,)

    def rows(self) -> Iterator[Row]:
        """One row a line."""
        import msgspec

        decoder = msgspec.json.Decoder()
        index = 0
        with self.path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                if not line.strip():
                    continue
                try:
                    values = decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise RowError(str(self.path), index + 1, f"not JSON: {error}") from error
                if not isinstance(values, dict):
                    raise RowError(str(self.path), index + 1, "is not an object")
                yield Row(values, str(self.path), index + 1, index, self.split)
                index += 1


class JsonFile:
    """A JSON file as a Table: a list of objects, an object of objects (its keys become column ``key``), or lines.

    ``rows_in``: the member of the file's one object that holds the list (BIG-Bench's ``examples``).
    """

    def __init__(self, path: Path, split: str, key: str | None, rows_in: str | None = None) -> None:
        self.path = path
        self.split = split
        self.key = key
        self.rows_in = rows_in
        self._size: int | None = None

    @property
    def size(self) -> int:
        """Number of objects."""
        if self._size is None:
            self._size = len(self._load())
        return self._size

    def files(self) -> Sequence[Path]:
        """The one file."""
        return (self.path,)

    def rows(self) -> Iterator[Row]:
        """The objects in the order of the file."""
        for index, values in enumerate(self._load()):
            if not isinstance(values, dict):
                raise RowError(str(self.path), index + 1, "is not an object")
            yield Row(values, str(self.path), index + 1, index, self.split)

    def _load(self) -> list[Any]:
        import msgspec

        data = self.path.read_bytes()
        try:
            content = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            # Some files called .json hold JSON lines.
            first = data.split(b"\n", 1)[0].strip()
            if not (first.startswith(b"{") and first.endswith(b"}")):
                raise RowError(str(self.path), 1, f"not JSON: {error}") from error
            return [row.values for row in JsonLines(self.path, self.split).rows()]
        except RecursionError as error:
            raise RowError(str(self.path), 1, "JSON too deep") from error
        if self.rows_in is not None:
            content = content.get(self.rows_in) if isinstance(content, dict) else None
        if isinstance(content, dict):
            if self.key is None:
                return [content]
            return [{self.key: key, **row} if isinstance(row, dict) else row for key, row in content.items()]
        if not isinstance(content, list):
            raise RowError(str(self.path), 1, "is neither a list nor an object")
        return content


class Chain:
    """Tables read one after the other as one Table, each opened when it is reached; ``added``: values of its rows."""

    def __init__(self, openers: Sequence[Callable[[], Table]], added: Sequence[Mapping[str, Any]] = ()) -> None:
        self._openers = [functools.cache(opener) for opener in openers]
        self._added = list(added) or [{}] * len(self._openers)

    @property
    def size(self) -> int | None:
        """Rows of all tables; opens them all."""
        return self.size_until(None)

    def size_until(self, limit: int | None) -> int | None:
        """Rows of the first tables that hold ``limit`` of them, or of all; opens no further one."""
        total = 0
        for opener in self._openers:
            size = opener().size
            if size is None:
                return None
            total += size
            if limit is not None and total >= limit:
                break
        return total

    def files(self) -> Sequence[Path]:
        """The files of all tables."""
        return [path for opener in self._openers for path in opener().files()]

    def rows(self) -> Iterator[Row]:
        """All rows, counted through."""
        index = 0
        for opener, added in zip(self._openers, self._added, strict=True):
            for row in opener().rows():
                yield replace(row, values={**added, **row.values}, index=index)
                index += 1


def picture_file(root: Path, name: Any) -> Picture:
    """The picture at a path relative to ``root``, as a row names it. Raises ValueError for a path that leads out."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"no picture name: {name!r:.80}")
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or "\0" in name:
        raise ValueError(f"picture path {name!r:.200} leads out of the dataset")
    path = root / relative
    return Picture(str(path), path.read_bytes)


def digest_of(files: Sequence[Path], root: Path) -> str:
    """SHA-256 (hex) over the files' names below ``root`` and bytes, in the given order."""
    whole = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        whole.update(len(name.encode()).to_bytes(4, "big") + name.encode() + content)
    return whole.hexdigest()
