"""A run in stages (longer answers, harder data): runs of their own, one after the other, each from the weights before.

    stages:
      - {name: 8k, overrides: [data.max_response_length=8192]}
      - {name: 16k, overrides: [data.max_response_length=16384, data.train_files=hard.parquet]}

What a stage is: the file's configuration, then the stage's ``overrides``, then those of the command line. It has its
own folder ``RUN/NAME`` with steps, checkpoints, metrics and evaluations of its own. From the second on it starts from
the *weights* of the last checkpoint of the stage before, merged to ``RUN/NAME/start``: with a new optimizer, data order
and learning rate, AEPO's state (thresholds and targets depend on the length of answers), and these weights as the
reference of the KL. A stage that was killed goes on from its own last checkpoint; one that is finished is not run
again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ares_eval.config import ConfigError

FINISHED = "finished.json"
"""In a run's folder: its configuration's digest and last step, written when training ended."""

START = "start"
"""In a stage's folder: the model that it starts from."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Stage:
    """``name`` is its folder's, empty for a run without stages."""

    name: str
    overrides: tuple[str, ...] = ()


def stages_of(config: Any) -> list[Stage]:
    """The stages of a configuration in order; one without a name where it has none. ConfigError for a wrong list."""
    from omegaconf import OmegaConf

    told = config.get("stages")
    if not told:
        return [Stage("")]
    if not OmegaConf.is_list(told):
        raise ConfigError(f"stages={told} must be a list of {{name: NAME, overrides: [KEY=VALUE, ...]}}")
    listed = OmegaConf.to_container(told)
    made = []
    for number, entry in enumerate(listed, 1):
        if not isinstance(entry, dict) or set(entry) - {"name", "overrides"} or "name" not in entry:
            raise ConfigError(f"stages: entry {number} must be {{name: NAME, overrides: [KEY=VALUE, ...]}}")
        overrides = entry.get("overrides") or []
        if not isinstance(overrides, list) or not all(isinstance(word, str) and "=" in word for word in overrides):
            raise ConfigError(f"stages: overrides of {entry['name']} must be a list of KEY=VALUE")
        if not _NAME.fullmatch(str(entry["name"])) or entry["name"] == START:
            raise ConfigError(f"stages: {entry['name']!r} cannot be the name of a folder")
        made.append(Stage(str(entry["name"]), tuple(overrides)))
    if len({stage.name for stage in made}) < len(made):
        raise ConfigError("stages: two have one name, and so one folder")
    return made


def words_of(stage: Stage, run: Path, before: Path | None) -> list[str]:
    """Overrides of a stage in the folder ``run``: its own, then its folder and the model that the stage ``before``
    (its folder; None: the first) left."""
    if not stage.name:
        return []
    folder = run / stage.name
    start = [] if before is None else [f"actor_rollout_ref.model.path={folder / START}"]
    return [*stage.overrides, f"trainer.default_local_dir={folder}", *start]


def digest(config: Any) -> str:
    """Of a whole configuration; the same for the same settings."""
    from omegaconf import OmegaConf

    whole = json.dumps(OmegaConf.to_container(config, resolve=True), sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"


def finished(folder: Path, config: Any) -> bool:
    """Whether the run in ``folder`` ended in order, with this very configuration."""
    try:
        noted = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(noted, dict) and noted.get("config") == digest(config)


def note_finished(folder: Path, config: Any, step: int | None) -> None:
    """Note that the run in ``folder`` ended in order; ``step`` of its last checkpoint, None where it saved none."""
    draft = folder / f"{FINISHED}.part"
    draft.write_text(json.dumps({"config": digest(config), "step": step}) + "\n", encoding="utf-8")
    draft.replace(folder / FINISHED)


def check(configs: Sequence[tuple[Stage, Any]]) -> None:
    """ConfigError where a stage would leave the next one no checkpoint to start from."""
    for stage, config in configs[:-1]:
        if config.trainer.save_freq <= 0:
            raise ConfigError(f"stage {stage.name} saves no checkpoint for the next one: set trainer.save_freq above 0")
