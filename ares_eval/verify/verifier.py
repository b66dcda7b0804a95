"""The verifier: from a response, a reference and an answer spec to a verdict.

Most pairs are decided at once in the caller's thread, without sympy. Only questions of algebra go to the pool of
killable workers, which starts with the first of them. A response without any answer (nothing outside its thinking, an
empty box) is ``incorrect`` with the reason ``no_answer``: a measured reply that answers nothing is not correct.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ares_eval.types import AnswerSpec, Verdict
from ares_eval.verify.decision import Algebra, Decision
from ares_eval.verify.limits import CPU_SECONDS, MEMORY_BYTES
from ares_eval.verify.version import VERIFIER_VERSION

if TYPE_CHECKING:
    from ares_eval.verify.judgement import Judgement, Open
    from ares_eval.verify.pool import Pool

CACHED_QUESTIONS = 65_536


class Verifier:
    """Judges pairs from any thread. Use as a context manager, or call ``close``: no child process is left behind.

    ``workers``: processes for algebra (default: one per processor, at most 8). ``cpu_seconds``: CPU time of one
    question; the wall limit is four times that.
    """

    def __init__(
        self, workers: int | None = None, *, cpu_seconds: float = CPU_SECONDS, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.workers = workers or min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
        self.cpu_seconds = cpu_seconds
        self.memory_bytes = memory_bytes
        self._pool: Pool | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._known: OrderedDict[Algebra, Future[Decision]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers. Later questions of algebra raise RuntimeError; fast pairs are still decided."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def verify(
        self, response: str, reference: str | Sequence[str], spec: AnswerSpec, *, question: str | None = None
    ) -> Verdict:
        """The verdict; blocks until it is there. Raises RuntimeError where no worker can be started."""
        return self.submit(response, reference, spec, question=question).result()

    def submit(
        self, response: str, reference: str | Sequence[str], spec: AnswerSpec, *, question: str | None = None
    ) -> Future[Verdict]:
        """A future of the verdict, done already for every pair that needs no algebra.

        Under asyncio, await ``asyncio.wrap_future(verifier.submit(...))``.
        """
        from ares_eval.verify.judgement import judge

        began = time.perf_counter()
        references = (reference,) if isinstance(reference, str) else tuple(reference)
        future: Future[Verdict] = Future()
        judgement = judge(response, references, spec, question)
        self._advance(judgement, future, began)
        return future

    def _advance(self, judgement: Judgement, future: Future[Verdict], began: float) -> None:
        """Ask algebra one open question after the other until the judgement is closed."""
        asked = judgement.open
        if asked is None:
            seconds = time.perf_counter() - began
            future.set_result(replace(judgement.verdict(), version=VERIFIER_VERSION, seconds=round(seconds, 6)))
            return

        def answered(done: Future[Decision]) -> None:
            try:
                self._advance(judgement.answered(asked, done.result()), future, began)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who waits for the verdict
                future.set_exception(error)

        try:
            self._ask(asked).add_done_callback(answered)
        except RuntimeError as error:
            future.set_exception(error)

    def _ask(self, asked: Open) -> Future[Decision]:
        """The same question is asked once; timeouts are not remembered."""
        question = asked.question
        with self._lock:
            known = self._known.get(question)
            if known is not None and not (known.done() and (known.exception() or known.result().reason == "timeout")):
                self._known.move_to_end(question)
                return known
            if self._closed:
                raise RuntimeError("the verifier is closed")
            if self._pool is None:
                from ares_eval.verify.pool import Pool

                self._pool = Pool(self.workers, self.cpu_seconds, self.memory_bytes)
            future = self._pool.submit(question)
            self._known[question] = future
            while len(self._known) > CACHED_QUESTIONS:
                self._known.popitem(last=False)
        return future


_shared: Verifier | None = None
_shared_pid = 0
_shared_lock = threading.Lock()


def shared_verifier() -> Verifier:
    """One verifier for this process, made at first use and closed at exit; a forked child makes its own."""
    import atexit

    global _shared, _shared_pid
    with _shared_lock:
        if _shared is None or _shared_pid != os.getpid():
            _shared, _shared_pid = Verifier(), os.getpid()
            atexit.register(_shared.close)
        return _shared


def verify(response: str, reference: str | Sequence[str], spec: AnswerSpec, *, question: str | None = None) -> Verdict:
    """Judge one response.

    ``response`` is the model's whole reply, thinking included: what stands inside think tags is not read, and an
    unclosed think block is no answer. No answer at all is ``incorrect`` with the reason ``no_answer``;
    ``unverifiable`` (reasons ambiguous, unparsed, over_budget, timeout, needs_judge) means that rules cannot tell.
    ``reference``: the expected answer, or several of which any is accepted. ``question`` helps a few policies (a
    percentage is asked for). Uses a verifier shared by the process.
    """
    return shared_verifier().verify(response, reference, spec, question=question)
