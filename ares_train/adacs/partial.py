"""Replies of a part that is still being asked: appended one by one, so that a kill loses only what was in flight.

JSON lines beside the part, indexed by place in the file: the texts of a part never lie in memory all at once. The first
line says what the replies were asked for: those of another model, other settings or other questions are thrown away. A
torn last line is cut off. Replies that failed are not taken up again, so that the next session asks for them anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import pyarrow as pa

from ares_train.adacs import schemas

ROWS = 128
"""Replies read at a time when the part is written."""


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """One reply, or why there is none. ``entropy``: float32, little-endian."""

    qid: str
    draw: int
    text: str | None = None
    reasoning: str = ""
    finish_reason: str | None = None
    completion_tokens: int | None = None
    cause: str | None = None
    seed: int | None = None
    key: str = ""
    entropy: bytes | None = None


class Header(msgspec.Struct, frozen=True):
    """The first line. ``made_for``: fingerprint of the settings and inputs that the replies belong to."""

    made_for: str


_decode = msgspec.json.Decoder(Sampled).decode


class Partial:
    """The replies so far to what ``made_for`` stands for. Use as a context manager."""

    def __init__(self, path: Path, made_for: str) -> None:
        self.path = path
        self._header = msgspec.json.encode(Header(made_for)) + b"\n"
        self.causes: dict[tuple[str, int], str] = {}
        """Draws of this session that were not measured, with the cause."""
        self._places: dict[tuple[str, int], int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._end = self._read()
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(self._end)
        if not self._end:
            self._append(self._header)

    def _read(self) -> int:
        """Index what an earlier session left; where the last whole line ends."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            if file.readline() != self._header:
                return 0
            end = len(self._header)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    held = _decode(line)
                except (msgspec.DecodeError, msgspec.ValidationError):
                    break
                if held.cause is None:
                    self._places[held.qid, held.draw] = end
                end += len(line)
        return end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, draw: tuple[str, int]) -> bool:
        return draw in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, reply: Sampled) -> None:
        """Keep a reply; it is in the operating system's hands when this returns."""
        draw = reply.qid, reply.draw
        self._places[draw] = self._end
        self._append(msgspec.json.encode(reply) + b"\n")
        if reply.cause is not None:
            self.causes[draw] = reply.cause

    def _append(self, line: bytes) -> None:
        self._file.seek(self._end)
        self._file.write(line)
        self._file.flush()
        self._end += len(line)

    def batches(self, draws: Sequence[tuple[str, int]], source: dict[str, str]) -> Iterator[pa.RecordBatch]:
        """The replies of ``draws`` in that order, as SAMPLES has them; ``source``: qid to its source."""
        for start in range(0, max(len(draws), 1), ROWS):
            held = [self._at(self._places[draw]) for draw in draws[start : start + ROWS]]
            rows = [
                {**msgspec.structs.asdict(one), "source": source[one.qid], "entropy": _floats(one.entropy)}
                for one in held
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=schemas.SAMPLES)

    def _at(self, place: int) -> Sampled:
        self._file.seek(place)
        return _decode(self._file.readline())

    def remove(self) -> None:
        """The part is written: the file goes."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def _floats(held: bytes | None) -> np.ndarray | None:
    return None if held is None else np.frombuffer(held, dtype="<f4")
