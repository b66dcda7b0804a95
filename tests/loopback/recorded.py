"""Recorded replies as a model: a question found in the prompt is answered with what a real model once said.

A file of JSON lines with `id`, `response` (or `responses`, the draws) and, where it has them, `question` or `query`.
Where it has none, FILE=FOLDER joins the ids with the benchmark's native files in FOLDER: JSON lines, JSON lists, JSON
objects by id, and objects with `examples` (then the id is `file/index`). Questions of one text are told apart by
their options and by the bytes of their picture, so pictures must come untouched.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.loopback.model import Questions, plain

ID_FIELDS = ("id", "question_id", "pid", "ID", "unique_id", "sample_index")
QUESTION_FIELDS = ("question", "query", "problem", "input")
OPTION_FIELDS = ("options", "choices")
PICTURE_FIELDS = ("image", "imagename", "image_path")
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})


@dataclass(slots=True)
class Recording:
    """What is known of one question; ``served`` counts the draws given away."""

    id: str
    responses: list[str]
    options: tuple[str, ...] = ()
    picture: str | None = None
    served: int = 0


class Recordings:
    """All recordings, by question."""

    def __init__(self, specs: Sequence[str]) -> None:
        self.questions = Questions()
        for spec in specs:
            file, _, folder = spec.partition("=")
            self._load(Path(file), Path(folder) if folder else None)

    def _load(self, file: Path, folder: Path | None) -> None:
        known = native(folder) if folder else {}
        pictures = picture_files(folder) if folder else {}
        for row in rows_of(file):
            if row.get("same_options") is False:
                continue
            identity = str(first(row, ID_FIELDS))
            source = known.get(identity, row)
            question = first(source, QUESTION_FIELDS)
            if question is None:
                raise ValueError(f"{file}: {identity} has no question here; give FILE=FOLDER to join it")
            responses = row.get("responses") or [row["response"]]
            options = first(source, OPTION_FIELDS)
            name = first(source, PICTURE_FIELDS)
            picture = pictures.get(Path(name).name) if isinstance(name, str) else None
            self._add(
                str(question),
                Recording(
                    identity,
                    [str(response) for response in responses],
                    tuple(map(str, options)) if isinstance(options, list) else (),
                    hashlib.sha256(picture.read_bytes()).hexdigest() if picture else None,
                ),
            )

    def _add(self, question: str, recording: Recording) -> None:
        key = plain(question)
        if key in self.questions.values:
            self.questions.values[key].append(recording)
        else:
            self.questions.add(question, [recording])

    def find(self, prompt: str, pictures: Sequence[str]) -> Recording | None:
        """The recording of the question that the prompt asks; ``pictures`` are data URLs. None where it is not sure."""
        question = self.questions.find(prompt)
        if question is None:
            return None
        candidates: list[Recording] = self.questions.values[question]
        if len(candidates) > 1 and pictures:
            digest = hashlib.sha256(base64.b64decode(pictures[0].partition(",")[2])).hexdigest()
            candidates = [each for each in candidates if each.picture == digest]
        if len(candidates) > 1:
            text = plain(prompt)
            candidates = [each for each in candidates if all(plain(option) in text for option in each.options)]
            longest = max((len(each.options) for each in candidates), default=0)
            candidates = [each for each in candidates if len(each.options) == longest]
        # The same question asked twice under two ids was answered by the same model: the first stands for both.
        distinct = {tuple(each.responses): each for each in reversed(candidates)}
        return next(iter(distinct.values())) if len(distinct) == 1 else None

    @staticmethod
    def draw(recording: Recording, seed: int | None) -> str:
        """The draw that the seed names, else the next one."""
        if seed is not None:
            return recording.responses[seed % len(recording.responses)]
        recording.served += 1
        return recording.responses[(recording.served - 1) % len(recording.responses)]


def first(row: dict[str, Any], names: Iterable[str]) -> Any:
    """The value of the first of these fields that the row has."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file of JSON lines, a JSON list, a JSON object by id, or one with `examples`."""
    text = file.read_text(encoding="utf-8")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(value, dict) and isinstance(value.get("examples"), list):
        value = {f"{file.stem}/{number}": row for number, row in enumerate(value["examples"])}
    if isinstance(value, dict):
        if not all(isinstance(row, dict) for row in value.values()):
            value = [value]
        else:
            value = [{"id": key, **row} for key, row in value.items()]
    yield from (row for row in value if isinstance(row, dict))


def native(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of a benchmark's native files by id; converted copies (`hub_*`) are passed over."""
    made: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.rglob("*.json*")):
        if any(part.startswith("hub_") for part in file.relative_to(folder).parts):
            continue
        for row in rows_of(file):
            identity = first(row, ID_FIELDS)
            if identity is not None and first(row, QUESTION_FIELDS) is not None:
                made.setdefault(str(identity), row)
    return made


def picture_files(folder: Path) -> dict[str, Path]:
    """Pictures by file name."""
    return {file.name: file for file in sorted(folder.rglob("*")) if file.suffix.lower() in PICTURE_SUFFIXES}
