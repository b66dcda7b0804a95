"""A run's folder: written so that a kill at any moment loses at most what was in flight.

    run.json        the manifest: settings without secrets, versions, tasks, data, server
    samples.jsonl   one Record a line, appended whole by one write; the last line of a draw counts
    prompts.jsonl   one line a question: the messages as they were sent, pictures by digest
    traces/         packed token traces, appended before the record that points to them
    results.json    written once everything that was asked for has an outcome

A line torn by a crash is cut off when the folder is opened again. One process writes a folder at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import msgspec

from ares_eval import traces
from ares_eval.types import Json, Record, TokenTrace, TraceRef, WireMessage

SAMPLES, PROMPTS, MANIFEST, RESULTS, TRACES = "samples.jsonl", "prompts.jsonl", "run.json", "results.json", "traces"

T = TypeVar("T")

_LINE_LIMIT = 256 * 1024 * 1024


class RunError(Exception):
    """A run folder that cannot be read or written; the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was read: its folder, manifest, and results where it was finished."""

    folder: Path
    manifest: dict[str, Json]
    results: dict[str, Json] | None

    def records(self) -> Iterator[Record]:
        """The records that count, in the order of the file."""
        return latest(read_records(self.folder / SAMPLES))

    def trace(self, record: Record) -> TokenTrace | None:
        """The token trace of a record, where one was kept."""
        return None if record.trace is None else read_trace(self.folder, record.trace)


def load_run(folder: str | Path) -> Run:
    """Read a run's folder; raises RunError where it is none."""
    folder = Path(folder)
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise RunError(f"{folder} is no run: it has no {MANIFEST}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(f"{folder / MANIFEST} cannot be read: {error}") from None
    if not isinstance(manifest, dict):
        raise RunError(f"{folder / MANIFEST} is no manifest")
    path = folder / RESULTS
    results = msgspec.json.decode(path.read_bytes()) if path.exists() else None
    return Run(folder, manifest, results)


def read_records(path: Path) -> Iterator[Record]:
    """Every whole line of ``samples.jsonl``; a torn last line is left out, any other bad line raises RunError."""
    for _, _, record in placed_lines(path, msgspec.json.Decoder(Record)):
        yield record


def placed_lines(path: Path, decoder: msgspec.json.Decoder[T]) -> Iterator[tuple[int, int, T]]:
    """(offset, length, value) of every whole line of a JSON-lines file of a run; see ``read_records``."""
    offset = 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield offset, len(line), decoder.decode(line)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise RunError(f"{path}, line {number}: not a record ({error})") from None
            offset += len(line)


def latest(records: Iterable[Record]) -> Iterator[Record]:
    """One record a draw: the last line counts, and a measured one is never replaced by a failure."""
    kept: dict[tuple[str, str, int], Record] = {}
    for record in records:
        name = (record.task, record.sample, record.draw)
        before = kept.get(name)
        if before is None or record.measured or not before.measured:
            kept[name] = record
    yield from kept.values()


def read_trace(folder: Path, ref: TraceRef) -> TokenTrace:
    """The trace at ``ref``; raises RunError where the bytes are not there or are no trace."""
    path = folder / TRACES / Path(ref.file).name
    try:
        with path.open("rb") as file:
            file.seek(ref.offset)
            return traces.unpack(file.read(min(ref.length, _LINE_LIMIT)))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} holds no trace at byte {ref.offset}: {error}") from None


class RunWriter:
    """The one writer of a run's folder. ``append`` and ``append_prompt`` may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prompts: set[tuple[str, str]] = set()
        """(task, sample) pairs whose prompt is written."""
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._guard = (folder / ".lock").open("w")
            try:
                fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._guard.close()
                raise RunError(
                    f"another process is writing {folder}; wait for it, or give another --run-name"
                ) from None
            self._samples = _Appended(folder / SAMPLES)
            self._prompts = _Appended(folder / PROMPTS)
            self._traces: _Appended | None = None
            for line in (folder / PROMPTS).open("rb"):
                head = msgspec.json.decode(line, type=_PromptHead)
                self.prompts.add((head.task, head.sample))
        except OSError as error:
            raise RunError(_plain(folder, error)) from error

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._samples.close()
        self._prompts.close()
        if self._traces is not None:
            self._traces.close()
        self._guard.close()

    def append(self, record: Record, trace: TokenTrace | None = None) -> Record:
        """Keep ``record``, its trace first; the record as it was written."""
        with self._lock:
            try:
                if trace is not None:
                    record = replace(record, trace=self._append_trace(trace))
                self._samples.append(self._encoder.encode(record) + b"\n")
            except OSError as error:
                raise RunError(_plain(self.folder, error)) from error
        return record

    def append_prompt(self, task: str, sample: str, digest: str, messages: Sequence[WireMessage]) -> None:
        """Keep the messages of a question, once."""
        if (task, sample) in self.prompts:
            return
        line = {
            "task": task,
            "sample": sample,
            "prompt": digest,
            "messages": [
                {
                    "role": message.role,
                    "parts": [part if isinstance(part, str) else {"picture": part.digest} for part in message.parts],
                }
                for message in messages
            ],
        }
        with self._lock:
            try:
                self._prompts.append(self._encoder.encode(line) + b"\n")
            except OSError as error:
                raise RunError(_plain(self.folder, error)) from error
        self.prompts.add((task, sample))

    def write(self, name: str, content: Json) -> None:
        """Write a JSON file of the folder, whole or not at all."""
        data = msgspec.json.format(msgspec.json.encode(content, order="deterministic"), indent=1) + b"\n"
        part = self.folder / f".{name}.part"
        try:
            part.write_bytes(data)
            part.replace(self.folder / name)
        except OSError as error:
            raise RunError(_plain(self.folder, error)) from error

    def _append_trace(self, trace: TokenTrace) -> TraceRef:
        name = "tokens.bin"
        if self._traces is None:
            (self.folder / TRACES).mkdir(exist_ok=True)
            self._traces = _Appended(self.folder / TRACES / name, lines=False)
        data = traces.pack(trace)
        return TraceRef(name, self._traces.append(data), len(data))


class _PromptHead(msgspec.Struct):
    task: str
    sample: str


class _Appended:
    """A file that only grows, by whole pieces; ``lines``: the torn last line of a crash is cut off first."""

    def __init__(self, path: Path, *, lines: bool = True) -> None:
        self._file = path.open("ab+", buffering=0)
        end = self._file.seek(0, os.SEEK_END)
        self._size = _whole_lines(self._file, end) if lines else end
        if self._size != end:
            self._file.truncate(self._size)

    def append(self, data: bytes) -> int:
        """All of ``data`` or nothing: what a full disk let through is taken back. The offset it went to."""
        offset = self._size
        try:
            written = self._file.write(data)
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError:
            self._file.truncate(offset)
            raise
        self._size += len(data)
        return offset

    def close(self) -> None:
        self._file.close()


def _whole_lines(file: IO[bytes], end: int) -> int:
    """Size of the file up to and with its last line end."""
    block = 65536
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        found = (file.read(end - start) or b"").rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _plain(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left for {folder}: what was measured is kept; free some and run the same command again"
    return f"{folder} cannot be written: {error.strerror or error}"
