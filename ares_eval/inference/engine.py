"""The engine: requests in, replies or failures out, in the order in which they come back.

One event loop in a thread of its own speaks the wire; the caller's thread feeds it from an iterator, reads the cache
and yields. At no time are more than ``threads`` requests in flight, and payloads exist only for what is in flight and a
small prefetch. What it promises:

- every request ends in exactly one Reply or Failure, unless the run is stopped; a fault never becomes a reply;
- a permit is free while its request waits to be retried, and Retry-After delays that request only;
- what the cache has is not asked; equal requests, of this process or another, are asked once;
- a reply is kept (in the cache; without one, by the caller) before its permit goes to another request, so a kill
  loses no more than ``threads`` replies.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from ares_eval.inference import failures, likelihood, parameters, wire
from ares_eval.inference.cache import Cache
from ares_eval.inference.exchange import FAULTS, Refused, exchange
from ares_eval.inference.limits import Limits, Start
from ares_eval.inference.retry import Health, backoff
from ares_eval.inference.transport import Transport
from ares_eval.types import Failure, PictureError, Reply, Request, Sampling

ENCODERS = 2
"""Threads that encode pictures: Pillow lets go of the interpreter's lock, so this many cores can work."""

POLL = 0.05
"""Seconds between two looks at requests that another process is asking."""

BREAKER = 8
"""Requests in a row, with no answer between them, that must have failed all their tries before the run is given up."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """``threads``: requests in flight at most. ``max_retries``: after the first try. ``total``: seconds a request may
    take in all, waits included."""

    threads: int = 8
    max_retries: int = 3
    total: float = 7200.0
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Cut out of every message."""


@dataclass(slots=True)
class EngineStatus:
    """Counters for the eye; written by the loop, read by anyone."""

    in_flight: int = 0
    limit: int = 0
    waiting: int = 0
    retries: int = 0
    sent: int = 0
    answered: int = 0
    from_cache: int = 0


@dataclass(slots=True)
class _Job:
    request: Request
    sampling: Sampling
    urls: dict[str, str] = field(default_factory=dict)
    tries: int = 0
    counted: int = 0
    deadline: float | None = None
    sent_with: parameters.ParameterChanges = field(default_factory=parameters.ParameterChanges)


class Engine:
    """Asks one model. Use as a context manager; ``run`` may be called once."""

    def __init__(
        self,
        model: str,
        transport: Callable[[], Transport],
        options: EngineOptions,
        *,
        cache: Cache | None = None,
        before_first: Callable[[], None] = lambda: None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``transport`` is called inside the loop; ``before_first`` in the caller's thread, before anything is sent;
        ``note`` takes lines for people, from any thread."""
        self.model = model
        self.status = EngineStatus()
        self.fatal: Failure | None = None
        """Why the run was given up, where it was."""
        self.vocabulary: int | None = None
        """Size of the model's vocabulary, for upper entropy bounds; may be set until the first request is sent."""
        self.changes = parameters.ParameterChanges()
        """What the server made us rename or drop."""
        self.lowered: dict[str, int] = {}
        """Request key to the ``max_tokens`` that fitted, where it had to be lowered."""
        self.pictures_refused: str | None = None
        self.likelihoods_refused: str | None = None
        """Why no pictures are sent, or likelihoods asked for, where the server takes or gives none."""
        self._make_transport = transport
        self._options = options
        self._cache = cache
        self._before_first = before_first
        self._note = note
        self._outcomes: queue.SimpleQueue[tuple[Request, Reply | Failure] | BaseException] = queue.SimpleQueue()
        self._ready: deque[_Job] = deque()
        self._rng = random.Random()
        self._health = Health()
        self._lost_in_a_row = 0
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None
        self._started = threading.Event()

    # ------------------------------------------------------------ the caller's thread

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._quit.set)
            self._thread.join()

    def drain(self) -> None:
        """Send nothing new; what is in flight is still waited for."""
        self._draining = True
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._drop_ready)

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply | Failure]]:
        """Ask every request; (request, outcome) pairs in order of completion."""
        source = iter(requests)
        window = self._options.threads + max(8, min(64, self._options.threads // 2))
        asking: dict[str, list[Request]] = {}
        elsewhere: deque[Request] = deque()
        exhausted = False
        while True:
            fresh: list[Request] = []
            stopped = self._draining or self.fatal is not None
            while not exhausted and not stopped and len(asking) + len(elsewhere) + len(fresh) < window:
                request = next(source, None)
                if request is None:
                    exhausted = True
                else:
                    fresh.append(request)
            if stopped:
                elsewhere.clear()
            fresh.extend(elsewhere)
            elsewhere.clear()
            if fresh:
                yield from self._admit(fresh, asking, elsewhere)
                if not asking and not elsewhere and not exhausted:
                    continue
            if not asking and not elsewhere:
                if exhausted or stopped:
                    return
                continue
            outcomes = self._collect(asking, POLL if elsewhere else None)
            kept = sum(isinstance(outcome, Reply) for _, outcome in outcomes)
            if self._cache is not None:
                self._free(kept)
            for request, outcome in outcomes:
                for twin in asking.pop(request.key, [request]):
                    yield twin, outcome
            if self._cache is None:
                self._free(kept)

    def _admit(
        self, fresh: list[Request], asking: dict[str, list[Request]], elsewhere: deque[Request]
    ) -> Iterator[tuple[Request, Reply | Failure]]:
        """Answer from the cache what it has, send the rest, put off what another process is asking."""
        mine: list[Request] = []
        for request in fresh:
            if request.key in asking:
                asking[request.key].append(request)
            elif self._cache is None or self._cache.claim(request.key):
                asking[request.key] = [request]
                mine.append(request)
            else:
                elsewhere.append(request)
        # Looked up after the claim: whoever held it before has stored its reply by now.
        found = self._cache.get([request.key for request in mine]) if self._cache is not None else {}
        jobs = []
        for request in mine:
            reply = found.get(request.key)
            if reply is not None:
                assert self._cache is not None
                self._cache.release(request.key)
                for twin in asking.pop(request.key):
                    self.status.from_cache += 1
                    yield twin, reply
            else:
                jobs.append(_Job(request, request.sampling))
        if jobs:
            if self._thread is None:
                self._before_first()
                self._start()
            self._loop.call_soon_threadsafe(self._enter, jobs)

    def _collect(
        self, asking: dict[str, list[Request]], timeout: float | None
    ) -> list[tuple[Request, Reply | Failure]]:
        outcomes: list[tuple[Request, Reply | Failure]] = []
        try:
            # A finite wait keeps the main thread awake to signals while nothing comes back.
            item = self._outcomes.get(timeout=timeout or 0.5)
            while True:
                if isinstance(item, BaseException):
                    raise item
                outcomes.append(item)
                item = self._outcomes.get_nowait()
        except queue.Empty:
            pass
        if self._cache is not None and outcomes:
            self._cache.put(
                (request.key, self.model, outcome) for request, outcome in outcomes if isinstance(outcome, Reply)
            )
            for request, _ in outcomes:
                self._cache.release(request.key)
        if not outcomes and self._idle():
            # Nothing is under way any more: what is left was dropped by a stop.
            for key in asking:
                if self._cache is not None:
                    self._cache.release(key)
            asking.clear()
        return outcomes

    def _free(self, kept: int) -> None:
        """Replies are kept now: their permits may go to others."""
        if kept:
            self._loop.call_soon_threadsafe(self._release, kept)

    def _idle(self) -> bool:
        return (self._draining or self.fatal is not None) and not self._tasks and self._outcomes.empty()

    # ------------------------------------------------------------ the loop's thread

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="ares-wire", daemon=True)
        self._thread.start()
        self._started.wait()

    def _serve(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - whatever ends the loop must reach the caller's thread
            self._outcomes.put(error)
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._quit = asyncio.Event()
        self._limits = Limits(self._options.threads, now=self._loop.time())
        self._encoding = asyncio.Semaphore(2 * ENCODERS)
        self._workers = ThreadPoolExecutor(ENCODERS, thread_name_prefix="ares-encode")
        # Decoding holds the interpreter's lock: a second thread would only thrash its caches.
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="ares-decode")
        self._transport = self._make_transport()
        self._started.set()
        try:
            await self._quit.wait()
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._transport.close()
            self._workers.shutdown(wait=False, cancel_futures=True)
            self._decoder.shutdown(wait=False, cancel_futures=True)

    def _enter(self, jobs: list[_Job]) -> None:
        for job in jobs:
            if any(not isinstance(part, str) for message in job.request.messages for part in message.parts):
                self._spawn(self._prepare(job))
            else:
                self._ready.append(job)
        self._pump()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._outcomes.put(error)

    async def _prepare(self, job: _Job) -> None:
        """Encode the job's pictures before it asks for a permit."""
        pictures = [part for message in job.request.messages for part in message.parts if not isinstance(part, str)]
        if self.pictures_refused is not None:
            self._finish(job, Failure("unsupported_input", self.pictures_refused, attempts=0))
            return
        try:
            async with self._encoding:
                job.urls = await self._loop.run_in_executor(self._workers, wire.data_urls, pictures)
        except (PictureError, OSError) as error:
            self._finish(job, Failure("picture", str(error), attempts=0))
            return
        self._ready.append(job)
        self._pump()

    def _pump(self) -> None:
        """Start whatever may start now."""
        if self._draining or self.fatal is not None:
            self._drop_ready()
        now = self._loop.time()
        while self._ready:
            wait = self._limits.wait(now)
            if wait > 0.0:
                if wait != float("inf") and self._timer is None:
                    self._timer = self._loop.call_later(wait, self._tick)
                break
            job = self._ready.popleft()
            if job.request.ask == "likelihood" and self.likelihoods_refused is not None:
                self._without_likelihoods(job, self.likelihoods_refused)
                continue
            self._spawn(self._try(job, self._limits.start(now)))
        self._show()

    def _tick(self) -> None:
        self._timer = None
        self._pump()

    def _show(self) -> None:
        self.status.in_flight = self._limits.in_flight
        self.status.limit = int(self._limits.limit)
        self.status.waiting = len(self._ready)

    def _drop_ready(self) -> None:
        self._ready.clear()

    async def _try(self, job: _Job, start: Start) -> None:
        """One try of one request; its permit is held from here to the answer."""
        started = self._loop.time()
        if job.deadline is None:
            job.deadline = started + self._options.total
        job.tries += 1
        job.sent_with = self.changes
        self.status.sent += 1
        holding = True
        try:
            reply = await exchange(
                self._transport,
                self.model,
                job.request,
                job.sampling,
                job.sent_with,
                job.urls,
                vocabulary=self.vocabulary,
                deadline=job.deadline,
                decoders=self._decoder,
            )
        except FAULTS as error:
            problem = error.answer if isinstance(error, Refused) else error
            fault = failures.classify(problem, secrets=self._options.secrets)
            now = self._loop.time()
            self._health.note(False)
            if fault.status == 429:
                self._limits.throttled(start, now)
            elif fault.status == 503:
                self._limits.overloaded(start, now)
            self._release(1)
            holding = False
            self._after_fault(job, fault)
        else:
            self._health.note(True)
            self._lost_in_a_row = 0
            self.status.answered += 1
            self._limits.succeeded()
            latency = self._loop.time() - started
            holding = False
            self._finish(job, replace(reply, latency=latency, attempts=job.tries))
        finally:
            if holding:
                self._release(1)
            self._pump()

    def _release(self, permits: int) -> None:
        for _ in range(permits):
            self._limits.release()
        self._pump()

    def _after_fault(self, job: _Job, fault: failures.Fault) -> None:
        """Adapt, retry or give up."""
        if job.request.ask == "likelihood" and likelihood.is_refusal(fault.cause, fault.status):
            self._without_likelihoods(job, fault.message)
            return
        if fault.fatal or (fault.cause == "no_logprobs" and not self.status.answered):
            self._give_up(job, fault)
            return
        if fault.cause == "unsupported_input" and self.pictures_refused is None:
            self.pictures_refused = fault.message
            self._note(f"the server takes no pictures: {fault.message}")
        if self._adapted(job, fault):
            self._ready.appendleft(job)
            return
        now = self._loop.time()
        assert job.deadline is not None
        if fault.retry and (not fault.counts or job.counted < self._options.max_retries):
            job.counted += fault.counts
            wait = fault.retry_after
            if wait is None:
                wait = backoff(job.counted, healthy=self._health.good, rng=self._rng)
            if now + wait < job.deadline:
                self.status.retries += 1
                self._loop.call_later(wait, self._again, job)
                return
        self._finish(job, Failure(fault.cause, fault.message, fault.status, job.tries))
        if fault.retry:
            self._lost_in_a_row += 1
            if self._lost_in_a_row >= max(BREAKER, min(self._options.threads, 4 * BREAKER)):
                self.fatal = Failure(
                    fault.cause,
                    f"{self._lost_in_a_row} requests in a row were not answered in any of their tries; "
                    f"the last: {fault.message}",
                    fault.status,
                    fatal=True,
                )

    def _adapted(self, job: _Job, fault: failures.Fault) -> bool:
        """Whether the request is worth sending again at once, because what was refused in it has been changed."""
        if fault.parameter is not None:
            if job.sent_with != self.changes:
                return True
            changes = parameters.adapt(fault, self.changes, job.sampling)
            if changes is not None:
                self.changes = changes
                self._note(f"{self.model}: {', '.join(changes.describe())} ({fault.message})")
                return True
        prompt_tokens = parameters.estimate_prompt_tokens(job.request.messages)
        fitting = parameters.fit_max_tokens(fault, job.sampling, prompt_tokens=prompt_tokens)
        if fitting is not None:
            job.sampling = replace(job.sampling, max_tokens=fitting)
            self.lowered[job.request.key] = fitting
            return True
        return False

    def _again(self, job: _Job) -> None:
        if self._draining or self.fatal is not None:
            return
        self._ready.appendleft(job)
        self._pump()

    def _give_up(self, job: _Job, fault: failures.Fault) -> None:
        failure = Failure(fault.cause, fault.message, fault.status, job.tries, fatal=True)
        self.fatal = self.fatal or failure
        self._finish(job, failure)

    def _without_likelihoods(self, job: _Job, reason: str) -> None:
        words = likelihood.refusal(job.request.task, reason)
        if self.likelihoods_refused is None:
            self.likelihoods_refused = reason
            self._note(words)
        self._finish(job, Failure("unsupported_input", words, attempts=job.tries))

    def _finish(self, job: _Job, outcome: Reply | Failure) -> None:
        job.urls = {}
        self._outcomes.put((job.request, outcome))
