"""Asks a model for the draws of question parts, through the evaluator's engine: cache, retries, permits, any server.

Requests of all parts run in one stream, so that nothing waits at a part's end; within a part the longest answers are
asked for first where an estimate is known. Every reply is kept in the part's partial file before the next request is
sent (partial.py); a part is written when its last draw is back.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ares_eval import interrupts, plan
from ares_eval.config import RunConfig
from ares_eval.connection import allow_open_files, endpoint_of, secrets_of, transport_of
from ares_eval.inference.cache import Cache, CacheError
from ares_eval.inference.engine import Engine, EngineOptions
from ares_eval.types import Failure, PictureError, Reply, Request
from ares_train.adacs import schemas, store
from ares_train.adacs.errors import AdacsError, Incomplete, Interrupted
from ares_train.adacs.layout import SampleSet
from ares_train.adacs.partial import Partial, Sampled
from ares_train.adacs.questions import sample_of
from ares_train.adacs.store import Stage
from ares_train.adacs.ticker import Ticker


@dataclass(frozen=True)
class AskedSet:
    """What one set of samples asks. ``first``: number of its first draw; ``draws``: how many of each question.

    ``only``: the questions of a part that are asked (None: all), given the part's number. ``expected``: tokens that a
    part's questions are expected to take, as far as known.
    """

    name: SampleSet
    config: RunConfig
    model: plan.ModelIdentity
    stage: Stage
    questions: Stage
    first: int
    draws: int
    max_lost: float
    inputs: Callable[[int], list[str]]
    only: Callable[[int], frozenset[str] | None] = field(default=lambda _: None)
    expected: Callable[[int], Mapping[str, float]] = field(default=lambda _: {})
    pictures: bool = False


@contextlib.contextmanager
def served(config: RunConfig, log_dir: Path, note: Callable[[str], None]) -> Iterator[RunConfig]:
    """The settings with the address of the server that ``serve`` names, started for the block; else as they are."""
    if config.serve is None:
        yield config
        return
    from ares_eval.inference import servers

    log_dir.mkdir(parents=True, exist_ok=True)
    try:
        with servers.start(
            config.serve,
            extra_args=config.serve_args,
            log_dir=log_dir,
            model_name=config.model_name,
            notify=note,
        ) as server:
            try:
                yield config.replace(
                    openai_base_url=server.base_url,
                    vocabulary_size=config.vocabulary_size or server.vocabulary,
                )
            except Incomplete as error:
                death = server.death()
                raise Incomplete(f"{error}; {' '.join(death.split())}" if death else str(error)) from error
    except (servers.ServeSpecError, servers.ServerFailed) as error:
        raise AdacsError(str(error)) from error


class _Part:
    """A part that is being asked."""

    def __init__(self, asked: AskedSet, number: int) -> None:
        self.number = number
        table = pq.read_table(asked.questions.path(number))
        self.source = dict(zip(table["qid"].to_pylist(), table["source"].to_pylist(), strict=True))
        only = asked.only(number)
        self.rows = [row for row in table.to_pylist() if only is None or row["qid"] in only]
        draws = range(asked.first, asked.first + asked.draws)
        self.wanted = [(row["qid"], draw) for row in self.rows for draw in draws]
        self.partial = partial_of(asked, number)
        self.open = sum(draw not in self.partial for draw in self.wanted)

    def lost(self) -> Counter[str]:
        """Draws that were not measured, by cause."""
        return Counter(self.partial.causes.values())


def partial_of(asked: AskedSet, number: int) -> Partial:
    """The replies of a part that is still being asked, those of other settings or questions left out."""
    made_for = store.fingerprint(asked.stage.fingerprint, asked.inputs(number))
    return Partial(asked.stage.folder / f"part-{number:05}.partial.jsonl", made_for)


def ask_parts(asked: AskedSet, numbers: list[int], note: Callable[[str], None], ticker: Ticker | None = None) -> None:
    """Ask and write the parts of these numbers. Raises Incomplete, Interrupted; what came back is kept either way."""
    _Asking(asked, note, ticker).ask(numbers)


class _Asking:
    def __init__(self, asked: AskedSet, note: Callable[[str], None], ticker: Ticker | None) -> None:
        self._asked, self._note, self._ticker = asked, note, ticker
        self._open: dict[int, _Part] = {}
        self._part_of: dict[str, int] = {}
        self._undone: dict[int, Counter[str]] = {}
        self._stack = ExitStack()

    def ask(self, numbers: list[int]) -> None:
        config = self._asked.config
        with self._stack as stack:
            allow_open_files(config.eval_threads)
            cache = None
            if not config.no_cache:
                try:
                    cache = stack.enter_context(contextlib.closing(Cache(config.cache_folder())))
                except CacheError as error:
                    raise AdacsError(str(error)) from error
            endpoint = endpoint_of(config)
            engine = Engine(
                config.model_name,
                lambda: transport_of(config, endpoint),
                EngineOptions(config.eval_threads, config.max_retries, secrets=secrets_of(config, endpoint)),
                cache=cache,
                before_first=lambda: self._meet(engine),
                note=self._note,
            )
            engine.vocabulary = config.vocabulary_size
            stack.enter_context(engine)

            def drain() -> None:
                self._note(interrupts.DRAINING)
                engine.drain()

            with interrupts.asked_to_stop(drain) as interrupted:
                for request, outcome in engine.run(self._requests(numbers)):
                    self._take(_sampled(request, outcome))
                    status = engine.status
                    self._tick(1, f"{status.in_flight} in flight, {status.retries} retries")
            fatal = engine.fatal
        if interrupted.is_set():
            raise Interrupted(f"sample {self._asked.name}: interrupted; the same command goes on from here")
        if fatal is not None:
            raise Incomplete(f"sample {self._asked.name}: stopped: {fatal.message}")
        if self._undone:
            number, causes = next(iter(self._undone.items()))
            told = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
            raise Incomplete(
                f"sample {self._asked.name}: {len(self._undone)} parts lost more than sample.max_lost of their draws "
                f"(part {number}: {told}); the same command asks for those again"
            )

    def _requests(self, numbers: list[int]) -> Iterator[Request]:
        asked, config = self._asked, self._asked.config
        for number in numbers:
            part = _Part(asked, number)
            self._stack.callback(part.partial.__exit__)
            self._tick_skipped(len(part.wanted) - part.open)
            if not part.open:
                self._finish(part)
                continue
            self._open[number] = part
            expected = asked.expected(number)
            for row in sorted(part.rows, key=lambda row: -expected.get(row["qid"], 0.0)):
                qid = row["qid"]
                draws = range(asked.first, asked.first + asked.draws)
                todo = [draw for draw in draws if (qid, draw) not in part.partial]
                if not todo:
                    continue
                self._part_of[qid] = number
                sample = sample_of(row, f"adacs/{asked.name}")
                try:
                    prompt = plan.prompt(sample, config)
                except (PictureError, OSError):
                    for draw in todo:
                        self._take(Sampled(qid=qid, draw=draw, cause="picture"))
                    self._tick(len(todo))
                    continue
                yield from plan.requests(sample, prompt, asked.model, config, iter(todo))
            part.rows = []

    def _take(self, sampled: Sampled) -> None:
        part = self._open[self._part_of[sampled.qid]]
        part.partial.add(sampled)
        part.open -= 1
        if not part.open:
            del self._open[part.number]
            self._finish(part)

    def _finish(self, part: _Part) -> None:
        lost = part.lost()
        if lost.total() > self._asked.max_lost * len(part.wanted):
            self._undone[part.number] = lost
            return
        batches = part.partial.batches(part.wanted, part.source)
        self._asked.stage.write(part.number, batches, schemas.SAMPLES, self._asked.inputs(part.number))
        part.partial.remove()

    def _meet(self, engine: Engine) -> None:
        """Before the first request: does the server take pictures, where there are any?"""
        if not self._asked.pictures:
            return
        from ares_eval.inference import probe

        config = self._asked.config
        if probe.meet(endpoint_of(config), config.model_name, pictures=True).pictures is False:
            engine.pictures_refused = "the server takes no pictures"
            self._note(f"{config.model_name} takes no pictures: such questions are not measured")

    def _tick(self, count: int, more: str = "") -> None:
        if self._ticker is not None:
            self._ticker.add(count, more)

    def _tick_skipped(self, count: int) -> None:
        if self._ticker is not None:
            self._ticker.skip(count)


def _sampled(request: Request, outcome: Reply | Failure) -> Sampled:
    common: dict[str, Any] = {
        "qid": request.sample,
        "draw": request.draw,
        "seed": request.sampling.seed,
        "key": request.key,
    }
    if isinstance(outcome, Failure):
        return Sampled(**common, cause=outcome.cause)
    entropy = None
    if outcome.trace is not None:
        entropy = np.asarray(outcome.trace.entropy_low, dtype="<f4").tobytes()
    return Sampled(
        **common,
        text=outcome.text,
        reasoning=outcome.reasoning,
        finish_reason=outcome.finish_reason,
        completion_tokens=None if outcome.usage.estimated else outcome.usage.completion,
        entropy=entropy,
    )


def identity_of(config: RunConfig) -> plan.ModelIdentity:
    """Which weights answer. Raises AdacsError where ``serve`` names none."""
    weights = None
    if config.serve is not None:
        from ares_eval.inference import servers

        try:
            weights = servers.weights_digest(config.serve)
        except (servers.ServeSpecError, OSError) as error:
            raise AdacsError(str(error)) from error
    return plan.ModelIdentity(config.model_name, config.model_revision, weights)


def expected_tokens(stage: Stage, number: int) -> Mapping[str, float]:
    """Mean tokens of each question's replies in a finished part, as the server counted; empty where there is none."""
    if not stage.finished(number):
        return {}
    table = pq.read_table(stage.path(number), columns=["qid", "completion_tokens"])
    means = table.group_by("qid").aggregate([("completion_tokens", "mean")])
    pairs = zip(means["qid"].to_pylist(), means["completion_tokens_mean"].to_pylist(), strict=True)
    return {qid: mean for qid, mean in pairs if mean is not None}
