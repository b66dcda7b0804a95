"""One part's samples rated: verdict, length, form, trigger words and HWE of each reply, without its text.

Verdicts and lengths that samples bring along (``correct``, ``tokens``) are taken as they are; others are made here by
ares_eval.verify and the named tokenizer.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ares_eval.analysis.hwe import hwe
from ares_eval.analysis.ragged import Ragged, row_quantiles
from ares_eval.analysis.words import TriggerWords, count_words, read_words
from ares_eval.types import Verdict
from ares_eval.verify import Verifier
from ares_train.adacs import schemas, store
from ares_train.adacs.config import RateConfig
from ares_train.adacs.counting import TokenCounter
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.finish import cut_off
from ares_train.adacs.layout import Pool
from ares_train.adacs.questions import question_text, spec_of
from ares_train.adacs.response import split, well_formed, whole
from ares_train.adacs.schemas import NOT_MEASURED, RIGHT, UNVERIFIABLE, WRONG

ROWS = 256
"""Replies rated at a time."""

_VALUE = {"correct": RIGHT, "incorrect": WRONG, "unverifiable": UNVERIFIABLE}


@dataclass(frozen=True)
class Rater:
    """What replies are rated by. ``questions``: those of the part, by qid. ``counter`` gives the tokenizer when a
    length is not recorded; None: none is named."""

    config: RateConfig
    questions: Mapping[str, Mapping[str, Any]]
    verifier: Verifier
    counter: Callable[[], TokenCounter] | None
    words: TriggerWords

    def rate(self, batch: pa.RecordBatch, pool: Pool, sample_part: str, tau: float) -> pa.RecordBatch:
        """Replies of schema SAMPLES as schema RATED has them, in order; ``tau``: HWE threshold in nats, or NaN."""
        held = {name: batch.column(name).to_pylist() for name in _NARROW}
        texts = [
            None if text is None else whole(text, reasoning or "")
            for text, reasoning in zip(held["text"], held["reasoning"], strict=True)
        ]
        correct, reasons = self._verdicts(held, pool)
        tokens, think = self._lengths(held, texts)
        measured = [cause is None for cause in held["cause"]]
        config = self.config
        columns = {
            "qid": batch.column("qid"),
            "pool": pa.array([pool] * batch.num_rows),
            "draw": batch.column("draw"),
            "source": batch.column("source"),
            "modality": pa.array([self._question(qid)["modality"] for qid in held["qid"]]),
            "tokens": pa.array(tokens, pa.int32()),
            "think_tokens": pa.array(think, pa.int32()),
            "correct": pa.array(correct, pa.int8()),
            "reason": pa.array(reasons, pa.string()),
            "truncated": pa.array([cut_off(reason) for reason in held["finish_reason"]]),
            "well_formed": pa.array(
                [
                    known and well_formed(text or "", box=config.require_box, think=config.require_think)
                    for known, text in zip(measured, texts, strict=True)
                ]
            ),
            "triggers": pa.array([count_words(text, self.words) if text else 0 for text in texts], pa.int32()),
            "hwe": _hwe(batch.column("entropy"), tau, config.window),
            "sample_part": pa.array([sample_part] * batch.num_rows),
        }
        return pa.RecordBatch.from_arrays([columns[name] for name in schemas.RATED.names], schemas.RATED.names)

    def correct(self, batch: pa.RecordBatch, pool: Pool) -> list[int]:
        """``correct`` of each reply of schema SAMPLES, nothing else."""
        return self._verdicts({name: batch.column(name).to_pylist() for name in DECIDING}, pool)[0]

    def _question(self, qid: str) -> Mapping[str, Any]:
        try:
            return self.questions[qid]
        except KeyError:
            raise AdacsError(f"samples hold a reply to {qid}, which is no question of that part: sample anew") from None

    def _verdicts(self, held: Mapping[str, list[Any]], pool: Pool) -> tuple[list[int], list[str | None]]:
        """correct and reason of each reply. Algebra runs in killable processes, all of the batch at once."""
        waiting: list[Future[Verdict] | None] = []
        for qid, text, cause, known in zip(held["qid"], held["text"], held["cause"], held["correct"], strict=True):
            question = self._question(qid)
            if known is not None or cause is not None or not question["references"]:
                waiting.append(None)
                continue
            waiting.append(
                self.verifier.submit(
                    text or "", tuple(question["references"]), spec_of(question), question=question_text(question)
                )
            )
        correct: list[int] = []
        reasons: list[str | None] = []
        for place, future in enumerate(waiting):
            value, reason = self._decided(held, place, future)
            source = held["source"][place]
            if value == UNVERIFIABLE and pool == "teacher" and source in self.config.trust_source:
                value, reason = RIGHT, "trusted"
            correct.append(value)
            reasons.append(reason)
        return correct, reasons

    def _decided(
        self, held: Mapping[str, list[Any]], place: int, future: Future[Verdict] | None
    ) -> tuple[int, str | None]:
        if held["cause"][place] is not None:
            return NOT_MEASURED, held["cause"][place]
        if held["correct"][place] is not None:
            value = held["correct"][place]
            return value, None if value == RIGHT else "recorded"
        if future is None:
            return UNVERIFIABLE, "no_reference"
        verdict = future.result()
        return _VALUE[verdict.value], verdict.reason

    def _lengths(
        self, held: Mapping[str, list[Any]], texts: Sequence[str | None]
    ) -> tuple[list[int | None], list[int | None]]:
        tokens: list[int | None] = list(held["tokens"])
        think: list[int | None] = [
            known if known is not None or total is None or not text else _proportion(text, total)
            for known, total, text in zip(held["think_tokens"], tokens, texts, strict=True)
        ]
        counted = [place for place, text in enumerate(texts) if text is not None and tokens[place] is None]
        if counted:
            if self.counter is None:
                raise AdacsError("rate.tokenizer is not set, and samples have no recorded lengths")
            lengths = self.counter().count([texts[place] or "" for place in counted])
            for place, (total, inside) in zip(counted, lengths, strict=True):
                tokens[place], think[place] = total, inside
        return tokens, think


DECIDING = ("qid", "source", "draw", "text", "cause", "correct")
"""Columns of schema SAMPLES that verdicts are made from."""

_NARROW = (*DECIDING, "reasoning", "finish_reason", "tokens", "think_tokens")


def never_right(
    config: RateConfig, questions: Mapping[str, Mapping[str, Any]], samples: Path, verifier: Verifier, draws: int
) -> frozenset[str]:
    """The questions whose first ``draws`` replies in a part of samples give a pass rate of 0."""
    rater = Rater(config, questions, verifier, None, trigger_words())
    right: Counter[str] = Counter()
    valid: Counter[str] = Counter()
    for batch in store.batches([samples], DECIDING, ROWS):
        decided = zip(
            batch["qid"].to_pylist(), batch["draw"].to_pylist(), rater.correct(batch, "estimator"), strict=True
        )
        for qid, draw, value in decided:
            if draw < draws:
                right[qid] += value == RIGHT
                valid[qid] += value in (RIGHT, WRONG)
    least = min(config.min_valid, draws)
    return frozenset(qid for qid, count in valid.items() if count >= least and not right[qid])


def _proportion(text: str, tokens: int) -> int:
    """Tokens of thinking where only the whole length was recorded: by its share of the characters."""
    thinking, _ = split(text)
    return round(tokens * len(thinking) / len(text))


def _hwe(column: Any, tau: float, window: int) -> pa.Array:
    if np.isnan(tau) or column.null_count == len(column):
        return pa.nulls(len(column), pa.int32())
    entropy = ragged_of(column)
    counts = hwe(entropy, np.full(entropy.rows, tau), w=window).positions.astype(np.int32)
    return pa.array(counts, pa.int32(), mask=np.asarray(column.is_null()))


def ragged_of(column: Any) -> Ragged:
    """A list column of floats as a Ragged; null rows are empty."""
    lengths = np.asarray(column.value_lengths().fill_null(0))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(np.asarray(column.flatten(), dtype=np.float64), offsets)


def reply_quantiles(column: Any, quantile: float) -> np.ndarray:
    """float64: the quantile of token entropy of each reply that has entropies."""
    found = row_quantiles(ragged_of(column), quantile)
    known: np.ndarray = found[~np.isnan(found)]
    return known


@functools.cache
def trigger_words() -> TriggerWords:
    """The evaluator's list."""
    return read_words()
