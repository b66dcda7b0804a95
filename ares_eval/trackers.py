"""A run's figures in an experiment tracker: Weights & Biases, MLflow, trackio or TensorBoard.

Every tracker gets the same flat names (``gsm8k/accuracy``, ``gsm8k/hwe_tokens``, ...) and the settings of the run,
which hold no secrets. The tracker's package is imported when it is used; where it goes and as whom is the tracker's own
configuration (WANDB_PROJECT, MLFLOW_TRACKING_URI, ...).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
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


class TrackerUnavailable(Exception):
    """The tracker's package is not installed, or it refused; the message says which and what would do."""


def log_run(tracker: str, run: Run, results: Mapping[str, Json], analysis: Analysis | None = None) -> str:
    """Log one run as one run of the tracker; a line that says where it went. Raises TrackerUnavailable."""
    if tracker not in TRACKERS:
        raise TrackerUnavailable(f"no tracker {tracker!r}; there are {', '.join(TRACKERS)}")
    module = _module(tracker)
    name = f"{run.manifest.get('model') or 'run'}/{run.folder.name}"
    logged = _Logged(run, name, figures(results, analysis), _settings(run))
    try:
        return _LOGGERS[tracker](module, logged)
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
    """Raise TrackerUnavailable where the tracker's package is not installed."""
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


@dataclass(frozen=True, slots=True)
class _Logged:
    """What a tracker gets."""

    run: Run
    name: str
    numbers: dict[str, float]
    settings: dict[str, str]


def _wandb(module: Any, logged: _Logged) -> str:
    """Weights & Biases. The id is the run's digest, so that logging again overwrites instead of adding."""
    session = module.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=logged.name,
        id=str(logged.run.manifest.get("digest") or "")[:32] or None,
        resume="allow",
        config=logged.settings,
        job_type="evaluation",
    )
    module.log(logged.numbers)
    where = getattr(session, "url", None) or "offline"
    module.finish()
    return f"wandb: {where}"


def _trackio(module: Any, logged: _Logged) -> str:
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    module.init(project=project, name=logged.name, config=logged.settings)
    module.log(logged.numbers)
    module.finish()
    return f"trackio: project {project}, run {logged.name}"


def _mlflow(module: Any, logged: _Logged) -> str:
    if not os.environ.get("MLFLOW_EXPERIMENT_NAME") and not os.environ.get("MLFLOW_EXPERIMENT_ID"):
        module.set_experiment(PROJECT)
    with module.start_run(run_name=logged.name) as started:
        module.log_params(logged.settings)
        module.log_metrics(logged.numbers)
        return f"mlflow: run {started.info.run_id} at {module.get_tracking_uri()}"


def _tensorboard(module: Any, logged: _Logged) -> str:
    """Event files below ``$TENSORBOARD_LOGDIR`` (default: the run's folder); scalars only."""
    base = os.environ.get("TENSORBOARD_LOGDIR")
    folder = Path(base) / logged.name if base else logged.run.folder / "tensorboard"
    writer = module.Writer(str(folder))
    try:
        for key, value in logged.numbers.items():
            writer.add_scalar(key, value, 0)
    finally:
        writer.close()
    return f"tensorboard: {folder}"


_LOGGERS = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio, "tensorboard": _tensorboard}
