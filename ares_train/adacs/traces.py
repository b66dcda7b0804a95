"""Ready-made responses as a set of samples: files of JSONL or parquet, joined with the questions.

A trace names its question by our id, by the source's id, or by the question's text in normal form. Traces lie in any
order and may be more than memory holds: one pass spreads them over a file for each part, then each is put in order.
The first ``draws`` traces of a question count, numbered from 0 in the order of the files. Nothing is written before all
traces are read, so that what is refused once is refused again.
"""

from __future__ import annotations

import contextlib
import glob
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ares_train.adacs import finish, schemas, store
from ares_train.adacs.config import PoolConfig, TracesConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.grams import exact_key
from ares_train.adacs.layout import Layout, SampleSet
from ares_train.adacs.questions import question_text
from ares_train.adacs.sources import faults, files_table
from ares_train.adacs.store import Stage
from ares_train.adacs.ticker import Ticker

HELD_BYTES = 64 << 20
"""Traces that wait in memory to be appended to their parts' files."""

ROWS = 128

AMBIGUOUS = (-1, "")
"""Stands for a key that several questions have."""


class Trace(msgspec.Struct, frozen=True):
    """A response on its way to its part."""

    qid: str
    order: int
    text: str
    reasoning: str
    finish_reason: str | None
    correct: int | None
    tokens: int | None


STRANGE, SEVERAL = "without a question", "with several questions"

_decode = msgspec.json.Decoder(Trace).decode


def run(pool: PoolConfig, layout: Layout, name: SampleSet, questions: Stage, note: Callable[[str], None]) -> None:
    """Make the parts of a set from files. Raises AdacsError, and then has written nothing."""
    found = [(traces, files_of(traces)) for traces in pool.traces]
    stage = Stage(layout.samples(name), store.fingerprint("traces", name, pool.traces, pool.draws))
    digests = [store.file_digest(file) for _, files in found for file in files]
    numbers = questions.numbers()
    stage.keep_only(numbers)
    inputs = {number: [store.digest(questions.path(number)), *digests] for number in numbers}
    todo = [number for number in numbers if not stage.done(number, inputs[number])]
    if not todo:
        note(f"sample {name}: {len(numbers)} parts are there already")
        return
    with contextlib.closing(_Spool(stage.folder / "spool")) as spool:
        counts = _spread(found, name, questions, numbers, spool, note)
        for part in todo:
            rows = pq.read_table(questions.path(part), columns=["qid", "source"]).to_pylist()
            stage.write(part, _batches(rows, spool.read(part), pool.draws), schemas.SAMPLES, inputs[part])
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    note(f"sample {name}: traces: {told}")


def _spread(
    found: Sequence[tuple[TracesConfig, list[Path]]],
    name: SampleSet,
    questions: Stage,
    numbers: Sequence[int],
    spool: _Spool,
    note: Callable[[str], None],
) -> Counter[str]:
    """Put every trace into its part's file; what became of them. Raises AdacsError."""
    counts: Counter[str] = Counter()
    read = 0
    ticker = Ticker(f"sample {name}", "traces", None, note)
    for number, (traces, files) in enumerate(found):
        places = _places(traces, questions, numbers)
        columns = _Columns(traces)
        for order, values in enumerate(_rows(files)):
            columns.see(values)
            read += 1
            ticker.add(1)
            key = _key(traces, values)
            place = places.get(key) if key is not None else None
            if place is None or place == AMBIGUOUS:
                counts[STRANGE if place is None else SEVERAL] += 1
                continue
            part, qid = place
            for nth, trace in enumerate(_traces(traces, values, qid, (number << 48) + (order << 10))):
                counts["taken"] += 1
                counts["with a recorded verdict"] += trace.correct is not None
                counts["with a recorded length"] += trace.tokens is not None
                if not finish.known(trace.finish_reason):
                    counts[f"with finish reason {trace.finish_reason!r:.40}, which is unknown and counts as whole"] += 1
                spool.add(part, msgspec.structs.replace(trace, order=trace.order + nth))
        columns.check(name)
    spool.flush()
    if not counts["taken"]:
        raise AdacsError(_nothing_taken(name, counts, read))
    return counts


def _nothing_taken(name: SampleSet, counts: Counter[str], read: int) -> str:
    ours = read - counts[STRANGE] - counts[SEVERAL]
    if ours:
        return f"sample.{name}.traces: {ours} rows belong to questions, but their response is no text; check response"
    if counts[SEVERAL]:
        return (
            f"sample.{name}.traces: {counts[SEVERAL]} traces fit several questions each; name the column with the "
            "question's source (source), or our ids (qid)"
        )
    return f"sample.{name}.traces: no trace belongs to a question; check qid, id, source and question"


class _Columns:
    """The columns that are named for traces: one that no row has is misspelt, and would count as not given."""

    def __init__(self, traces: TracesConfig) -> None:
        self._path = traces.path
        named = {setting: getattr(traces, setting) for setting in _COLUMNS}
        if traces.qid is None and traces.id is None:
            named["question"] = traces.question or "question"
        self._missing: dict[str, str] = {setting: column for setting, column in named.items() if column is not None}
        self._there: dict[str, None] = {}

    def see(self, values: Mapping[str, Any]) -> None:
        if self._missing:
            self._missing = {setting: column for setting, column in self._missing.items() if column not in values}
            self._there |= dict.fromkeys(values)

    def check(self, name: SampleSet) -> None:
        """Raises AdacsError."""
        for setting, column in self._missing.items():
            raise AdacsError(
                f"sample.{name}.traces: {setting}: no row of {self._path} has a column {column!r}; "
                f"there are {', '.join(self._there) or 'no rows'}"
            )


_COLUMNS = ("response", "reasoning", "qid", "id", "source", "finish_reason", "correct", "tokens")
"""Settings of traces that name a column; ``question`` besides, where no id is given."""


def files_of(traces: TracesConfig) -> list[Path]:
    files = [Path(name) for name in sorted(glob.glob(str(Path(traces.path).expanduser())))]  # noqa: PTH207
    if not files:
        raise AdacsError(f"traces: there is no file {traces.path}")
    return files


def _rows(files: list[Path]) -> Iterator[Mapping[str, Any]]:
    with faults("traces"):
        for row in files_table("traces", files, "train").rows():
            yield row.values


# ---------------------------------------------------------------- whose trace it is


def _places(traces: TracesConfig, questions: Stage, numbers: Sequence[int]) -> dict[Any, tuple[int, str]]:
    """Key to (part, qid) for all questions, by what the traces name questions by."""
    places: dict[Any, tuple[int, str]] = {}
    for number in numbers:
        for row in pq.read_table(questions.path(number), columns=["qid", "source", "messages", "extra"]).to_pylist():
            key = _key_of_question(traces, row)
            if key is None:
                continue
            places[key] = AMBIGUOUS if key in places else (number, row["qid"])
    return places


def _key_of_question(traces: TracesConfig, row: Mapping[str, Any]) -> Any:
    if traces.qid is not None:
        return row["qid"]
    if traces.id is not None:
        own = msgspec.json.decode(row["extra"]).get("id")
        return None if own is None else (row["source"] if traces.source is not None else "", str(own))
    return exact_key(question_text(row))


def _key(traces: TracesConfig, values: Mapping[str, Any]) -> Any:
    if traces.qid is not None:
        qid = values.get(traces.qid)
        return qid if isinstance(qid, str) else None
    if traces.id is not None:
        own = values.get(traces.id)
        source = str(values.get(traces.source)) if traces.source is not None else ""
        return None if own is None else (source, str(own))
    text = values.get(traces.question or "question")
    return exact_key(text) if isinstance(text, str) else None


def _traces(traces: TracesConfig, values: Mapping[str, Any], qid: str, order: int) -> list[Trace]:
    written = values.get(traces.response)
    reasoning = values.get(traces.reasoning) if traces.reasoning else None
    ended = values.get(traces.finish_reason) if traces.finish_reason else None
    correct = values.get(traces.correct) if traces.correct else None
    tokens = values.get(traces.tokens) if traces.tokens else None
    texts = written if isinstance(written, list | tuple) else [written]
    several = isinstance(written, list | tuple)

    def nth(value: Any, place: int) -> Any:
        """Columns beside a list of responses are lists as well, or hold for all of them."""
        if several and isinstance(value, list | tuple):
            return value[place] if place < len(value) else None
        return value

    made = []
    for place, text in enumerate(texts[:1000]):
        if not isinstance(text, str):
            continue
        thought, verdict, length = (nth(value, place) for value in (reasoning, correct, tokens))
        made.append(
            Trace(
                qid=qid,
                order=order,
                text=text,
                reasoning=thought if isinstance(thought, str) else "",
                finish_reason=None if nth(ended, place) is None else str(nth(ended, place)),
                correct=_whole(verdict, traces, "correct", 1),
                tokens=_whole(length, traces, "tokens", 2**31 - 1),
            )
        )
    return made


def _whole(value: Any, traces: TracesConfig, setting: str, most: int) -> int | None:
    """A recorded verdict or length; pandas writes whole numbers as floats, and null as NaN, where some are null.

    Raises AdacsError for what is neither a whole number from 0 to ``most`` nor null.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    number = isinstance(value, int | float) and (setting == "correct" or not isinstance(value, bool))
    if not number or not 0 <= value <= most or value != int(value):
        allowed = "true, false, 1, 0 or null" if setting == "correct" else "a whole number of tokens or null"
        column = getattr(traces, setting)
        raise AdacsError(f"traces: {traces.path}: column {column!r} ({setting}) holds {value!r:.60}, not {allowed}")
    return int(value)


# ---------------------------------------------------------------- parts


class _Spool:
    """A file of traces for each part, appended to in large pieces."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._held: dict[int, list[bytes]] = {}
        self._size = 0

    def _path(self, part: int) -> Path:
        return self._folder / f"{part:05}.jsonl"

    def add(self, part: int, trace: Trace) -> None:
        line = msgspec.json.encode(trace) + b"\n"
        self._held.setdefault(part, []).append(line)
        self._size += len(line)
        if self._size > HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        for part, lines in self._held.items():
            with self._path(part).open("ab") as file:
                file.writelines(lines)
        self._held, self._size = {}, 0

    def read(self, part: int) -> list[Trace]:
        path = self._path(part)
        if not path.exists():
            return []
        with path.open("rb") as file:
            return [_decode(line) for line in file]

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _batches(rows: Sequence[Mapping[str, Any]], traces: list[Trace], draws: int) -> Iterator[pa.RecordBatch]:
    """The part's traces in the order of its questions, as SAMPLES has them."""
    place = {row["qid"]: number for number, row in enumerate(rows)}
    source = {row["qid"]: row["source"] for row in rows}
    traces.sort(key=lambda trace: (place[trace.qid], trace.order))
    drawn: Counter[str] = Counter()
    made: list[dict[str, Any]] = []
    for trace in traces:
        draw = drawn[trace.qid]
        drawn[trace.qid] += 1
        if draw >= draws:
            continue
        row = {name: value for name, value in msgspec.structs.asdict(trace).items() if name != "order"}
        made.append({**row, "source": source[trace.qid], "draw": draw, "key": store.fingerprint(row)})
    for start in range(0, max(len(made), 1), ROWS):
        yield pa.RecordBatch.from_pylist(made[start : start + ROWS], schema=schemas.SAMPLES)
