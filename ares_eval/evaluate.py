"""One run, from its settings to its results.

    load the tasks -> open the run's folder -> start or find the server -> ask what is not yet recorded
    -> judge each reply -> append it -> sum up

What was recorded is never asked again; a reply that failed is never judged; results come from the records alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ares_eval import manifest, plan, records, results, tasks
from ares_eval.config import ConfigError
from ares_eval.progress import Progress
from ares_eval.session import Session, TaskSet
from ares_eval.types import Failure, Json
from ares_eval.verify.judge import refuse_self_judging

if TYPE_CHECKING:
    from ares_eval.config import RunConfig

COMPLETE, INCOMPLETE, NOTHING, INTERRUPTED = 0, 3, 4, 130
"""Exit codes of a run; 2 (usage) is raised as an error instead."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out: the run's folder, ``results.json`` as a value, and the exit code with its reason."""

    folder: Path
    results: dict[str, Json]
    exit_code: int
    reason: str = ""
    resumed: int = 0
    """Draws that were recorded before."""


class NothingToRun(Exception):
    """No dataset that was asked for can be had; the message has a line for each."""


def evaluate(config: RunConfig, progress: Progress, *, warn: Callable[[str], None]) -> Evaluation:
    """Run ``config`` to its end, or as far as it goes; ``warn`` takes the lines that nobody should miss.

    Raises tasks.TaskError, NothingToRun, records.RunError, inference.servers' errors, CacheError, and ConfigError where
    a model would judge itself.
    """
    if config.judge_model is not None:
        try:
            refuse_self_judging(config.judge_model, config.model_name, config.judge_self)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    whole = load_tasks(config, warn)
    model = _model(config)
    fingerprints = {name: plan.fingerprint(task, config) for name, task in whole.tasks.items()}
    digest = config.digest(fingerprints, model.weights)
    folder = _folder(config, digest)
    finished = _finished(folder)
    if finished is not None:
        return _again(finished, whole, config)
    with records.RunWriter(folder) as writer, contextlib.ExitStack() as stack:
        for task in whole.tasks.values():
            if task.scorer is not None:
                stack.callback(task.scorer.close)
        session = Session(config, whole, model, writer, progress, warn)
        session.begin(digest)
        session.measure()
        return _finish(session)


def _finish(session: Session) -> Evaluation:
    """Sum up the records and close the manifest."""
    writer = session.writer
    metas = session.metas()
    found = results.summarise(records.read_records(writer.folder / records.SAMPLES), metas)
    asked, measured = results.asked_and_measured(found)
    if session.config.judge_model is not None and measured and not session.interrupted:
        from ares_eval import judging

        found["judged"] = judging.judge_run(session.config, writer, metas, session.warn)
    code, reason = _outcome(asked, measured, session.whole, session.config, session.fatal, session.interrupted)
    for name, meta in metas.items():
        session.manifest["tasks"][name]["asked"] = dataclasses.asdict(meta)
    session.manifest["status"] = "complete" if measured == asked else "incomplete"
    session.manifest["finished"] = manifest.now()
    session.manifest["unavailable"] = dict(session.whole.unavailable)
    writer.write(records.RESULTS, found)
    writer.write(records.MANIFEST, session.manifest)
    return Evaluation(writer.folder, found, code, reason, session.resumed)


def sum_up_again(writer: records.RunWriter) -> dict[str, Json]:
    """Make ``results.json`` of a run's folder anew from its records; the judge's part, of older verdicts, is dropped.

    Raises RunError where the run never came to results.
    """
    run = records.load_run(writer.folder)
    try:
        metas = {name: results.TaskMeta(**task["asked"]) for name, task in run.manifest["tasks"].items()}
    except (KeyError, TypeError):
        raise records.RunError(f"{writer.folder} has no results to make anew: finish the run first") from None
    found = results.summarise(records.read_records(writer.folder / records.SAMPLES), metas)
    writer.write(records.RESULTS, found)
    return found


def load_tasks(config: RunConfig, warn: Callable[[str], None]) -> TaskSet:
    """The tasks that ``--datasets`` names; what cannot be had is left out with a line each."""
    names = tasks.resolve(config.datasets, include_path=config.include_path)
    judge = None
    if config.judge_model is not None:
        from ares_eval import judging

        judge = judging.judge_model(config, warn)
    found: dict[str, tasks.Task] = {}
    unavailable: dict[str, str] = {}
    for name in names:
        try:
            found[name] = tasks.load(
                name,
                dataset_dir=config.dataset_dir,
                limit=config.limit,
                include_path=config.include_path,
                judge=judge,
            )
        except tasks.DataUnavailable as error:
            unavailable[name] = str(error)
            warn(str(error))
    if not found:
        raise NothingToRun("none of the datasets that were asked for is available here")
    whole = TaskSet(found, unavailable)
    for name, task in found.items():
        whole.planned[name] = (task.size or 0) * plan.draws(task, config)
    return whole


# ---------------------------------------------------------------- the run's folder


def _folder(config: RunConfig, digest: str) -> Path:
    """``<output-dir>/<model>/<run-name or suite>-<8 hex>``; with ``--fresh`` the next free number appended."""
    model = re.sub(r"[^\w.+-]+", "__", config.model_name).strip(".") or "model"
    asked = config.run_name or re.sub(r"\s+", "", config.datasets).replace(",", "+")
    name = re.sub(r"[^\w.+-]+", "_", asked)[:60]
    base = config.output_dir / model / f"{name}-{digest[:8]}"
    if not config.fresh:
        return base
    number = 2
    while base.exists():
        base = base.with_name(f"{name}-{digest[:8]}-{number}")
        number += 1
    return base


def _finished(folder: Path) -> records.Run | None:
    if not (folder / records.RESULTS).exists():
        return None
    run = records.load_run(folder)
    return run if run.manifest.get("status") == "complete" else None


def _again(run: records.Run, whole: TaskSet, config: RunConfig) -> Evaluation:
    found = run.results or {}
    asked, measured = results.asked_and_measured(found)
    code, reason = _outcome(asked, measured, whole, config, None, False)
    return Evaluation(run.folder, found, code, reason, resumed=measured)


def _model(config: RunConfig) -> plan.ModelIdentity:
    weights = None
    if config.serve is not None:
        from ares_eval.inference import servers

        weights = servers.weights_digest(config.serve)
    return plan.ModelIdentity(config.model_name, config.model_revision, weights)


def _outcome(
    asked: int, measured: int, whole: TaskSet, config: RunConfig, fatal: Failure | None, interrupted: bool
) -> tuple[int, str]:
    """Exit code and its reason."""
    if interrupted:
        return INTERRUPTED, "interrupted; the same command goes on from here"
    if asked and not measured:
        return NOTHING, fatal.message if fatal else "nothing could be measured"
    if fatal is not None:
        return INCOMPLETE, f"stopped: {fatal.message}"
    if measured < asked:
        return INCOMPLETE, f"{asked - measured} of {asked} not measured; the same command asks for them again"
    if whole.unavailable and not config.skip_unavailable:
        return INCOMPLETE, f"not available: {', '.join(sorted(whole.unavailable))}"
    return COMPLETE, ""
