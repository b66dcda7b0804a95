"""Is this a configuration of verl's RL trainer at all? Asked before anything reads it: sections, and values that are
computed with. What they mean together is a matter of ares_train.rl.config."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ares_eval.config import ConfigError

NEEDED = ("actor_rollout_ref", "algorithm", "data", "reward", "trainer")
"""Sections without which a file is for something else."""

MAPPINGS = (
    *NEEDED,
    "actor_rollout_ref.actor",
    "actor_rollout_ref.model",
    "actor_rollout_ref.ref",
    "actor_rollout_ref.rollout",
    "actor_rollout_ref.rollout.agent",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.rollout.engine_kwargs.vllm",
    "actor_rollout_ref.rollout.multi_turn",
    "algorithm.filter_groups",
    "ray_kwargs",
    "ray_kwargs.ray_init",
    "trainer.v1",
)

MAPPINGS_OR_NONE = (
    "actor_rollout_ref.actor.fsdp_config",
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.ref.fsdp_config",
    "actor_rollout_ref.rollout.mtp",
    "aepo",
    "algorithm.rollout_correction",
    "critic",
    "distillation",
    "model_size",
    "ray_kwargs.ray_init.runtime_env",
)

COUNTS = (
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.rollout.agent.num_workers",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.response_length",
    "data.max_prompt_length",
    "data.max_response_length",
    "data.train_batch_size",
    "reward.num_workers",
    "trainer.n_gpus_per_node",
    "trainer.nnodes",
    "trainer.total_epochs",
)
"""Whole numbers from 1 on."""

COUNTS_OR_NONE = (
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu",
    "trainer.total_training_steps",
)

STEPS = ("trainer.save_freq", "trainer.test_freq")
"""Whole numbers, 0 or less for never."""

NUMBERS = (
    "actor_rollout_ref.rollout.gpu_memory_utilization",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.top_k",
    "actor_rollout_ref.rollout.top_p",
)

NAMES = (
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.model.path",
    "trainer.default_local_dir",
)

FILES = ("data.train_files", "data.val_files")
"""A path, or a list of paths."""

SIZES = ("parameters", "layers", "width", "vocabulary")
"""Whole numbers of ``model_size``."""


def check(config: Any, file: Path) -> None:
    """ConfigError, one line for each thing, where ``config`` (of ``file``) is no configuration for a run."""
    from omegaconf import OmegaConf

    if not OmegaConf.is_dict(config) or not set(NEEDED) <= set(config):
        raise ConfigError(
            f"{file} is no configuration of verl's RL trainer: build on a preset (defaults: [aepo_adaptive, _self_])"
        )
    found = list(_complaints(config))
    if found:
        raise ConfigError("\n".join(found))


def _complaints(config: Any) -> Iterator[str]:
    from omegaconf import OmegaConf

    def value(name: str) -> Any:
        node = config
        for part in name.split("."):
            node = node.get(part) if OmegaConf.is_dict(node) else None
        return node

    broken: list[str] = []
    for name in (*MAPPINGS, *MAPPINGS_OR_NONE):
        told = value(name)
        # What is wrong with a section is said once, not again for what is in it.
        inside = any(name.startswith(f"{other}.") for other in broken)
        if not (inside or OmegaConf.is_dict(told) or (told is None and name in MAPPINGS_OR_NONE)):
            broken.append(name)
            yield f"{name}={_shown(told)} must be a section of settings: leave it as it is, and set what is in it"

    def given(*names: str) -> Iterator[tuple[str, Any]]:
        return ((name, value(name)) for name in names if not any(name.startswith(f"{b}.") for b in broken))

    for name, told in given(*COUNTS, *COUNTS_OR_NONE):
        if not (_whole(told) and told >= 1) and not (told is None and name in COUNTS_OR_NONE):
            yield f"{name}={_shown(told)} must be a whole number above 0"
    for name, told in given(*STEPS):
        if not _whole(told):
            yield f"{name}={_shown(told)} must be a number of steps (-1: never)"
    for name, told in given(*NUMBERS):
        if not _whole(told) and not isinstance(told, float):
            yield f"{name}={_shown(told)} must be a number"
    for name, told in given(*NAMES):
        if not isinstance(told, str) or not told:
            yield f"{name}={_shown(told)} must be given"
    for name, told in given(*FILES):
        listed = list(told) if OmegaConf.is_list(told) else [told]
        if not listed or not all(isinstance(one, str) and one for one in listed):
            yield f"{name}={_shown(told)} must be a parquet file or a list of them"
    if value("model_size") is not None:
        for name, told in given(*(f"model_size.{name}" for name in SIZES)):
            if not (_whole(told) and told >= 1):
                yield f"{name}={_shown(told)} must be a whole number above 0"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
