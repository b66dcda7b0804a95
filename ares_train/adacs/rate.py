"""Stage 2 and 3, rate: each reply's verdict and length, each question's pass rate.

Parts are rated in as many processes as wanted, each part by its own manifest. HWE positions are counted against one
threshold a pool, tau = the mean over all replies of their own 0.95 quantile of token entropy (paper, equation 3), so
entropies, where there are any, are read twice: once for tau, once for the counts.

A question's pass rate is p = right / (right + wrong) over the estimator's first draws: unverifiable and unmeasured ones
count on neither side. With fewer than ``min_valid`` of them it has none and is dropped with the reason; with fewer than
were asked for its tier is that of the rounded p, flagged ``few_valid``.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ares_eval.analysis.words import DEFAULT_LIST
from ares_eval.verify import VERIFIER_VERSION, Verifier
from ares_train.adacs import schemas, store
from ares_train.adacs.config import AdacsConfig, RateConfig
from ares_train.adacs.counting import TokenCounter
from ares_train.adacs.errors import AdacsError, Incomplete
from ares_train.adacs.layout import SAMPLE_SETS, Layout, Pool, SampleSet, pool_of
from ares_train.adacs.rating import ROWS, Rater, reply_quantiles, trigger_words
from ares_train.adacs.schemas import NOT_MEASURED, RIGHT, UNVERIFIABLE, WRONG
from ares_train.adacs.store import Stage
from ares_train.adacs.ticker import Ticker


@dataclass(frozen=True)
class RateJob:
    """One part to be rated: its questions, its samples by set, and where the rows go."""

    number: int
    questions: Path
    samples: tuple[tuple[SampleSet, Path], ...]
    stage: Stage
    inputs: tuple[str, ...]
    work: Path
    config: RateConfig
    tau: dict[Pool, float]


def run(config: AdacsConfig, work: Path, note: Callable[[str], None]) -> None:
    """Rate all parts that are sampled. Raises AdacsError, Incomplete."""
    layout = Layout(work)
    store.digest_or(layout.ingest_report, "ingest")
    questions = store.opened(layout.questions)
    sets = _sets(config, layout)
    numbers = [n for n in questions.numbers() if all(stage.finished(n) for stage in sets.values())]
    missing = len(questions.numbers()) - len(numbers)
    if missing and not (config.rate.partial and numbers):
        raise Incomplete(
            f"{missing} of {len(questions.numbers())} parts are not sampled: run `ares-train adacs sample` to its end"
            " (or set rate.partial)"
        )
    tau = _thresholds(config, sets, numbers)
    stage = Stage(layout.rated, _fingerprint(config, tau))
    jobs = [_job(config, layout, questions, sets, stage, tau, number) for number in numbers]
    settings = store.fingerprint("rates", stage.fingerprint, config.rate.min_valid, config.sample.estimator.draws)
    todo = [job for job in jobs if not stage.done(job.number, job.inputs)]
    if todo:
        store.begin_artifact(layout.rates)
    _rate_all(config.rate, todo, len(jobs) - len(todo), note)
    stage.keep_only(numbers)
    inputs = [store.digest(stage.path(number)) for number in numbers]
    if store.artifact_done(layout.rates, settings, inputs):
        note(f"rate: {len(numbers)} parts are there already")
        return
    store.begin_artifact(layout.rates)
    found = _Found(config.sample.estimator.draws, config.rate.min_valid)
    for number in numbers:
        found.add(stage.path(number), pq.read_table(questions.path(number), columns=["qid", "source", "modality"]))
    rated = sum(table.num_rows for table in found.rates)
    if not rated:
        trusted = config.rate.trust_source and found.dropped_for["unverifiable"]
        hint = "; rate.trust_source gives none: the estimator's traces need recorded verdicts" if trusted else ""
        raise AdacsError(f"no question has a pass rate: {_told(found.dropped_for)}{hint}")
    dropped = pa.Table.from_pylist(found.dropped, schema=schemas.DROPPED)
    store.write_artifact(layout.rate_drops, dropped, settings, inputs, schema=schemas.DROPPED)
    report = _report(config, found, tau, len(numbers), missing)
    store.write_artifact(layout.rate_report, report, settings, inputs)
    # Last: it says that all of the above is there.
    store.write_artifact(layout.rates, pa.concat_tables(found.rates), settings, inputs, schema=schemas.RATES)
    note(f"rate: {rated} questions have a pass rate, {len(found.dropped)} have none ({_told(found.dropped_for)})")


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common()) or "none"


def _sets(config: AdacsConfig, layout: Layout) -> dict[SampleSet, Stage]:
    wanted: dict[SampleSet, bool] = {
        "estimator": True,
        "resample": config.sample.resample > 0,
        "teacher": config.sample.teacher is not None,
    }
    return {name: store.opened(layout.samples(name)) for name in SAMPLE_SETS if wanted[name]}


def _fingerprint(config: AdacsConfig, tau: dict[Pool, float]) -> str:
    """Of all that changes a rated row."""
    rate = replace(config.rate, workers=1, partial=False, min_valid=1)
    words = store.file_digest(DEFAULT_LIST)
    return store.fingerprint("rate", rate, VERIFIER_VERSION, words, {pool: repr(value) for pool, value in tau.items()})


def _job(
    config: AdacsConfig,
    layout: Layout,
    questions: Stage,
    sets: dict[SampleSet, Stage],
    stage: Stage,
    tau: dict[Pool, float],
    number: int,
) -> RateJob:
    samples = tuple((name, held.path(number)) for name, held in sets.items())
    inputs = (store.digest(questions.path(number)), *(store.digest(path) for _, path in samples))
    return RateJob(
        number=number,
        questions=questions.path(number),
        samples=samples,
        stage=stage,
        inputs=inputs,
        work=layout.work,
        config=config.rate,
        tau=tau,
    )


# ---------------------------------------------------------------- the threshold of HWE


def _thresholds(config: AdacsConfig, sets: dict[SampleSet, Stage], numbers: Sequence[int]) -> dict[Pool, float]:
    """tau of each pool in nats; NaN where no reply has entropies."""
    sums: dict[Pool, list[float]] = {}
    for name, stage in sets.items():
        total, count = 0.0, 0
        for batch in store.batches((stage.path(number) for number in numbers), ["entropy"], ROWS):
            column = batch.column("entropy")
            if column.null_count < len(column):
                quantiles = reply_quantiles(column, config.rate.quantile)
                total, count = total + float(quantiles.sum()), count + len(quantiles)
        known = sums.setdefault(pool_of(name), [0.0, 0.0])
        known[0], known[1] = known[0] + total, known[1] + count
    return {pool: total / count if count else math.nan for pool, (total, count) in sums.items()}


# ---------------------------------------------------------------- parts


def _rate_all(config: RateConfig, jobs: Sequence[RateJob], done: int, note: Callable[[str], None]) -> None:
    ticker = Ticker("rate", "parts", done + len(jobs), note)
    ticker.skip(done)
    workers = min(config.workers, len(jobs))
    if workers <= 1:
        with _worker(config):
            for job in jobs:
                ticker.add(1, f"{rate_part(job)} replies in the last one")
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(config,)) as pool:
        for replies in pool.map(rate_part, jobs):
            ticker.add(1, f"{replies} replies in the last one")


_ready: tuple[Verifier, Callable[[], TokenCounter] | None] | None = None


@contextlib.contextmanager
def _worker(config: RateConfig) -> Iterator[None]:
    """Verifier and tokenizer of this process."""
    global _ready
    with Verifier() as verifier:
        _ready = verifier, _counter(config)
        try:
            yield
        finally:
            _ready = None


def _begin(config: RateConfig) -> None:
    """Make a worker process ready; its verifier's own processes end with it."""
    global _ready
    import atexit

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    verifier = Verifier(workers=1)
    atexit.register(verifier.close)
    _ready = verifier, _counter(config)


def _counter(config: RateConfig) -> Callable[[], TokenCounter] | None:
    """The tokenizer, loaded when it is first asked for: recorded lengths need none."""
    name = config.tokenizer
    return None if name is None else functools.cache(lambda: TokenCounter(name, config.tokenizer_revision))


def rate_part(job: RateJob) -> int:
    """Rate and write one part; the number of its replies."""
    assert _ready is not None
    verifier, counter = _ready
    columns = ["qid", "modality", "messages", "references", "answer_type", "answer_policy", "choices"]
    rows = pq.read_table(job.questions, columns=columns).to_pylist()
    rater = Rater(job.config, {row["qid"]: row for row in rows}, verifier, counter, trigger_words())
    manifest = job.stage.write(job.number, _rated(job, rater), schemas.RATED, job.inputs)
    return manifest.rows


def _rated(job: RateJob, rater: Rater) -> Iterator[pa.RecordBatch]:
    for name, path in job.samples:
        pool = pool_of(name)
        held: list[pa.RecordBatch] = []
        for batch in store.batches([path], rows=ROWS):
            held.append(rater.rate(batch, pool, path.relative_to(job.work).as_posix(), job.tau[pool]))
        # One row group a set: rated rows are narrow, and readers want them in few pieces.
        if held:
            yield pa.Table.from_batches(held, schemas.RATED).combine_chunks().to_batches()[0]


# ---------------------------------------------------------------- pass rates


class _Found:
    """Rates and drops, part by part."""

    def __init__(self, draws: int, min_valid: int) -> None:
        self._draws, self._min_valid = draws, min_valid
        self.rates: list[pa.Table] = []
        self.dropped: list[dict[str, Any]] = []
        self.dropped_for: Counter[str] = Counter()
        self.verdicts: dict[str, Counter[int]] = {}
        self.reasons: Counter[str] = Counter()

    def add(self, rated: Path, questions: pa.Table) -> None:
        """The rated part of these questions."""
        table = pq.read_table(rated, columns=["qid", "pool", "draw", "correct", "reason"])
        for row in table.group_by(["pool", "correct"]).aggregate([("qid", "count")]).to_pylist():
            self.verdicts.setdefault(row["pool"], Counter())[row["correct"]] += row["qid_count"]
        for row in table.group_by("reason").aggregate([("qid", "count")]).to_pylist():
            if row["reason"] is not None:
                self.reasons[row["reason"]] += row["qid_count"]
        counted = table.filter((pc.field("pool") == "estimator") & (pc.field("draw") < self._draws))
        place = pc.index_in(counted["qid"], value_set=questions["qid"].combine_chunks()).to_numpy()
        correct = counted["correct"].to_numpy()
        size = questions.num_rows

        def count(value: int) -> np.ndarray:
            return np.bincount(place[correct == value], minlength=size)

        right, wrong, unverifiable = count(RIGHT), count(WRONG), count(UNVERIFIABLE)
        valid = right + wrong
        rateable = valid >= min(self._min_valid, self._draws)
        self.rates.append(rates_table(questions, right, valid, rateable, self._draws))
        asked = np.bincount(place, minlength=size)
        for at in np.flatnonzero(~rateable).tolist():
            reason = _no_rate(int(valid[at]), int(unverifiable[at]), int(asked[at]))
            self.dropped.append({"qid": questions["qid"][at].as_py(), "reason": reason})
            self.dropped_for[reason] += 1


def _no_rate(valid: int, unverifiable: int, asked: int) -> str:
    if valid:
        return "few_valid"
    if unverifiable:
        return "unverifiable"
    return "not_measured" if asked else "not_sampled"


def rates_table(questions: pa.Table, right: np.ndarray, valid: np.ndarray, kept: np.ndarray, draws: int) -> pa.Table:
    """Schema RATES for the questions that are ``kept``; ``right`` and ``valid`` int [Q] counts of draws."""
    questions, right, valid = questions.filter(pa.array(kept)), right[kept], valid[kept]
    return pa.table(
        {
            "qid": questions["qid"],
            "source": questions["source"],
            "modality": questions["modality"],
            "n_valid": pa.array(valid, pa.int16()),
            "n_correct": pa.array(right, pa.int16()),
            "p": pa.array(right / valid, pa.float64()),
            # Round half up, in whole numbers.
            "tier": pa.array((16 * right + valid) // (2 * valid), pa.int8()),
            "flags": pa.array(["few_valid" if few else "" for few in (valid < draws).tolist()], pa.string()),
        },
        schema=schemas.RATES,
    )


def _report(config: AdacsConfig, found: _Found, tau: dict[Pool, float], parts: int, missing: int) -> dict[str, Any]:
    names = {RIGHT: "right", WRONG: "wrong", UNVERIFIABLE: "unverifiable", NOT_MEASURED: "not_measured"}
    return {
        "parts": parts,
        "parts_not_sampled": missing,
        "rated": sum(table.num_rows for table in found.rates),
        "dropped": dict(found.dropped_for),
        "verdicts": {
            pool: {names[value]: count for value, count in sorted(counts.items())}
            for pool, counts in sorted(found.verdicts.items())
        },
        "reasons": dict(sorted(found.reasons.items())),
        "tokenizer": config.rate.tokenizer,
        "verifier": VERIFIER_VERSION,
        "tau": {pool: None if math.isnan(value) else value for pool, value in tau.items()},
    }
