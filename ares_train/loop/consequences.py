"""What follows from the step files, made anew from all of them: metrics.jsonl, trackers, best, kept weights and pins.

    RUN/eval/metrics.jsonl    a line a step, as verl's file logger writes them
    RUN/eval/best.json        the best step; RUN/eval/best: a link to its weights, while they are kept
    RUN/eval/weights/         merged weights, kept by policy

So it may be done again at any time, and is, when a watcher starts: what a crash left undone is then done.
"""

from __future__ import annotations

import difflib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from ares_eval import trackers
from ares_eval.series import steps
from ares_eval.series.steps import Best, Score, StepResult
from ares_train.loop import queue, ranking, tracking
from ares_train.loop.queue import EVAL
from ares_train.loop.settings import Settings

METRICS, LINK, WEIGHTS = EVAL / "metrics.jsonl", EVAL / "best", EVAL / "weights"


def draw(run_dir: Path, settings: Settings, say: Callable[[str], None]) -> None:
    """Bring everything up to date. Raises OSError, steps.StepFileError, queue.QueueError."""
    with queue.exclusive(run_dir):
        results = steps.read_all(run_dir)
        _write_metrics(run_dir, results)
        results = _log(run_dir, settings, results, say)
        best = _choose(run_dir, settings, results, say)
        _clean(run_dir, settings, results, best)


def _write_metrics(run_dir: Path, results: Mapping[int, StepResult]) -> None:
    lines = [
        json.dumps({"step": step, "data": queue.metrics_of(result)})
        for step, result in results.items()
        if result.figures
    ]
    if lines:
        part = run_dir / METRICS.with_name(f".{METRICS.name}.part")
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        part.replace(run_dir / METRICS)


def _log(
    run_dir: Path, settings: Settings, results: Mapping[int, StepResult], say: Callable[[str], None]
) -> dict[int, StepResult]:
    """Give every tracker what it has not got; one that refuses is said and tried again the next time."""
    logged = dict(results)
    for name in settings.tracker:
        for step, result in results.items():
            if name in logged[step].logged or not result.figures:
                continue
            tracker, place = tracking.place(run_dir, name, result.model)
            try:
                line = trackers.log_step(tracker, place, step, queue.figures_of(result))
            except trackers.TrackerUnavailable as error:
                say(f"step {step}: {error}")
                break
            logged[step] = msgspec.structs.replace(logged[step], logged=(*logged[step].logged, name))
            steps.write(steps.path(run_dir, step), logged[step])
            say(f"step {step}: logged to {line}")
    return logged


def _choose(
    run_dir: Path, settings: Settings, results: Mapping[int, StepResult], say: Callable[[str], None]
) -> StepResult | None:
    """Name the best step in best.json, and link its weights."""
    metric, mode = settings.best_metric, settings.best_mode
    best = ranking.best_of(results.values(), metric, mode)
    file, before = run_dir / EVAL / steps.BEST, steps.read_best(run_dir)
    if best is None:
        file.unlink(missing_ok=True)
        if names := sorted({name for result in results.values() for name in result.figures} - {metric}):
            near = difflib.get_close_matches(metric, names, n=3, cutoff=0.4) or names[:5]
            if not any(metric in result.figures for result in results.values()):
                say(f"no step has the figure {metric!r}; did you mean {', '.join(near)}?")
        return None
    score = Score(metric, best.figures[metric])
    named = Best(steps.FORMAT, best.step, best.digest, score, mode, best.checkpoint, _kept(settings, best))
    if named != before:
        steps.write(file, named)
    if before is None or (before.step, before.digest, before.score) != (best.step, best.digest, score):
        say(f"best: step {best.step}, {metric} {score.value:.4g}")
    return best


def _kept(settings: Settings, best: StepResult) -> str | None:
    return None if settings.keep == "none" else best.weights


def _clean(run_dir: Path, settings: Settings, results: Mapping[int, StepResult], best: StepResult | None) -> None:
    """Remove the weights and pins that no policy keeps and no evaluation needs; link those of the best step."""
    link = run_dir / LINK
    kept = None if best is None else _kept(settings, best)
    if kept is not None and (run_dir / kept).is_dir():
        part = link.with_name(f".{link.name}.part")
        part.unlink(missing_ok=True)
        part.symlink_to(Path(kept).relative_to(EVAL), target_is_directory=True)
        part.replace(link)
    else:
        link.unlink(missing_ok=True)
    for step, result in results.items():
        with queue.claim(run_dir, step) as held:
            job = queue.read_job(run_dir, step)
            if held is None or (job is not None and job.stamp != result.stamp):
                continue  # somebody evaluates it, or is about to
            keep = settings.keep == "all" or (settings.keep == "best" and best is not None and best.step == step)
            wanted = result.weights if keep else None
            for place in (run_dir / WEIGHTS).glob(f"step_{step}-*"):
                if wanted is None or place != run_dir / wanted:
                    shutil.rmtree(place, ignore_errors=True)
            queue.unpin(run_dir, step, keep=wanted)
            if wanted is None and result.weights is not None:
                steps.write(steps.path(run_dir, step), msgspec.structs.replace(result, weights=None))
