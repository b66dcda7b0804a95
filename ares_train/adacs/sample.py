"""Stage 1, sample: replies of the estimator (pass rate) and of the teacher (traces), part by part.

    estimator   ``draws`` replies a question: asked of a model, or taken from ready-made files
    resample    ``resample`` further ones of questions that the estimator never got right, numbered on
    teacher     replies that may be trained on: another model's, or ready-made

A part is done when all its draws are back; then it is never asked again. ``--executor ray`` spreads parts over Ray's
workers, each by its own manifest (executor_ray.py); engine vllm runs offline batches (offline_vllm.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from ares_eval.config import ConfigError
from ares_eval.verify import VERIFIER_VERSION, Verifier
from ares_train.adacs import store, traces
from ares_train.adacs.asking import AskedSet, ask_parts, expected_tokens, identity_of, served
from ares_train.adacs.config import AdacsConfig, PoolConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout, SampleSet
from ares_train.adacs.rating import never_right
from ares_train.adacs.store import Stage
from ares_train.adacs.ticker import Ticker

LOGS = "logs"
"""Folder of W that gets the logs of servers that we start."""


def run(config: AdacsConfig, work: Path, note: Callable[[str], None]) -> None:
    """Sample all sets. Raises AdacsError, Incomplete, Interrupted."""
    layout = Layout(work)
    store.digest_or(layout.ingest_report, "ingest")
    for name in sets(config):
        run_set(config, layout, name, note)


def sets(config: AdacsConfig) -> list[SampleSet]:
    """The sets that are sampled, in their order."""
    wanted: list[SampleSet] = ["estimator"]
    if config.sample.resample:
        wanted.append("resample")
    if config.sample.teacher is not None:
        wanted.append("teacher")
    return wanted


def run_set(config: AdacsConfig, layout: Layout, name: SampleSet, note: Callable[[str], None]) -> None:
    """Sample one set's parts that are not there yet."""
    pool = pool_config(config, name)
    questions = store.opened(layout.questions)
    if pool.traces:
        traces.run(pool, layout, name, questions, note)
        return
    asked = asked_set(config, layout, name)
    numbers = questions.numbers()
    asked.stage.keep_only(numbers)
    todo = [number for number in numbers if not asked.stage.done(number, asked.inputs(number))]
    if not todo:
        note(f"sample {name}: {len(numbers)} parts are there already")
        return
    if pool.engine == "vllm":
        from ares_train.adacs import offline_vllm

        offline_vllm.run(config, asked, pool, todo, note)
    elif config.sample.executor == "ray":
        from ares_train.adacs import executor_ray

        with served(asked.config, layout.work / LOGS, note) as settings:
            executor_ray.run(config, layout, name, settings.openai_base_url, len(numbers), todo, note)
    else:
        with served(asked.config, layout.work / LOGS, note) as settings:
            ticker = Ticker(f"sample {name}", "draws", _draws(asked, numbers), note)
            ticker.skip(_draws(asked, [n for n in numbers if n not in set(todo)]) or 0)
            ask_parts(replace(asked, config=settings), todo, note, ticker)
    note(f"sample {name}: {len(numbers)} parts are done")


def pool_config(config: AdacsConfig, name: SampleSet) -> PoolConfig:
    """Who answers in a set."""
    pool = config.sample.teacher if name == "teacher" else config.sample.estimator
    assert pool is not None
    return pool


def asked_set(config: AdacsConfig, layout: Layout, name: SampleSet, base_url: str | None = None) -> AskedSet:
    """What a set asks of whom; ``base_url``: of a server that was started for it. Raises AdacsError."""
    pool = pool_config(config, name)
    try:
        settings = pool.run_config()
    except ConfigError as error:
        raise AdacsError(f"sample.{'teacher' if name == 'teacher' else 'estimator'}.{error}") from error
    model = identity_of(settings)
    resampled = name == "resample"
    first, draws = (pool.draws, config.sample.resample) if resampled else (0, pool.draws)
    decides = [config.rate.min_valid, config.rate.trust_source, VERIFIER_VERSION] if resampled else []
    result = settings.digest({}, model.weights)
    questions = store.opened(layout.questions)
    estimator = store.opened(layout.samples("estimator"))

    def inputs(number: int) -> list[str]:
        made_from = [questions.path(number), *([estimator.path(number)] if resampled else [])]
        return [store.digest(path) for path in made_from]

    asked = AskedSet(
        name=name,
        config=settings.replace(openai_base_url=base_url) if base_url else settings,
        model=model,
        stage=Stage(layout.samples(name), store.fingerprint("sample", name, result, first, draws, decides)),
        questions=questions,
        first=first,
        draws=draws,
        max_lost=config.sample.max_lost,
        inputs=inputs,
        expected=lambda number: {} if name == "estimator" else expected_tokens(estimator, number),
        pictures=_pictures(layout),
    )
    if not resampled:
        return asked
    return replace(asked, only=_NeverRight(config, questions, estimator))


@dataclass(frozen=True)
class _NeverRight:
    """The questions of a part that have a pass rate, of 0."""

    config: AdacsConfig
    questions: Stage
    estimator: Stage

    def __call__(self, number: int) -> frozenset[str]:
        if not self.estimator.finished(number):
            raise AdacsError(f"part {number} of the estimator is not sampled, so nothing can be resampled")
        rows = pq.read_table(self.questions.path(number)).to_pylist()
        with Verifier(1) as verifier:
            return never_right(
                self.config.rate,
                {row["qid"]: row for row in rows},
                self.estimator.path(number),
                verifier,
                self.config.sample.estimator.draws,
            )


def _draws(asked: AskedSet, numbers: list[int]) -> int | None:
    if asked.name == "resample":
        return None
    rows = [int(pq.read_metadata(asked.questions.path(number)).num_rows) for number in numbers]
    return asked.draws * sum(rows)


def _pictures(layout: Layout) -> bool:
    """Whether any question has a picture, by ingest's report."""
    report = msgspec.json.decode(layout.ingest_report.read_bytes())
    return any(source["images"] for source in report["sources"].values())
