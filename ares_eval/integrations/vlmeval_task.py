"""A VLMEvalKit dataset as a task, and its scorer: their prompts, their `evaluate`, our engine and records.

While a run goes on nothing is decided: VLMEvalKit scores whole prediction files. When all is asked, the replies go to
the locked-down child, one file for each draw; the totals become metrics and, where their scorer decides row by row,
each record gets its verdict.
"""

from __future__ import annotations

import functools
import hashlib
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ares_eval.integrations import vlmeval_data as data
from ares_eval.integrations import vlmeval_process as process
from ares_eval.integrations import vlmeval_rules as rules
from ares_eval.tasks.errors import BadRow
from ares_eval.tasks.scoring import JudgeModel, Score, Scorer, ScoringFailed, Summary
from ares_eval.types import AnswerSpec, Json, Message, Picture, PicturePart, Record, Reply, Sample, TextPart, Verdict

PRIMARY = "vlmeval"
"""The primary metric: VLMEvalKit's own, as a fraction."""
NO_TEXT = "..."
"""Stands for a reply without text: an empty cell would be read back as NaN. No letter, number or word is in it."""
SECONDS, SECONDS_A_ROW = 900.0, 5.0
"""Time that scoring may take by itself: imports and pools, and VLMEvalKit's own 30 s for the rare row that hangs."""
CLOSE_THINK = "</think>"


@dataclass(frozen=True)
class VlmTask:
    """A dataset of VLMEvalKit with its table found and its prompts made (the interface of ares_eval.tasks.Task)."""

    name: str
    dataset: data.Dataset | None
    table: data.Table
    place: Path
    scorer: Scorer
    suites: tuple[str, ...] = ()
    repeats: int = 1
    metrics: tuple[str, ...] = (PRIMARY,)
    # Their prompts are whole: nothing is put before them unless the user asks for it.
    defaults: Mapping[str, Json] = field(default_factory=lambda: {"system_prompt": ""})

    @property
    def modality(self) -> str:
        """text, or image+text."""
        return "text" if self.dataset is not None and self.dataset.modality == "TEXT" else "image+text"

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides prompts and scores, besides the rows and the judge's model."""
        content = [data.FORMAT, data.version(), self.name, data.to_entry(self.dataset)]
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()

    @property
    def dataset_digest(self) -> str:
        """Of the table's bytes."""
        return f"sha256:{self.table.digest}"

    @property
    def source(self) -> str:
        """Where the rows come from, for people."""
        known = {True: "VLMEvalKit's own", False: "not the one VLMEvalKit names", None: "no checksum known"}
        return f"{self.table.path} ({known[self.table.official]}; {data.PACKAGE} {data.version()})"

    @functools.cached_property
    def size(self) -> int:
        """Number of questions."""
        with (self.place / "rows.jsonl").open("rb") as file:
            return sum(1 for _ in file)

    def samples(self) -> Iterator[Sample]:
        """The questions in the order of the table. Raises BadRow."""
        seen: set[str] = set()
        try:
            for row in data.rows(self.place, self.table.path.parent):
                if row.index in seen:
                    raise ValueError(f"the index {row.index!r} occurs twice")
                seen.add(row.index)
                yield _sample(self.name, row)
        except (ValueError, msgspec.DecodeError) as error:
            raise BadRow(self.name, str(self.table.path), len(seen) + 1, str(error)) from error


def _sample(task: str, row: data.Row) -> Sample:
    parts: list[TextPart | PicturePart] = []
    for kind, value in row.parts:
        parts.append(PicturePart(_picture(Path(value))) if kind == "image" else TextPart(value))
    answer = row.columns.get("answer")
    return Sample(
        task=task,
        id=row.index,
        messages=(Message("user", tuple(parts)),),
        reference="" if answer is None else str(answer),
        answer=AnswerSpec(),
        group=row.index,
        fields=row.columns,
    )


def _picture(path: Path) -> Picture:
    return Picture(path.name, path.read_bytes)


# ---------------------------------------------------------------- scores


class VlmScorer:
    """Scoring by VLMEvalKit. ``model``: the judge; without one the rules answer (vlmeval_rules.py)."""

    def __init__(
        self, name: str, dataset: data.Dataset | None, table: data.Table, model: JudgeModel | None, threads: int = 8
    ) -> None:
        self.name, self.dataset, self.table = name, dataset, table
        self.model = model
        self.threads = threads
        self._done: tuple[str, Summary] | None = None

    @property
    def judge(self) -> str:
        """Who answers the scorers' questions: the judge's name, or ``rule``."""
        return self.model.name if self.model is not None else rules.NAME

    def submit(self, sample: Sample, draw: int, reply: Reply) -> Future[Score]:  # noqa: ARG002
        """Not known before the end."""
        future: Future[Score] = Future()
        future.set_result(Score(self._verdict("unverifiable", "not yet scored")))
        return future

    def summarise(self, records: Iterable[Record], *, questions: int, draws: int) -> Summary:  # noqa: ARG002
        """Evaluate each draw's predictions. Raises ScoringFailed."""
        measured = [record for record in records if record.measured]
        if not measured:
            return Summary({PRIMARY: None})
        content = [(r.sample, r.draw, r.text) for r in sorted(measured, key=lambda r: (r.draw, r.sample))]
        key = hashlib.sha256(msgspec.json.encode(content)).hexdigest()
        if self._done is None or self._done[0] != key:
            self._done = key, self._evaluate(measured)
        return self._done[1]

    def close(self) -> None:
        """Nothing is left running between calls."""

    def _evaluate(self, measured: Sequence[Record]) -> Summary:
        numbers = sorted({record.draw for record in measured})
        predictions: list[dict[str, str]] = [{} for _ in numbers]
        for record in measured:
            predictions[numbers.index(record.draw)][record.sample] = prediction(record.text or "")
        try:
            found = evaluate(self.name, self.dataset, self.table, predictions, self.model, threads=self.threads)
        except process.ChildFailed as error:
            raise ScoringFailed(f"vlm:{self.name}: VLMEvalKit gave no score: {error}") from None
        scores: dict[tuple[str, int], Score] = {}
        for draw, one in zip(numbers, found, strict=True):
            for record in measured:
                if record.draw == draw:
                    scores[record.sample, draw] = self._score(one, record.sample)
        return Summary(self._metrics(found), scores)

    def _score(self, one: Evaluated, sample: str) -> Score:
        row = one.rows.get(sample)
        if sample in one.unanswered:
            return Score(self._verdict("unverifiable", "needs_judge"))
        if row is None:
            return Score(self._verdict("unverifiable", "not scored row by row"))
        fields = {"vlmeval_score": row.score}
        if row.guessed:
            return Score(self._verdict("unverifiable", "needs_judge"), fields)
        if row.score not in (0.0, 1.0) or one.graded:
            return Score(self._verdict("unverifiable", "graded, not right or wrong"), fields)
        return Score(self._verdict("correct" if row.score else "incorrect", None), fields)

    def _verdict(self, value: str, reason: str | None) -> Verdict:
        method = f"vlmevalkit:{self.judge}"
        return Verdict(value, method, reason, version=f"{data.PACKAGE} {data.version()}")  # type: ignore[arg-type]

    def _metrics(self, found: Sequence[Evaluated]) -> dict[str, Json]:
        """The primary metric as a fraction, theirs as they write them, each the mean over draws; who judged."""
        failed = [one.error for one in found if one.error]
        # A judge that was there and did not answer leaves rows that VLMEvalKit would count as wrong, or guess.
        lost = sum(len(one.unanswered) for one in found) if self.model is not None else 0
        values: dict[str, Json] = {PRIMARY: None}
        if not failed and not lost:
            shares = [share for one in found if (share := one.share) is not None]
            values[PRIMARY] = statistics.fmean(shares) if len(shares) == len(found) else None
            if len(shares) == len(found) > 1:
                values[f"{PRIMARY}_stderr"] = statistics.stdev(shares) / math.sqrt(len(shares))
        names = list(dict.fromkeys(name for one in found for name in one.metrics))
        theirs = {
            name: statistics.fmean(numbers)
            for name in names
            if len(numbers := [one.metrics[name] for one in found if name in one.metrics]) == len(found)
        }
        values[f"{PRIMARY}_metrics"] = theirs
        values[f"{PRIMARY}_judge"] = self.judge
        values[f"{PRIMARY}_judge_questions"] = sum(one.asked for one in found)
        values[f"{PRIMARY}_judge_unanswered"] = sum(len(one.unanswered) for one in found)
        values[f"{PRIMARY}_locks"] = list(found[0].locks)
        if failed:
            values[f"{PRIMARY}_error"] = failed[0]
        return values


def prediction(text: str) -> str:
    """What VLMEvalKit gets to see of a reply: what follows the last closing think tag, as with its SPLIT_THINK."""
    return (text.rpartition(CLOSE_THINK)[2].strip() if CLOSE_THINK in text else text) or NO_TEXT


# ---------------------------------------------------------------- one evaluation


class ScoredRow(msgspec.Struct, frozen=True):
    """What was decided on a row: 1 for right; ``guessed``: VLMEvalKit drew a letter by lot."""

    score: float
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Evaluated:
    """VLMEvalKit's `evaluate` of one prediction file.

    ``metrics``: numbers as they write them, flat (their report's keys). ``primary``: the one they report. ``rows``: by
    index. ``unanswered``: rows whose question the judge did not answer. ``error``: why there are no metrics.
    """

    metrics: Mapping[str, float]
    primary: tuple[str, float] | None
    rows: Mapping[str, ScoredRow]
    asked: int
    unanswered: frozenset[str]
    error: str | None
    locks: tuple[str, ...]

    @property
    def graded(self) -> bool:
        """Whether rows have marks, not just right or wrong."""
        return any(row.score not in (0.0, 1.0) for row in self.rows.values())

    @property
    def share(self) -> float | None:
        """The primary metric as a fraction; None where it is none (a rating).

        They write fractions here and percentages there. Where it is the share of right rows, the rows tell which; else
        a number above 1 among the metrics (counts left out) means percentages.
        """
        if self.primary is None:
            return None
        value = self.primary[1]
        if self.rows and not self.graded:
            mean = statistics.fmean(row.score for row in self.rows.values())
            for share in (value, value / 100.0):
                if math.isclose(share, mean, abs_tol=1e-9):
                    return share
        if max([value, *(number for name, number in self.metrics.items() if not _is_count(name))]) > 1.0:
            value /= 100.0
        return value if 0.0 <= value <= 1.0 else None


def _is_count(name: str) -> bool:
    return name.rpartition("|")[2].lower() in ("tot", "hit", "prefetch", "total", "count", "num")


def evaluate(
    name: str,
    dataset: data.Dataset | None,
    table: data.Table,
    predictions: Sequence[Mapping[str, str]],
    model: JudgeModel | None,
    *,
    threads: int = 8,
    exact_matching: bool = False,
) -> list[Evaluated]:
    """VLMEvalKit's own scores of prediction files (index -> text), each evaluated by itself in one locked-down child.

    ``model`` None: the rules answer the scorers' questions; ``exact_matching``: VLMEvalKit's mode without any judge,
    for the datasets that have it. Raises process.ChildFailed.
    """
    from ares_eval.verify import Verifier

    rows = sum(map(len, predictions))
    with data.folder() as own, Verifier() as verifier:
        data.link_data(own, name, table)
        answer = process.run(
            "evaluate",
            own,
            readable=[table.path, table.path.parent],
            judge=rules.judge(verifier) if model is None else _asking(model),
            seconds=SECONDS + SECONDS_A_ROW * rows,
            memory_bytes=process.MEMORY_BYTES + 8 * table.path.stat().st_size,
            name=name,
            entry=data.to_entry(dataset),
            predictions=[dict(one) for one in predictions],
            judge_name="exact_matching" if exact_matching else "ares-rule" if model is None else "ares-judge",
            nproc=threads,
        )
    return [_evaluated(one, answer.locks) for one in answer.value]


def _asking(model: JudgeModel) -> process.Judge:
    return lambda questions: model.complete([(question.system, question.prompt) for question in questions])


class _Judging(msgspec.Struct):
    asked: int
    failed: list[str]


class _Draw(msgspec.Struct):
    metrics: dict[str, Json]
    primary: tuple[str, Json] | None
    error: str | None
    rows: dict[str, ScoredRow]
    judge: _Judging


def _evaluated(value: Json, locks: tuple[str, ...]) -> Evaluated:
    """The child's word, checked: hostile text was evaluated beside it."""
    try:
        draw = msgspec.convert(value, _Draw, strict=False)
    except msgspec.ValidationError as error:
        raise process.ChildFailed(f"its answer has not the form agreed on ({error})", "malformed") from None
    numbers = {name: float(number) for name, number in draw.metrics.items() if isinstance(number, int | float)}
    primary = draw.primary
    return Evaluated(
        numbers,
        (primary[0], float(primary[1])) if primary and isinstance(primary[1], int | float) else None,
        draw.rows,
        draw.judge.asked,
        frozenset(draw.judge.failed),
        draw.error,
        locks,
    )
