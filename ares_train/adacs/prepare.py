"""Chunks of a source's rows, prepared: each row a question or the reason why not, and its matches with benchmarks.

All that is slow in ingest (decoding pictures, comparing texts) happens here, chunk by chunk, in as many processes as
wanted. A chunk's table depends on its rows and the settings alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ares_eval.tasks.rows import Row
from ares_eval.types import Picture
from ares_train.adacs import pictures, schemas
from ares_train.adacs.benchmark_index import BenchmarkIndex
from ares_train.adacs.config import ContaminationConfig, SourceConfig
from ares_train.adacs.contamination import Asked, Matcher
from ares_train.adacs.grams import normal
from ares_train.adacs.questions import Question, Unusable, question_of

CHUNK = 1024
"""Rows prepared at a time."""

DEPTH = 64
"""Rows that are nested deeper are no questions, and neither JSON nor pickle can be sure to write them."""

TOO_DEEP = {"": "too_deep"}
"""Stands for the values of such a row on the way to another process."""

FILE = pa.struct([("path", pa.string()), ("size", pa.int64()), ("mtime", pa.int64())])

MATCH = pa.struct([("kind", pa.string()), ("task", pa.string()), ("id", pa.string()), ("score", pa.float64())])

PREPARED = pa.schema(
    [
        *schemas.QUESTIONS,
        ("id", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("reason", pa.string()),  # why the row is no question; then all of the question is null
        ("detail", pa.string()),
        ("same", pa.int64()),  # equal for questions of equal text and pictures
        ("same_answer", pa.int64()),
        ("matches", pa.list_(MATCH)),
        ("files", pa.list_(FILE)),  # pictures that the row names, as they were when they were looked at
    ]
)


@dataclass(frozen=True)
class Preparer:
    """What a chunk is prepared by; goes to worker processes as a whole."""

    source: SourceConfig
    image_root: Path | None
    picture_folder: Path
    trusted: tuple[str, ...]

    def table(self, rows: Sequence[Row], matcher: Matcher) -> pa.Table:
        """The rows as PREPARED has them, in their order."""
        made: list[dict[str, Any]] = []
        questions: list[Question] = []
        places: list[int] = []
        for row in rows:
            where: dict[str, Any] = {"file": Path(row.file).name, "row": row.number}
            values = TOO_DEEP if _deep(row.values) else row.values
            column = self.source.fields.images
            try:
                if values == TOO_DEEP:
                    raise Unusable("too_deep", f"a value is nested more than {DEPTH} deep")
                # Before they are read: a picture that changes meanwhile is then looked at again.
                where["files"] = pictures.states(values.get(column), self.image_root) if column else []
                question = question_of(values, self.source, self.image_root, self.picture_folder, self.trusted)
            except Unusable as error:
                own = values.get(self.source.fields.id) if self.source.fields.id else None
                made.append({**where, "source": self.source.name, "reason": error.reason, "detail": str(error)[:200],
                             "id": None if own is None else str(own)[:200]})  # fmt: skip
                continue
            places.append(len(made))
            questions.append(question)
            made.append({**where, **question.row(), "id": question.id, **_same(question)})
        asked = [Asked(_plain(q), q.text, q.seen) for q in questions]
        for place, matches in zip(places, matcher.match(asked), strict=True):
            made[place]["matches"] = [msgspec.to_builtins(match) for match in matches]
        return pa.Table.from_pylist(made, schema=PREPARED)


def _plain(question: Question) -> str:
    """The question without options that ingest itself put below it."""
    text = question.text
    if question.answer.choices:
        tail = "\n".join(
            f"({letter}) {choice}"
            for letter, choice in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", question.answer.choices, strict=False)
        )
        return text.removesuffix(tail)
    return text


def _same(question: Question) -> dict[str, int]:
    text = [normal(content) for _, content in question.turns]
    shown = [seen.sha256 for seen in question.seen]
    references = sorted(normal(reference) for reference in question.references)
    return {"same": _number([text, shown]), "same_answer": _number(references)}


def _number(content: Any) -> int:
    encoded = msgspec.json.encode(content)
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "big", signed=True)


def looked_at(prepared: Path) -> bool:
    """Whether the pictures that a chunk's rows name are still as they were when the chunk was prepared."""
    for held in pq.read_table(prepared, columns=["files"])["files"].to_pylist():
        if any(pictures.state(Path(file["path"])) != file for file in held or ()):
            return False
    return True


def portable(row: Row, column: str | None) -> Row:
    """The row as it can go to another process: the pictures of ``column`` as bytes."""
    if _deep(row.values):
        return dataclasses.replace(row, values=TOO_DEEP)
    if column is None or column not in row.values:
        return row
    values = {**row.values, column: _bytes(row.values[column])}
    return Row(values, row.file, row.number, row.index, row.split, row.variant)


def _deep(value: Any, left: int = DEPTH) -> bool:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return left == 0 or any(_deep(inner, left - 1) for inner in value)


def _bytes(cell: Any) -> Any:
    if isinstance(cell, Picture):
        try:
            return cell.read()
        except OSError:
            return {}  # read again where pictures are looked at, and said to be missing there
    return [_bytes(one) for one in cell] if isinstance(cell, list | tuple) else cell


# ---------------------------------------------------------------- worker processes

_matcher: Matcher | None = None


def begin(indexes: Sequence[BenchmarkIndex], config: ContaminationConfig) -> None:
    """Make a worker process ready."""
    global _matcher
    _matcher = Matcher(indexes, config)


def work(preparer: Preparer, rows: Sequence[Row]) -> pa.Table:
    """Prepare a chunk in a worker process that is ready."""
    assert _matcher is not None
    return preparer.table(rows, _matcher)
