"""The watcher: takes pending jobs, oldest step first, evaluates them one by one, and keeps on until it is told to end.

A finished evaluation is never repeated. One that fails is tried again a bounded number of times, other steps first;
then the failure is recorded with its reason, and the watcher goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ares_eval import manifest
from ares_eval.records import RunError
from ares_eval.series import steps
from ares_eval.series.steps import StepResult
from ares_train import checkpoints
from ares_train.checkpoints import CheckpointError
from ares_train.loop import child, consequences, evaluate_checkpoint, gating, queue
from ares_train.loop.child import EvaluationFailed, Interrupted
from ares_train.loop.queue import EVAL, Job
from ares_train.loop.settings import Settings

MOST_DEATHS = 10
"""Tries of one job that may end with the watcher's death: a checkpoint that kills it must not do so for ever."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class End:
    """When to end. ``once``: when nothing is left but what is still being written; ``until_step``: when that step or a
    later one has a result and nothing is pending; ``seconds``: after that time."""

    once: bool = False
    until_step: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """What was done: the results published by this watcher, jobs that are left, and whether the time ran out."""

    results: tuple[StepResult, ...]
    left: tuple[Job, ...]
    timed_out: bool = False


def check(run_dir: Path, settings: Settings, stop: threading.Event) -> None:
    """Refuse what can be known to fail before the first checkpoint is there.

    Raises settings.SettingsError, child.EvaluatorUnusable, child.Interrupted.
    """
    gating.check(settings)
    asked = evaluate_checkpoint.run_settings(run_dir, settings, "model", None)
    child.check(settings.python, asked, run_dir / evaluate_checkpoint.WORK, stop)


def watch(run_dir: Path, settings: Settings, end: End, *, stop: threading.Event, say: Say) -> Watched:
    """Evaluate until ``end``. Raises Interrupted when ``stop`` is set, child.EvaluatorUnusable, queue.QueueError,
    steps.StepFileError and OSError."""
    (run_dir / EVAL).mkdir(parents=True, exist_ok=True)
    consequences.draw(run_dir, settings, say)
    began = time.monotonic()
    done: list[StepResult] = []
    waiting: set[int] = set()
    while True:
        queue.discover(run_dir)
        before = len(done)
        jobs = queue.pending(run_dir)
        again = False
        for job in jobs:
            if stop.is_set():
                raise Interrupted
            outcome = one(run_dir, job.step, settings, stop=stop, say=say, waiting=waiting)
            again = again or outcome in ("failed", "claimed")
            if isinstance(outcome, StepResult):
                done.append(outcome)
                consequences.draw(run_dir, settings, say)
        left = tuple(queue.pending(run_dir))
        if len(done) > before and left:
            continue
        if end.once and not again:
            return Watched(tuple(done), left)
        if end.until_step is not None and not left and max(steps.read_all(run_dir), default=-1) >= end.until_step:
            return Watched(tuple(done), left)
        if end.seconds is not None and time.monotonic() - began > end.seconds:
            return Watched(tuple(done), left, timed_out=True)
        if stop.wait(settings.poll):
            raise Interrupted


def one(
    run_dir: Path, step: int, settings: Settings, *, stop: threading.Event, say: Say, waiting: set[int]
) -> StepResult | str:
    """Evaluate a step's job, if it is complete, still pending and nobody else's: the published result, or why not
    (``claimed``, ``done``, ``writing``, ``replaced``, ``failed``). ``waiting``: steps of which it was said already."""

    def told(line: str) -> None:
        say(f"step {step}: {line}")

    with queue.claim(run_dir, step) as held:
        if held is None:
            if step not in waiting:
                told("another watcher evaluates it")
            waiting.add(step)
            return "claimed"
        job = queue.read_job(run_dir, step)
        if job is None or queue.is_done(run_dir, job):
            return "done"
        complete = queue.complete_job(run_dir, job)
        if complete is None:
            if step not in waiting:
                told("still being written, waiting for it")
            waiting.add(step)
            return "writing"
        waiting.discard(step)
        if (same := _touched(run_dir, complete)) is not None:
            told("its files are new, its weights are not: the result stands")
            return same
        return _try(run_dir, complete, settings, held, stop, told)


def _try(run_dir: Path, job: Job, settings: Settings, held: int, stop: threading.Event, say: Say) -> StepResult | str:
    counted = queue.begin(run_dir, job)
    deaths = counted.begun - 1 - len(counted.failures)
    if len(counted.failures) < settings.tries and deaths < MOST_DEATHS:
        say(f"try {counted.begun} of the evaluation" if counted.begun > 1 else "taken up")
        try:
            result = evaluate_checkpoint.evaluate(
                run_dir, job, settings, tries=counted.begun, held=(held,), stop=stop, say=say
            )
        except (EvaluationFailed, CheckpointError, RunError, OSError) as error:
            counted = queue.failed(run_dir, job, str(error))
            say(f"failed ({len(counted.failures)} of {settings.tries}): {error}")
            if len(counted.failures) < settings.tries:
                return "failed"
        except Interrupted:
            # Asked to stop is no death; the next watcher begins where this one was.
            queue.forget_begin(run_dir, job)
            raise
        except evaluate_checkpoint.WeightsReplaced as error:
            queue.forget_begin(run_dir, job)
            say(str(error))
            return "replaced"
        else:
            if result.status == "complete" or len(counted.failures) + 1 >= settings.tries:
                return publish(run_dir, job, result, settings, say)
            queue.failed(run_dir, job, result.reason)
            say(f"incomplete, asking again for what is missing: {result.reason}")
            return "failed"
    return publish(run_dir, job, _failure(run_dir, job, settings), settings, say)


def publish(run_dir: Path, job: Job, result: StepResult, settings: Settings, say: Say) -> StepResult:
    """Write the step file. The result of weights that are no longer the step's goes to ``superseded``.

    The request to stop is written before it: after a crash between the two both are made again.
    """
    current = queue.read_job(run_dir, job.step)
    file = steps.path(run_dir, job.step)
    if current is not None and current.stamp != job.stamp:
        steps.write(_superseded(run_dir, result), result)
        say("saved again meanwhile: the result of the earlier weights is kept apart")
        return result
    if file.exists() and (older := steps.read(file)).digest != result.digest:
        steps.write(_superseded(run_dir, older), older)
        queue.withdraw_stop(run_dir, job.step, result.digest)
        say(f"replaces the result of other weights ({older.digest[:19]})")
    failed = result.gate is not None and result.gate.verdict == "fail"
    if failed and settings.on_fail == "stop":
        queue.request_stop(run_dir, queue.Stop(job.step, result.digest, _why(result)))
    steps.write(file, result)
    queue.forget_tries(run_dir, job.step)
    say(_summary(result))
    if failed and settings.on_fail != "none":
        say(_why(result))
    return result


def _touched(run_dir: Path, job: Job) -> StepResult | None:
    """The step's result where its weights are the same under newer files: copied, or trained again to the bit."""
    file = steps.path(run_dir, job.step)
    if not file.exists():
        return None
    result = steps.read(file)
    with contextlib.suppress(CheckpointError):
        if result.status == "complete" and checkpoints.digest(queue.pinned(run_dir, job)) == result.digest:
            renewed = msgspec.structs.replace(result, stamp=job.stamp)
            steps.write(file, renewed)
            return renewed
    return None


def _superseded(run_dir: Path, result: StepResult) -> Path:
    name = f"step_{result.step}-{result.digest.rpartition(':')[2][:16] or 'unknown'}.json"
    return run_dir / EVAL / steps.SUPERSEDED / name


def _failure(run_dir: Path, job: Job, settings: Settings) -> StepResult:
    """What is recorded of a job that no try could evaluate."""
    counted = queue.tries(run_dir, job)
    reason = counted.failures[-1] if counted.failures else f"the watcher died {counted.begun - 1} times over it"
    try:
        digest = checkpoints.digest(queue.pinned(run_dir, job))
    except CheckpointError:
        digest = ""
    return StepResult(
        format=steps.FORMAT,
        step=job.step,
        status="failed",
        digest=digest,
        stamp=job.stamp,
        checkpoint=job.checkpoint,
        model=settings.model_name or run_dir.resolve().name,
        reason=reason,
        tries=counted.begun,
        versions=evaluate_checkpoint.versions(),
        trained=job.trained,
        finished=manifest.now(),
    )


def _summary(result: StepResult) -> str:
    if result.status == "failed":
        return f"given up after {result.tries} tries: {result.reason}"
    shown = [f"{name.rpartition('/')[0]} {100 * value:.1f} %" for name, value in result.figures.items()
             if name.endswith("/accuracy")]  # fmt: skip
    seconds = sum(result.seconds.values())
    gate = ""
    if result.gate is not None:
        causes = "".join(f": {line}" for line in result.gate.findings if result.gate.verdict == "incomplete")
        gate = f"; gate: {result.gate.verdict} (against {result.gate.baseline}){causes}"
    return f"{result.status} in {seconds:.0f} s: {', '.join(shown) or 'no accuracy'}{gate}"


def _why(result: StepResult) -> str:
    assert result.gate is not None
    broken = [line for line in result.gate.findings if line.startswith("broken")]
    return f"the gate failed step {result.step} against {result.gate.baseline}: {'; '.join(broken) or 'no detail'}"
