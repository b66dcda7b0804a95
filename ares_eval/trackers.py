"""A run's figures in an experiment tracker: Weights & Biases, MLflow, trackio or TensorBoard.

Every tracker gets the same flat names (``gsm8k/accuracy``, ``gsm8k/hwe_tokens``, ...) and the settings of the run,
which hold no secrets. ``log_run`` logs a run as a tracker's run of its own; ``log_step`` logs the figures of a training
run's checkpoint under ``eval/...`` at its own step, into the trainer's run where the tracker allows that. The
tracker's package is imported when it is used; where it goes and as whom is the tracker's own configuration
(WANDB_PROJECT, MLFLOW_TRACKING_URI, ...).
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.summary import Analysis, TaskAnalysis, analyse
from ares_eval.records import Run, RunError, load_run
from ares_eval.types import Json

TRACKERS = ("wandb", "mlflow", "trackio", "tensorboard")

PROJECT = "ares"
"""Project or experiment, where the tracker's own environment variable names none."""

PARAMETER = 500
"""Characters of a setting; MLflow refuses longer ones."""

SERIES, CKPT_STEP = "eval/", "eval/ckpt_step"
"""Prefix of a checkpoint's figures, and the figure that holds its step (the x axis in Weights & Biases)."""

SERIES_TAG = "ares.series"
"""Tag by which a series' own run is found again in MLflow."""

MLFLOW_BATCH = 500
"""Metrics in one request; MLflow's servers refuse more than 1000."""


class TrackerUnavailable(Exception):
    """The tracker's package is not installed, or it refused; the message says which and what would do."""


@dataclass(frozen=True, slots=True)
class Place:
    """The tracker's run that figures go to.

    ``joined``: it exists, a trainer writes it (``id`` is its wandb or MLflow id, ``folder`` its TensorBoard folder);
    else it is ours, and the same ``id`` means the same run. ``project``: empty for the one of the tracker's own
    environment variable. ``group``: where wandb shows it beside the trainer's.
    """

    name: str
    id: str = ""
    project: str = ""
    group: str = ""
    folder: Path | None = None
    joined: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def log_run(tracker: str, run: Run, results: Mapping[str, Json], analysis: Analysis | None = None) -> str:
    """Log one run as one run of the tracker; a line that says where it went. Raises TrackerUnavailable."""
    name = f"{run.manifest.get('model') or 'run'}/{run.folder.name}"
    base = os.environ.get("TENSORBOARD_LOGDIR")
    place = Place(
        name,
        # The run's digest, so that logging again overwrites instead of adding.
        id=str(run.manifest.get("digest") or "")[:32],
        folder=Path(base) / name if base else run.folder / "tensorboard",
        settings=_settings(run),
    )
    return _log(tracker, place, figures(results, analysis), None)


def log_step(tracker: str, place: Place, step: int, numbers: Mapping[str, float]) -> str:
    """Log a checkpoint's figures as ``eval/NAME`` at its own ``step``; a line that says where they went.

    Logging a step again repeats its values; a tracker that keeps every value shows the last. Raises TrackerUnavailable.
    """
    named = {SERIES + key: value for key, value in numbers.items()}
    return _log(tracker, place, {**named, CKPT_STEP: float(step)}, step)


def _log(tracker: str, place: Place, numbers: dict[str, float], step: int | None) -> str:
    check(tracker)
    try:
        return _LOGGERS[tracker](_module(tracker), place, numbers, step)
    except Exception as error:  # each tracker has its own errors; none of them is the run's
        raise TrackerUnavailable(f"{tracker} did not take the run: {type(error).__name__}: {error}") from error


def log_folder(tracker: str, folder: Path) -> str:
    """The same for a run's folder, with its analysis. Raises TrackerUnavailable, records.RunError."""
    run = load_run(folder)
    if run.results is None:
        raise TrackerUnavailable(f"{folder} has no results.json: the run is not finished")
    try:
        analysis = analyse(run)
    except RunError:  # nothing was measured: the counts are logged all the same
        analysis = None
    return log_run(tracker, run, run.results, analysis)


def check(tracker: str) -> None:
    """Raise TrackerUnavailable where there is no such tracker, or its package is not installed."""
    if tracker not in TRACKERS:
        raise TrackerUnavailable(f"no tracker {tracker!r}; there are {', '.join(TRACKERS)}")
    _module(tracker)


def figures(results: Mapping[str, Json], analysis: Analysis | None = None) -> dict[str, float]:
    """All numbers of a run by flat names; shares in [0, 1]."""
    found: dict[str, float] = {}
    for name, task in results["tasks"].items():
        found |= {f"{name}/{key}": float(task[key]) for key in ("n", "correct", "unverifiable", "truncated")}
        found[f"{name}/not_measured"] = float(sum(task["not_measured"].values()))
        found |= _numbers(name, task["metrics"])
    for name, suite in results.get("suites", {}).items():
        found |= _numbers(f"suite/{name}", suite["metrics"])
    for part in () if analysis is None else analysis.tasks:
        found |= _analysed(part)
    return found


def _numbers(name: str, metrics: Mapping[str, Json]) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in metrics.items():
        # Trackers use / for groups and refuse @.
        plain = key.replace("@", "_at_")
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{name}/{plain}"] = float(value)
        elif key.endswith("_ci95") and isinstance(value, list | tuple):
            found[f"{name}/{plain}_low"], found[f"{name}/{plain}_high"] = map(float, value)
    return found


def _analysed(part: TaskAnalysis) -> dict[str, float]:
    hwe, curve = part.hwe, part.adaptivity
    known: dict[str, Estimated | None] = {"reflection": part.thinking.reflection, "loops": part.thinking.loops}
    if curve is not None:
        known |= {"length_slope": curve.length_slope, "length_correlation": curve.length_correlation,
                  "length_hard_to_easy": curve.length_ratio, "hwe_slope": curve.hwe_slope}  # fmt: skip
        known |= {f"tokens_{point.name}": point.length for point in curve.tiers}
        known |= {f"hwe_{point.name}": point.hwe for point in curve.tiers}
    if hwe is not None:
        known |= {"hwe_tokens": hwe.count, "hwe_windows": hwe.windows, "hwe_density": hwe.density,
                  "entropy": hwe.entropy}  # fmt: skip
    if part.budgets is not None:
        known["budget_area"] = part.budgets.area_reached or part.budgets.area_finished
    return {f"{part.name}/{key}": value.value for key, value in known.items() if value is not None}


def _settings(run: Run) -> dict[str, str]:
    """Settings that say something, as short texts."""
    settings = {"model": run.manifest.get("model"), "digest": run.manifest.get("digest")}
    settings |= run.manifest.get("settings") or {}
    return {key: str(value)[:PARAMETER] for key, value in settings.items() if value not in (None, "", [], {}, False)}


# ---------------------------------------------------------------- the trackers


def _module(tracker: str) -> Any:
    name = {"tensorboard": "tensorboard.summary"}.get(tracker, tracker)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrackerUnavailable(f"--tracker {tracker} needs its package: pip install {tracker} ({error})") from None


def _wandb(module: Any, place: Place, numbers: dict[str, float], step: int | None) -> str:
    """Weights & Biases drops what is out of order in its own steps: a series has a step metric of its own.

    A run that another process writes can only be joined in wandb's shared mode, which the trainer must use as well.
    """
    options: dict[str, Any] = {"group": place.group} if place.group else {}
    if place.joined:
        options["settings"] = module.Settings(
            mode="shared", x_primary=False, x_label="ares-eval", x_update_finish_state=False
        )
    session = module.init(
        project=place.project or os.environ.get("WANDB_PROJECT", PROJECT),
        name=place.name,
        id=place.id or None,
        resume="allow",
        config=dict(place.settings),
        job_type="evaluation",
        **options,
    )
    if step is not None:
        module.define_metric(CKPT_STEP)
        module.define_metric(f"{SERIES}*", step_metric=CKPT_STEP)
    module.log(numbers)
    where = getattr(session, "url", None) or "offline"
    module.finish()
    return f"wandb: {where}"


def _trackio(module: Any, place: Place, numbers: dict[str, float], step: int | None) -> str:
    project = place.project or os.environ.get("TRACKIO_PROJECT", PROJECT)
    if step is None:
        module.init(project=project, name=place.name, config=dict(place.settings))
        module.log(numbers)
    else:
        module.init(project=project, name=place.name, config=dict(place.settings), resume="allow")
        module.log(numbers, step=step)
    module.finish()
    return f"trackio: project {project}, run {place.name}"


def _mlflow(module: Any, place: Place, numbers: dict[str, float], step: int | None) -> str:
    if step is not None:
        return _mlflow_step(module, place, numbers, step)
    if not os.environ.get("MLFLOW_EXPERIMENT_NAME") and not os.environ.get("MLFLOW_EXPERIMENT_ID"):
        module.set_experiment(PROJECT)
    with module.start_run(run_name=place.name) as started:
        module.log_params(dict(place.settings))
        module.log_metrics(numbers)
        return f"mlflow: run {started.info.run_id} at {module.get_tracking_uri()}"


def _mlflow_step(module: Any, place: Place, numbers: dict[str, float], step: int) -> str:
    """By the client, which leaves the state of a run that a trainer writes as it is."""
    client = module.MlflowClient()
    run_id = place.id
    if not place.joined:
        project = place.project or os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = client.get_experiment_by_name(project)
        experiment = client.create_experiment(project) if known is None else known.experiment_id
        found = client.search_runs([experiment], filter_string=f"tags.`{SERIES_TAG}` = '{place.id}'", max_results=1)
        run = found[0] if found else client.create_run(experiment, run_name=place.name, tags={SERIES_TAG: place.id})
        run_id = run.info.run_id
    now = int(time.time() * 1000)
    metrics = [module.entities.Metric(key, value, now, step) for key, value in numbers.items()]
    for start in range(0, len(metrics), MLFLOW_BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + MLFLOW_BATCH])
    return f"mlflow: run {run_id} at {module.get_tracking_uri()}"


def _tensorboard(module: Any, place: Place, numbers: dict[str, float], step: int | None) -> str:
    """Event files, scalars only; several writers may share a folder."""
    assert place.folder is not None
    writer = module.Writer(str(place.folder))
    try:
        for key, value in numbers.items():
            writer.add_scalar(key, value, step or 0)
    finally:
        writer.close()
    return f"tensorboard: {place.folder}"


_LOGGERS = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio, "tensorboard": _tensorboard}
