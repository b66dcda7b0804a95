"""What a step of a configuration needs: rows, optimizer steps, memory of a GPU, memory of TransferQueue. Arithmetic
only.

Memory of a GPU is by the rules of ares_train.memory, the rollout engine's share is verl's setting. The bytes a token in
TransferQueue are measured (benchmarks/rl_scale.py, docs/scale.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ares_eval.config import ConfigError
from ares_train import memory, sft_checks
from ares_train.aepo.config import AEPOConfig
from ares_train.memory import ModelSize, amount

UNNAMED = "~/models/deepseek-llm-7b-chat"
"""verl's model where none is named."""

TOKEN_BYTES = 81
"""Of a response token in TransferQueue at the end of a step, AEPO's fields included (text; measured)."""

PROMPT_TOKEN_BYTES = 28
"""Of a prompt token: prompts, input_ids, position_ids, log-probs (text; measured)."""

POSITIONS_3D_BYTES = 24
"""More for each token of a vision-language model, whose positions have four rows instead of one."""

PIXEL_BYTES = 24
"""Of a pixel in each row of a question with a picture: float32, three colours, two frames (Qwen2.5-VL; measured)."""

PICTURE_PIXELS = 1_003_520
"""Of the picture that the estimate assumes: 1,280 tokens of Qwen2.5-VL."""


@dataclass(frozen=True, slots=True)
class Size:
    """A model's, and whether it takes pictures."""

    model: ModelSize
    pictures: bool


def model_path(config: Any) -> str:
    """The model's folder, with ``~`` spelled out, or its Hub id."""
    told = str(config.actor_rollout_ref.model.path)
    return str(Path(told).expanduser()) if told.startswith("~") else told


def size_of(config: Any) -> Size | None:
    """The model's size: from its folder where it is on this machine, else from the node ``model_size``; None:
    unknown. ConfigError for a folder that holds no model."""
    path = model_path(config)
    if Path(path).is_dir():
        size = memory.size_of(path, trust_remote_code=bool(config.actor_rollout_ref.model.get("trust_remote_code")))
        return Size(size, size.vision > 0)
    told = config.get("model_size")
    if told is None:
        return None
    return Size(memory.size_by(told.parameters, told.layers, told.width, told.vocabulary), bool(told.get("vision")))


def lines(config: Any) -> list[str]:
    """The estimate in lines for people. ConfigError for a model's folder that holds none."""
    from omegaconf import OmegaConf

    rollout, actor, data = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor, config.data
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    branch = AEPOConfig.from_dict(OmegaConf.to_container(config.aepo, resolve=True)).branch
    most = rollout.n
    if branch.mode == "extra":
        most = min(branch.max_trajectories, rollout.n + branch.max_per_prompt)
    prompts, steps = data.train_batch_size, data.train_batch_size // actor.ppo_mini_batch_size
    rows = f"{prompts * rollout.n}" + (f" to {prompts * most}" if most > rollout.n else "")
    size = size_of(config)
    longest = data.max_prompt_length * PROMPT_TOKEN_BYTES + data.max_response_length * TOKEN_BYTES
    if size is not None and size.pictures:
        longest += (data.max_prompt_length + data.max_response_length) * POSITIONS_3D_BYTES
    made = [
        f"processes         {config.trainer.nnodes} node(s) x {config.trainer.n_gpus_per_node} "
        f"{'GPU(s)' if config.trainer.device != 'cpu' else 'CPU actor(s)'}, {rollout.agent.num_workers} agent-loop and "
        f"{config.reward.num_workers} reward workers",
        f"a step            {prompts} prompts x {rollout.n} = {rows} rows, {steps} optimizer step(s)",
        f"TransferQueue     at most {amount(prompts * most * longest)} a step, if every answer is of full length",
    ]
    if size is not None and size.pictures:
        pictures = prompts * most * PICTURE_PIXELS * PIXEL_BYTES
        made.append(f"pictures          {amount(pictures)} more there, if every question has one of 1 M pixels")
    where = "an actor" if config.trainer.device == "cpu" else "a GPU  "
    if size is None:
        return [*made, f"memory of {where} unknown: {_why_unknown(config)}"]
    return [*made, *_memory(config, size, gpus, where)]


def _why_unknown(config: Any) -> str:
    if config.actor_rollout_ref.model.path == UNNAMED:
        return "no model is named; set actor_rollout_ref.model.path"
    return f"{model_path(config)} is not on this machine, and there is no node model_size"


def _memory(config: Any, size: Size, gpus: int, where: str) -> list[str]:
    actor, data, ref = config.actor_rollout_ref.actor, config.data, config.actor_rollout_ref.ref
    packed = actor.ppo_max_token_len_per_gpu
    if not actor.use_dynamic_bsz:
        packed = (actor.ppo_micro_batch_size_per_gpu or 1) * (data.max_prompt_length + data.max_response_length)
    referred = bool(actor.use_kl_loss) and not (ref.get("fsdp_config") or {}).get("param_offload", False)
    estimate = memory.training(
        size.model,
        ranks=gpus,
        tokens=packed,
        model_dtype=_dtype(actor),
        frozen_vision=bool((config.actor_rollout_ref.model.get("override_config") or {}).get(sft_checks.FREEZE)),
        reference_dtype=_dtype(ref) if referred else None,
    )
    shared = ""
    if config.trainer.device != "cpu":
        share = config.actor_rollout_ref.rollout.gpu_memory_utilization
        shared = f"; the rollout engine takes {share:.0%} while it generates"
    millions = f"{size.model.parameters / 1e6:,.1f} M"
    return [
        f"model             {millions} parameters{', with pictures' if size.pictures else ''}",
        f"memory of {where} {estimate} while training on {packed} tokens at a time{shared}",
    ]


def _dtype(role: Any) -> str:
    """Of the weights of the actor or the reference, float32 unless verl is told otherwise."""
    told = str((role.get("fsdp_config") or {}).get("model_dtype") or "fp32")
    if told not in memory.MODEL_BYTES:
        raise ConfigError(f"fsdp_config.model_dtype={told}: there are {', '.join(memory.MODEL_BYTES)}")
    return told
