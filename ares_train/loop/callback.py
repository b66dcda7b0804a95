"""verl's checkpoint callback: every saved checkpoint is pinned and queued, or evaluated on the spot.

    trainer.checkpoint_callback_class: ares_train.loop.callback.AresCheckpointCallback
    trainer.eval: {mode: queue, datasets: gsm8k, ...}              for `ares-train watch RUN`, which takes them over
    trainer.eval: {mode: inline, datasets: gsm8k, serve: hf, ...}  training waits; keys as in loop/settings.py

verl aborts training when a callback raises. Wrong settings raise when the trainer is built, before a step is lost;
``on_save`` never does: what goes wrong is logged in a line, and the watcher finds unqueued checkpoints by itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ares_eval import manifest
from ares_train import checkpoints
from ares_train.checkpoints import Checkpoint
from ares_train.loop import queue, settings, tracking, watch
from ares_train.loop.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

MODES = ("queue", "inline")


class AresCheckpointCallback:
    """See the head of this file; verl calls it by keyword and needs no base class."""

    def __init__(self, config: Any = None) -> None:
        """``config``: the trainer's whole DictConfig. Raises SettingsError."""
        trainer: Any = config.trainer if config is not None else {}
        section = _plain(trainer.get("eval") or {})
        self.mode = section.pop("mode", "queue")
        if self.mode not in MODES:
            raise SettingsError(f"trainer.eval.mode is {self.mode!r}; there are {', '.join(MODES)}")
        self.settings: Settings | None = None
        if self.mode == "queue" and config is not None:
            settings.leave(Path(trainer.default_local_dir), section)
        if self.mode == "inline":
            self.settings = settings.from_mapping(section)
            if self.settings.tracker:
                raise SettingsError("trainer.eval.tracker: inline results go into the trainer's own loggers")
        self._trained = _trained(config)
        self._loggers = _loggers(trainer)
        self._told = config is None

    def on_save(
        self, trainer: Any, global_step: int, checkpoint_dir: str, async_save: bool = False, **_more: Any
    ) -> None:
        """Pin and queue the checkpoint, and in mode ``inline`` evaluate it; never raises."""
        del trainer
        try:
            folder = Path(checkpoint_dir)
            if not self._told:
                tracking.write_trainer_runs(folder.parent, *self._loggers)
                self._told = True
            checkpoint = Checkpoint(global_step, folder, checkpoints.actor_of(folder))
            queue.enqueue(checkpoint, complete=not async_save, trained=self._trained)
            if self.settings is not None:
                self._evaluate(folder.parent, self.settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the training
            why = " ".join(str(error).split())
            logger.warning("step %d is not %s: %s: %s", global_step, self._doing, type(error).__name__, why)

    @property
    def _doing(self) -> str:
        return "queued for evaluation" if self.settings is None else "evaluated"

    def _evaluate(self, run_dir: Path, asked: Settings) -> None:
        def say(line: str) -> None:
            logger.info("%s", line)

        done = watch.watch(run_dir, asked, watch.End(once=True), stop=threading.Event(), say=say)
        for result in done.results:
            if result.status != "complete":
                logger.warning("step %d: %s: %s", result.step, result.status, result.reason)


def _plain(section: Any, *, resolve: bool = True) -> dict[str, Any]:
    """A section of the configuration as a dictionary, references resolved where that is asked for."""
    if isinstance(section, dict):
        return dict(section)
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(section, resolve=resolve)
    return dict(found) if isinstance(found, Mapping) else {}


def _trained(config: Any) -> dict[str, str]:
    """Who trained it: revision of the code, digest of the whole configuration, the model that was begun with."""
    here = manifest.environment()
    found = {"ares": str(here["ares"]), "git": str(here["git"] or "")}
    if config is not None:
        whole = json.dumps(_plain(config, resolve=False), sort_keys=True, default=str)
        found["config"] = f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"
        actor = config.get("actor_rollout_ref") or {}
        found["model"] = str((actor.get("model") or {}).get("path") or "")
    return {key: value for key, value in found.items() if value}


def _loggers(trainer: Any) -> tuple[str, str, list[str]]:
    """Project, experiment and the names of the trainer's loggers."""
    backends = trainer.get("logger") or []
    names = [backends] if isinstance(backends, str) else [str(name) for name in backends]
    return str(trainer.get("project_name") or ""), str(trainer.get("experiment_name") or ""), names
