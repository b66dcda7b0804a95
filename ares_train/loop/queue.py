"""Jobs as files: what is to be evaluated, who evaluates it, and what became of it.

    RUN/eval/queue/step_N.json    the job: a checkpoint with its pin and the stamp of its files, written whole
    RUN/eval/queue/step_N.lock    held by whoever evaluates the step; the kernel lets go of it when that process dies
    RUN/eval/queue/step_N.tries   how often the evaluation was begun, and how it failed
    RUN/eval/pinned/step_N-STAMP  hard links to the checkpoint's files, until it is evaluated
    RUN/eval/step_N.json          the result (ares_eval.series.steps)
    RUN/eval/STOP.json            the trainer should stop, and why

A job is done where a result of the same stamp exists, so nothing has to be removed in step with something else: a crash
between any two writes leaves a job that is pending or one that is done. A step that was trained and saved again has
another stamp; its job is pending again. Imports nothing heavy: the trainer asks at every step.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from ares_eval import manifest
from ares_eval.series import steps
from ares_eval.series.steps import StepResult
from ares_eval.trackers import CKPT_STEP, SERIES
from ares_train import checkpoints
from ares_train.checkpoints import Checkpoint, CheckpointError

FORMAT = 1
EVAL = Path(steps.FOLDER)
QUEUE, PINNED, STOP = EVAL / "queue", EVAL / "pinned", EVAL / "STOP.json"

QUIET = 30.0
"""Seconds without a change after which files of which nobody said that they are complete count as such."""

ABANDONED = 3600.0
"""Seconds after which a pin that was never finished belongs to a trainer that died over it."""


class QueueError(Exception):
    """A file of the queue that cannot be read or written; the message names it."""


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checkpoint to be evaluated.

    ``checkpoint``, ``pin``: relative to the run's folder. ``stamp``: of the files' names, sizes and times; empty, as is
    ``pin``, while an asynchronous save is still writing. ``trained``: model, configuration and revision of the trainer,
    where it queued the job itself.
    """

    format: int
    step: int
    checkpoint: str
    stamp: str
    pin: str
    queued: str
    trained: dict[str, str] = {}


class Tries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often the job of ``stamp`` was ``begun``, and the reasons of those tries that failed."""

    stamp: str
    begun: int = 0
    failures: tuple[str, ...] = ()


class Stop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why training should stop: the ``reason`` in one line, and the weights that gave it."""

    step: int
    digest: str
    reason: str


# ---------------------------------------------------------------- jobs


def enqueue(checkpoint: Checkpoint, *, complete: bool = True, trained: Mapping[str, str] | None = None) -> Job:
    """Pin a checkpoint and queue it; again for the same files, it only renews what the trainer says of itself.

    ``complete=False``: it is still being written, so that nothing can be pinned; ``complete_job`` does it later. Raises
    CheckpointError, OSError.
    """
    run_dir = checkpoint.folder.parent
    stamp = stamp_of(checkpoint) if complete else ""
    pin = f"{PINNED}/step_{checkpoint.step}-{stamp}" if complete else ""
    if complete:
        checkpoints.pin(checkpoint, run_dir / pin)
    job = Job(
        format=FORMAT,
        step=checkpoint.step,
        checkpoint=checkpoint.folder.name,
        stamp=stamp,
        pin=pin,
        queued=manifest.now(),
        trained=dict(trained or {}),
    )
    _write(_job_file(run_dir, checkpoint.step), job)
    return job


def complete_job(run_dir: Path, job: Job) -> Job | None:
    """The job with its pin, once an asynchronous save has ended; None as long as it has not.

    The save has ended when verl's tracker names the step, or, where there is none, when all files are there and nothing
    has changed for QUIET seconds.
    """
    if job.pin:
        return job
    checkpoint = checkpoint_of(run_dir, job)
    latest = checkpoints.latest_step(run_dir)
    if checkpoints.trouble(checkpoint.actor) is not None or (latest is not None and latest < job.step):
        return None
    if latest is None and not _quiet(checkpoint):
        return None
    return enqueue(checkpoint, trained=job.trained)


def discover(run_dir: Path) -> list[Job]:
    """Queue the checkpoints that nobody queued: of a trainer without our callback, or that died before it could.

    A step that was queued before and whose files have changed since is taken once they have been quiet for a while:
    where its trainer calls back, the job is there by then.
    """
    found = []
    for checkpoint in checkpoints.checkpoints_of(run_dir):
        known = read_job(run_dir, checkpoint.step)
        if known is not None and (not known.pin or known.stamp == stamp_of(checkpoint)):
            continue
        if (known is not None or checkpoints.latest_step(run_dir) is None) and not _quiet(checkpoint):
            continue
        with contextlib.suppress(CheckpointError):  # pruned just now
            found.append(enqueue(checkpoint))
    return found


def pending(run_dir: Path) -> list[Job]:
    """Jobs without a result of the same files, oldest step first. Raises QueueError, steps.StepFileError."""
    return [job for job in _jobs(run_dir) if not is_done(run_dir, job)]


def is_done(run_dir: Path, job: Job) -> bool:
    """Whether there is a result (or a recorded failure) of the job's files."""
    file = steps.path(run_dir, job.step)
    return bool(job.stamp) and file.exists() and steps.read(file).stamp == job.stamp


def read_job(run_dir: Path, step: int) -> Job | None:
    """The job of a step; None where there is none."""
    file = _job_file(run_dir, step)
    return _read(file, Job) if file.exists() else None


def checkpoint_of(run_dir: Path, job: Job) -> Checkpoint:
    """Where the trainer saved it; it may be gone."""
    folder = run_dir / job.checkpoint
    return Checkpoint(job.step, folder, checkpoints.actor_of(folder))


def pinned(run_dir: Path, job: Job) -> Checkpoint:
    """The files that are held for a job; CheckpointError where somebody removed them and they cannot be held again."""
    place = run_dir / job.pin
    if not place.is_dir():
        checkpoint = checkpoint_of(run_dir, job)
        if stamp_of(checkpoint) != job.stamp:
            raise CheckpointError(f"{place} is gone, and {checkpoint.folder} now holds other weights")
        return checkpoints.pin(checkpoint, place)
    folder = place / job.checkpoint
    return Checkpoint(job.step, folder, checkpoints.actor_of(folder))


def stamp_of(checkpoint: Checkpoint) -> str:
    """16 hexadecimal digits over names, sizes and times of the files that make the model. Raises CheckpointError."""
    files = checkpoints.contents(checkpoint.actor)
    total = hashlib.sha256()
    for path in sorted((*files.weights, *files.texts)):
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise CheckpointError(f"{path}: removed while it was looked at") from None
        total.update(f"{path.relative_to(files.root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return total.hexdigest()[:16]


def unpin(run_dir: Path, step: int, keep: str | None = None) -> None:
    """Remove the pins of a step, but for the one that the path ``keep`` lies in."""
    for place in (run_dir / PINNED).glob(f"step_{step}-*"):
        if keep is None or not (run_dir / keep).is_relative_to(place):
            shutil.rmtree(place, ignore_errors=True)
    for draft in (run_dir / PINNED).glob(f".step_{step}-*"):
        if time.time() - draft.stat().st_mtime > ABANDONED:
            shutil.rmtree(draft, ignore_errors=True)


def _jobs(run_dir: Path) -> list[Job]:
    return sorted((_read(file, Job) for file in (run_dir / QUEUE).glob("step_*.json")), key=lambda job: job.step)


def _job_file(run_dir: Path, step: int) -> Path:
    return run_dir / QUEUE / f"step_{step}.json"


def _quiet(checkpoint: Checkpoint) -> bool:
    try:
        files = checkpoints.contents(checkpoint.actor)
        return time.time() - max(path.stat().st_mtime for path in (*files.weights, *files.texts)) > QUIET
    except (CheckpointError, OSError):
        return False


# ---------------------------------------------------------------- claims


@contextlib.contextmanager
def claim(run_dir: Path, step: int) -> Iterator[int | None]:
    """Hold a step: yields the lock's file descriptor, or None where another process holds it.

    A child that inherits the descriptor holds the step as well, so that an orphan's evaluation and a new one never run
    side by side. Who gets a claim must look again whether the job is still pending.
    """
    with _locked(run_dir / QUEUE / f"step_{step}.lock", wait=False) as descriptor:
        yield descriptor


@contextlib.contextmanager
def exclusive(run_dir: Path) -> Iterator[None]:
    """Held while something is changed that belongs to no single step (best, trackers, kept weights)."""
    with _locked(run_dir / EVAL / ".lock", wait=True):
        yield


@contextlib.contextmanager
def _locked(file: Path, *, wait: bool) -> Iterator[int | None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        yield descriptor
    finally:
        os.close(descriptor)


def tries(run_dir: Path, job: Job) -> Tries:
    """How the evaluation of a job's files has gone so far."""
    file = _tries_file(run_dir, job.step)
    found = _read(file, Tries) if file.exists() else Tries(job.stamp)
    return found if found.stamp == job.stamp else Tries(job.stamp)


def begin(run_dir: Path, job: Job) -> Tries:
    """Count one more try, before it is made."""
    before = tries(run_dir, job)
    counted = msgspec.structs.replace(before, begun=before.begun + 1)
    _write(_tries_file(run_dir, job.step), counted)
    return counted


def forget_begin(run_dir: Path, job: Job) -> None:
    """Take back the last ``begin``: the try was called off, it did not fail."""
    before = tries(run_dir, job)
    _write(_tries_file(run_dir, job.step), msgspec.structs.replace(before, begun=max(before.begun - 1, 0)))


def failed(run_dir: Path, job: Job, reason: str) -> Tries:
    """Note why a try failed."""
    before = tries(run_dir, job)
    noted = msgspec.structs.replace(before, failures=(*before.failures, reason))
    _write(_tries_file(run_dir, job.step), noted)
    return noted


def forget_tries(run_dir: Path, step: int) -> None:
    """Count anew, for whoever removes the result to have the step evaluated again."""
    _tries_file(run_dir, step).unlink(missing_ok=True)


def _tries_file(run_dir: Path, step: int) -> Path:
    return run_dir / QUEUE / f"step_{step}.tries"


# ---------------------------------------------------------------- what the trainer asks


def stop_requested(run_dir: Path) -> str | None:
    """Why training should stop, in one line; None to go on. To go on all the same, remove the file that it names."""
    file = run_dir / STOP
    if not file.exists():
        return None
    with contextlib.suppress(QueueError):
        return f"{_read(file, Stop).reason} (remove {file} to go on)"
    return f"{file} exists (remove it to go on)"


def request_stop(run_dir: Path, stop: Stop) -> None:
    """Ask the trainer to stop."""
    _write(run_dir / STOP, stop)


def withdraw_stop(run_dir: Path, step: int, digest: str) -> None:
    """Take back a request that other weights of ``step`` gave: they were trained again."""
    with contextlib.suppress(QueueError):
        if (run_dir / STOP).exists() and (stop := _read(run_dir / STOP, Stop)).step == step and stop.digest != digest:
            (run_dir / STOP).unlink(missing_ok=True)


def new_results(run_dir: Path, seen: set[str]) -> dict[str, float]:
    """Metrics of one finished evaluation that is not in ``seen`` (and is then): ``eval/TASK/METRIC``, ``eval/mean`` and
    ``eval/ckpt_step``, the step whose weights they belong to; empty where there is none.

    One at a time, since a tracker's row has room for one ``eval/ckpt_step``. Results whose watcher logs them itself are
    left out, and so is a broken step file.
    """
    for file in sorted((run_dir / EVAL).glob("step_*.json"), key=lambda file: (len(file.name), file.name)):
        # A file may go at any time: removing it asks for the step's evaluation anew.
        with contextlib.suppress(steps.StepFileError, OSError):
            key = f"{file.name}:{file.stat().st_mtime_ns}"
            if key in seen:
                continue
            seen.add(key)
            result = steps.read(file)
            if (name := f"{result.step}:{result.digest}") in seen or result.trackers or not result.figures:
                continue
            seen.add(name)
            return metrics_of(result)
    return {}


def metrics_of(result: StepResult) -> dict[str, float]:
    """A result's figures by the names that trackers get."""
    named = {f"{SERIES}{key}": value for key, value in figures_of(result).items()}
    return {**named, CKPT_STEP: float(result.step)}


def figures_of(result: StepResult) -> dict[str, float]:
    """A result's figures, with the gate's verdict as a number where it decided."""
    if result.gate is None or result.gate.verdict not in ("pass", "fail"):
        return dict(result.figures)
    return {**result.figures, "gate_passed": float(result.gate.verdict == "pass")}


# ---------------------------------------------------------------- files

T = TypeVar("T", bound=msgspec.Struct)


def _read(file: Path, kind: type[T]) -> T:
    try:
        found = msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise QueueError(f"{file} cannot be read: {error}") from None
    return found


def _write(file: Path, content: msgspec.Struct) -> None:
    steps.write(file, content)
