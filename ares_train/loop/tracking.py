"""Where a checkpoint's figures go: the trainer's own run of a tracker where that may be shared, else one beside it.

The trainer's side writes ``RUN/tracker.json``: its project and experiment, and what identifies its runs. By tracker:

    tensorboard  the trainer's folder: event files of several writers stand together
    mlflow       the trainer's run, by its id
    trackio      the trainer's run, by project and name
    wandb        the trainer's run only where it was begun in wandb's mode "shared"; else a run NAME-eval in its group
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import msgspec

from ares_eval.series import steps
from ares_eval.trackers import Place
from ares_train.loop.queue import EVAL

TRAINER, SERIES_ID = "tracker.json", "series_id"


class TrainerRuns(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainer told of its trackers; empty where it has none of a kind."""

    project: str = ""
    experiment: str = ""
    wandb: str = ""
    wandb_shared: bool = False
    mlflow: str = ""
    tensorboard: str = ""
    trackio: bool = False


def write_trainer_runs(run_dir: Path, project: str, experiment: str, backends: list[str]) -> None:
    """Keep what is known in the trainer's process of the runs that its loggers write. Raises OSError."""
    told: dict[str, Any] = {}
    wandb, mlflow = sys.modules.get("wandb"), sys.modules.get("mlflow")
    if "wandb" in backends and wandb is not None and wandb.run is not None:
        told |= {"wandb": str(wandb.run.id), "wandb_shared": wandb.run.settings.mode == "shared"}
    if "mlflow" in backends and mlflow is not None and (active := mlflow.active_run()) is not None:
        told["mlflow"] = str(active.info.run_id)
    if "tensorboard" in backends:
        # As verl's own logger chooses it.
        folder = os.environ.get("TENSORBOARD_DIR", f"tensorboard_log/{project}/{experiment}")
        told["tensorboard"] = str(Path(folder).resolve())
    steps.write(
        run_dir / TRAINER,
        TrainerRuns(project=project, experiment=experiment, trackio="trackio" in backends, **told),
    )


def trainer_runs(run_dir: Path) -> TrainerRuns:
    """What the trainer told; nothing where it told nothing, or what cannot be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((run_dir / TRAINER).read_bytes(), type=TrainerRuns)
    return TrainerRuns()


def place(run_dir: Path, name: str, model: str) -> tuple[str, Place]:
    """Tracker and place for ``name``, an entry of the settings (``wandb``, ``mlflow:RUN_ID``, ...). Raises OSError."""
    tracker, _, given = name.partition(":")
    told = trainer_runs(run_dir)
    experiment = told.experiment or run_dir.resolve().name
    own = Place(
        f"{experiment}-eval",
        id=_series_id(run_dir),
        project=told.project,
        group=experiment,
        folder=run_dir / EVAL / "tensorboard",
        settings={"model": model, "training run": experiment},
    )
    if tracker == "tensorboard":
        shared = given or told.tensorboard
        return tracker, dataclasses.replace(own, folder=Path(shared)) if shared else own
    if tracker == "trackio":
        return tracker, dataclasses.replace(own, name=given or (experiment if told.trackio else own.name))
    identity = given or (told.mlflow if tracker == "mlflow" else told.wandb if told.wandb_shared else "")
    return tracker, dataclasses.replace(own, name=experiment, id=identity, joined=True) if identity else own


def _series_id(run_dir: Path) -> str:
    """What our own run of a tracker is found by again; it stays with the folder when that is moved."""
    file = run_dir / EVAL / SERIES_ID
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.part")
        part.write_text(secrets.token_hex(8), encoding="ascii")
        part.replace(file)
    return file.read_text(encoding="ascii").strip()
