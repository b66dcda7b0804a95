"""What exports of a run share: its files read a question at a time, and files that are written whole or not at all.

A run of many long replies is never in memory at once: one pass notes where each line lies, and lines are read when
needed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from ares_eval.records import RunError
from ares_eval.types import Json, Record

# ---------------------------------------------------------------- the run's files, a question at a time


class _Head(msgspec.Struct):
    task: str
    sample: str
    draw: int
    cause: str | None = None


class Lines:
    """Random access to ``samples.jsonl``: one pass notes where the measured draws lie, replies are read when needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, dict[str, dict[int, tuple[int, int]]]] = {}

    def __enter__(self) -> Lines:
        self._file = self._path.open("rb")
        decoder = msgspec.json.Decoder(_Head)
        for start, line in _whole_lines(self._file):
            head = decoder.decode(line)
            draws = self._places.setdefault(head.task, {}).setdefault(head.sample, {})
            if head.cause is None:
                draws[head.draw] = (start, len(line))
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def samples(self, task: str) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        """Where the measured draws of each recorded sample lie; the last line of a draw counts."""
        return self._places.get(task, {})

    def read(self, draws: Mapping[int, tuple[int, int]]) -> list[Record]:
        """The records at these places, in the order of the draws."""
        found = []
        for draw in sorted(draws):
            start, length = draws[draw]
            self._file.seek(start)
            found.append(msgspec.json.decode(self._file.read(length), type=Record))
        return found


class _Prompt(msgspec.Struct):
    task: str
    sample: str
    messages: list[dict[str, Json]] = []


class Prompts:
    """Random access to ``prompts.jsonl``, whose lines stand in the order in which the questions were asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, dict[str, tuple[int, int]]] = {}

    def __enter__(self) -> Prompts:
        self._file = self._path.open("rb")
        for start, line in _whole_lines(self._file):
            head = msgspec.json.decode(line, type=_Prompt)
            self._places.setdefault(head.task, {}).setdefault(head.sample, (start, len(line)))
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def order(self, task: str, samples: Sequence[str]) -> list[tuple[int, str]]:
        """(position, sample) in the order of asking; position counts all questions of the task."""
        positions = {sample: i for i, sample in enumerate(self._places.get(task, {}))}
        if lost := sorted(set(samples) - positions.keys()):
            raise RunError(f"{self._path} has no prompt of {task}: {', '.join(lost[:5])}")
        return sorted((positions[sample], sample) for sample in samples)

    def messages(self, task: str, sample: str) -> list[Json]:
        """The question as OpenAI chat messages, a picture as its digest."""
        start, length = self._places[task][sample]
        self._file.seek(start)
        prompt = msgspec.json.decode(self._file.read(length), type=_Prompt)
        return [{"role": message["role"], "content": _content(message["parts"])} for message in prompt.messages]


def _content(parts: Sequence[Json]) -> Json:
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": part["picture"]}}
        for part in parts
    ]


def _whole_lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(offset, line); a last line without its end, torn by a crash, is left out."""
    start = 0
    for line in file:
        if line.endswith(b"\n"):
            yield start, line
        start += len(line)


# ---------------------------------------------------------------- names and files


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is complete."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def file_name(name: str) -> str:
    """A name as part of a path (lm-eval's sanitize_model_name); one of dots only must not lead out of the folder."""
    return re.sub(r'["<>:/|\\?*\[\]]+', "__", name).lstrip(".") or "model"
