"""One checkpoint to its result: pinned files -> Hugging Face weights -> `ares-eval` behind a server -> figures -> gate.

The score belongs to the weights. The digest of the pinned files is taken while they are merged and again afterwards
(weights that need no merging are looked at once more after the evaluation); it is the run's ``--model-revision``, and
the run that comes back must name it. Every stage may be cut off and begun again: merged weights are there whole or not
at all, and a run that was begun goes on with what it has recorded.
"""

from __future__ import annotations

import importlib.metadata
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ares_eval import manifest
from ares_eval.analysis.summary import Analysis
from ares_eval.records import Run, RunError, load_run
from ares_eval.series import steps
from ares_eval.series.steps import StepResult, Threshold
from ares_eval.series.threshold import analysed, comparable, keep, threshold_of
from ares_eval.trackers import figures
from ares_train import checkpoints
from ares_train.checkpoints import Checkpoint
from ares_train.loop import child, consequences, gating, queue, ranking
from ares_train.loop.child import EvaluationFailed
from ares_train.loop.queue import EVAL, Job
from ares_train.loop.settings import Settings

RUNS, WORK = EVAL / "runs", EVAL / "work"

PACKAGES = ("torch", "transformers", "verl", "vllm")


class WeightsReplaced(Exception):
    """The pinned files are no longer those of the job: their step is being, or was, saved again. That is no failure;
    another job follows."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What is served: a Hugging Face folder, and the digest of the checkpoint it comes from. ``merged``: a copy of
    ours, which nobody else writes."""

    folder: Path
    digest: str
    merged: bool


@dataclass(slots=True)
class Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's time to stage ``name``."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)


def evaluate(
    run_dir: Path,
    job: Job,
    settings: Settings,
    *,
    tries: int,
    held: Sequence[int],
    stop: threading.Event,
    say: Callable[[str], None],
) -> StepResult:
    """The result of a job whose step is claimed (``held``: the claim's descriptors).

    Raises EvaluationFailed, CheckpointError, RunError and OSError where this try gave none, child.EvaluatorUnusable
    where no try can, WeightsReplaced, and child.Interrupted.
    """
    clock = Clock()
    with clock.stage("merge"):
        weights = prepare(run_dir, job, settings, say)
    say(f"evaluating {weights.digest[:19]} on {settings.datasets}")
    name = settings.model_name or run_dir.resolve().name
    work = run_dir / WORK / f"step_{job.step}"
    with clock.stage("evaluate"):
        asked = run_settings(run_dir, settings, name, weights)
        done = child.evaluate(settings.python, asked, work, held=held, stop=stop, say=say)
    if not weights.merged:
        with clock.stage("verify"):
            _same(queue.pinned(run_dir, job), weights.digest)
    with clock.stage("analyse"):
        run = load_run(done.folder)
        if run.manifest.get("revision") != weights.digest or run.results is None:
            raise EvaluationFailed(f"{done.folder} is no finished run of {weights.digest}")
        found = _figures(run_dir, job.step, run)
    with clock.stage("gate"):
        decided = gating.decide(run_dir, job.step, done.folder, settings)
    return StepResult(
        format=steps.FORMAT,
        step=job.step,
        status="complete" if done.complete else "incomplete",
        digest=weights.digest,
        stamp=job.stamp,
        checkpoint=job.checkpoint,
        model=name,
        run=_relative(done.folder, run_dir),
        figures=found.numbers,
        threshold=found.threshold,
        gate=decided,
        reason=done.reason,
        tries=tries,
        seconds=clock.seconds,
        versions=versions(),
        trained=job.trained,
        finished=manifest.now(),
        trackers=settings.tracker,
        weights=_relative(weights.folder, run_dir),
    )


def prepare(run_dir: Path, job: Job, settings: Settings, say: Callable[[str], None]) -> Weights:
    """The checkpoint's weights as a Hugging Face folder. Raises CheckpointError, WeightsReplaced."""
    checkpoint = queue.pinned(run_dir, job)
    if queue.stamp_of(checkpoint) != job.stamp:
        raise WeightsReplaced("saved again since it was queued")
    if checkpoints.contents(checkpoint.actor).kind == "hf" and settings.dtype == "keep":
        return Weights(checkpoint.actor / checkpoints.HF_FOLDER, checkpoints.digest(checkpoint), merged=False)
    from ares_train.merge import merge

    say("merging")
    target = run_dir / consequences.WEIGHTS / f"step_{job.step}-{job.stamp}-{settings.dtype}"
    merged = merge(checkpoint.actor, target, dtype=settings.dtype)
    _same(checkpoint, merged.source_digest)
    return Weights(merged.folder, merged.source_digest, merged=True)


def run_settings(run_dir: Path, settings: Settings, name: str, weights: Weights | None) -> dict[str, Any]:
    """The settings of ares-eval for ``weights`` (None: those that do not depend on a checkpoint)."""
    asked: dict[str, Any] = {
        **settings.run,
        "model_name": name,
        "datasets": settings.datasets,
        "output_dir": str((run_dir / RUNS).resolve()),
    }
    if weights is not None:
        asked |= {"serve": f"{settings.serve}:{weights.folder.resolve()}", "model_revision": weights.digest}
        if settings.serve_args:
            asked["serve_args"] = shlex.split(settings.serve_args)
    return asked


def versions() -> dict[str, str]:
    """Of what takes part on this side; those of the evaluator are in its run's manifest."""
    here = manifest.environment()
    found = {"ares": str(here["ares"]), "python": str(here["python"]), "git": str(here["git"] or "")}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {key: value for key, value in found.items() if value}


def _same(checkpoint: Checkpoint, digest: str) -> None:
    if checkpoints.digest(checkpoint) != digest:
        raise WeightsReplaced("saved again while it was evaluated")


def _relative(path: Path, run_dir: Path) -> str:
    return path.resolve().relative_to(run_dir.resolve()).as_posix()


# ---------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True)
class Figures:
    """A run's flat numbers, and the threshold by which its HWE was counted."""

    numbers: dict[str, float]
    threshold: Threshold | None


def _figures(run_dir: Path, step: int, run: Run) -> Figures:
    """The run's figures by the threshold of the series: that of its first step, or this run's where there is none."""
    assert run.results is not None
    earlier = [result.threshold for number, result in steps.read_all(run_dir).items() if number != step]
    threshold = next((found for found in earlier if found is not None), None)
    analysis: Analysis | None
    try:
        analysis = analysed(run, threshold)
        keep(run, analysis)
    except RunError:  # nothing was measured: the counts are figures all the same
        analysis = None
    numbers = {**figures(run.results, analysis), **ranking.mean(run.results)}
    if analysis is None:
        return Figures(numbers, threshold)
    if not comparable(analysis, threshold):
        numbers = {key: value for key, value in numbers.items() if "hwe" not in key.rpartition("/")[2]}
        return Figures(numbers, threshold)
    return Figures(numbers, threshold or threshold_of(analysis))
