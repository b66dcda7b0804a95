"""Where entropies computed after a run lie: ``traces/scored.bin`` and its index ``traces/scored.jsonl``.

Records are never changed, so the index says which draw a trace belongs to. A line is written after its trace; a torn
last line is left out, and a draw that stands twice counts as written last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from ares_eval import traces
from ares_eval.records import TRACES, Run, RunError, read_trace
from ares_eval.types import Record, TokenTrace, TraceRef

NAME = "scored"

DrawKey = tuple[str, str, int]
"""Task, sample, draw."""


class _Line(msgspec.Struct):
    task: str
    sample: str
    draw: int
    key: str
    trace: TraceRef


def key_of(record: Record) -> DrawKey:
    """Which draw a record is of."""
    return record.task, record.sample, record.draw


def read_index(folder: Path) -> dict[DrawKey, tuple[str, TraceRef]]:
    """Of each scored draw: its record's key and where its trace lies. Empty where nothing was scored."""
    path = folder / TRACES / f"{NAME}.jsonl"
    if not path.exists():
        return {}
    decoder = msgspec.json.Decoder(_Line)
    found: dict[DrawKey, tuple[str, TraceRef]] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                entry = decoder.decode(line)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise RunError(f"{path}, line {number}: not an entry ({error})") from None
            found[entry.task, entry.sample, entry.draw] = (entry.key, entry.trace)
    return found


def scored_trace(run: Run, index: dict[DrawKey, tuple[str, TraceRef]], record: Record) -> TokenTrace | None:
    """The trace that a scorer made of this very reply; None where there is none (or one of an earlier reply)."""
    entry = index.get(key_of(record))
    if entry is None or entry[0] != record.key:
        return None
    return read_trace(run.folder, entry[1])


class ScoredWriter:
    """Appends scored traces; ``close`` it, or use ``scored_writer``."""

    def __init__(self, data: IO[bytes], index: IO[bytes]) -> None:
        self._data, self._index = data, index
        self._encoder = msgspec.json.Encoder()

    def append(self, record: Record, trace: TokenTrace) -> None:
        """Keep the trace of a record: first its bytes, then the line that points to them."""
        packed = traces.pack(trace)
        offset = self._data.seek(0, 2)
        self._data.write(packed)
        self._data.flush()
        ref = TraceRef(f"{NAME}.bin", offset, len(packed))
        self._index.write(self._encoder.encode(_Line(record.task, record.sample, record.draw, record.key, ref)) + b"\n")
        self._index.flush()


@contextmanager
def scored_writer(folder: Path) -> Iterator[ScoredWriter]:
    """The scored traces of a run's folder, opened for appending; a torn last line is cut off first."""
    (folder / TRACES).mkdir(exist_ok=True)
    path = folder / TRACES / f"{NAME}.jsonl"
    if path.exists():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
    with (folder / TRACES / f"{NAME}.bin").open("ab") as data_file, path.open("ab") as index_file:
        yield ScoredWriter(data_file, index_file)
