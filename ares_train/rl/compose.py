"""A preset, the device's needs and the command line's overrides as one configuration for a run
(ares_train.verl_config).

Any preset of configs/train that has a node ``aepo`` will do, and any file that builds on one
(``defaults: [aepo_adaptive, _self_]``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ares_eval.config import ConfigError
from ares_train import launching, verl_config
from ares_train.rl import sections

EXACT_ON_CPU = "++aepo.branch.entropy_source=exact"
"""The CPU's rollout server tells exact entropies, and no other."""


def presets() -> list[str]:
    """Names of the shipped presets for reinforcement learning."""
    files = verl_config.presets_folder().glob("*.yaml")
    return sorted(file.stem for file in files if "\naepo:" in file.read_text(encoding="utf-8"))


def preset(name: str) -> Path:
    """The file of a shipped preset. ConfigError where there is none of that name."""
    if name not in presets():
        raise ConfigError(f"there is no preset {name!r}; there are {', '.join(presets())}")
    return verl_config.presets_folder() / f"{name}.yaml"


def compose(file: Path, overrides: Sequence[str], device: launching.Device) -> Any:
    """The resolved DictConfig of ``file`` on ``device``; overrides come last. ConfigError for what cannot be."""
    return _compose(file, overrides, [*launching.rl_on_cpu(), EXACT_ON_CPU] if device.name == "cpu" else [])


def device_of(file: Path, overrides: Sequence[str], name: str = "auto") -> launching.Device:
    """Where the run of ``file`` trains: ``name`` (cuda, cpu), or for auto the CPU where its ``trainer.device`` says so,
    else what this machine has. ConfigError for a file that is not for verl's RL trainer."""
    if name == "cuda":
        return launching.Device("cuda", 0)
    # For cpu, too: with what the CPU needs laid over it, a wrong file would be refused for what it does not have.
    device = _compose(file, overrides, []).trainer.device
    if name == "cpu" or device == "cpu":
        return launching.Device("cpu", 1)
    return launching.find_device()


def _compose(file: Path, overrides: Sequence[str], forced: Sequence[str]) -> Any:
    shipped = verl_config.presets_folder() / file.name
    if file.exists() and shipped.exists() and not shipped.samefile(file):
        # Presets build on one another by name, and would find this file instead.
        raise ConfigError(f"{file} has the name of a shipped preset: give it another one")
    config = verl_config.compose(file, [_free(word) for word in overrides], forced=forced)
    sections.check(config, file)
    return config


def load(file: Path) -> Any:
    """A configuration that ``verl_config.write`` wrote, as strict about unknown keys as Hydra's."""
    from omegaconf import OmegaConf

    config = OmegaConf.load(file)
    OmegaConf.set_struct(config, True)
    return config


def _free(word: str) -> str:
    """Settings of ``aepo`` may be given whether the preset names them or not: their own check knows unknown ones
    better."""
    return f"++{word}" if word.startswith("aepo.") else word
