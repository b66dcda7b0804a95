"""What a step of a configuration needs: rows, optimizer steps, memory of a GPU, memory of TransferQueue. Arithmetic
only.

Estimates, each with its formula; what is not in them: fragmentation, NCCL's buffers, the rollout engine's own
activations. The bytes a token in TransferQueue are measured (benchmarks/rl_scale.py, docs/scale.md).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GIB = 1024**3

TRAINED_BYTES = 16
"""Of a trained parameter: float32 weight, gradient, and AdamW's two moments."""

LOGIT_BYTES = 6
"""Of a logit: bfloat16 from the head, and float32 while its row is normalised."""

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

MAX_HEADER = 100 << 20


@dataclass(frozen=True, slots=True)
class Size:
    """A model's: ``parameters`` in all, ``layers`` and ``width`` of the language model, ``vocabulary``, ``vision``:
    whether it takes pictures."""

    parameters: int
    layers: int
    width: int
    vocabulary: int
    vision: bool


def size_of(config: Any) -> Size | None:
    """The model's size: from its folder where it is on this machine, else from the node ``model_size``; None:
    unknown."""
    folder = Path(str(config.actor_rollout_ref.model.path))
    if (folder / "config.json").is_file():
        return _size_in(folder)
    told = config.get("model_size")
    if told is None:
        return None
    return Size(int(told.parameters), int(told.layers), int(told.width), int(told.vocabulary), bool(told.vision))


def _size_in(folder: Path) -> Size:
    whole = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text: Mapping[str, Any] = whole.get("text_config") or whole
    parameters = sum(_parameters(file) for file in sorted(folder.glob("*.safetensors")))
    numbers = [int(text.get(name) or 0) for name in ("num_hidden_layers", "hidden_size", "vocab_size")]
    return Size(parameters, numbers[0], numbers[1], numbers[2], "vision_config" in whole)


def _parameters(file: Path) -> int:
    """Elements of all tensors of a safetensors file, from its header."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > MAX_HEADER:
            raise ValueError(f"{file} is no safetensors file")
        header = json.loads(opened.read(length))
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            elements = 1
            for side in entry["shape"]:
                elements *= int(side)
            total += elements
    return total


def lines(config: Any) -> list[str]:
    """The estimate in lines for people."""
    rollout, actor, data = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor, config.data
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    branch = config.aepo.get("branch") or {}
    most = branch.get("max_trajectories", 16) if branch.get("mode") == "extra" else rollout.n
    if branch.get("mode") == "extra":
        most = min(most, rollout.n + branch.get("max_per_prompt", 8))
    prompts, steps = data.train_batch_size, data.train_batch_size // actor.ppo_mini_batch_size
    rows = f"{prompts * rollout.n}" + (f" to {prompts * most}" if most > rollout.n else "")
    size = size_of(config)
    longest = data.max_prompt_length * PROMPT_TOKEN_BYTES + data.max_response_length * TOKEN_BYTES
    if size is not None and size.vision:
        longest += (data.max_prompt_length + data.max_response_length) * POSITIONS_3D_BYTES
    made = [
        f"processes         {config.trainer.nnodes} node(s) x {config.trainer.n_gpus_per_node} "
        f"{'GPU(s)' if config.trainer.device != 'cpu' else 'CPU actor(s)'}, {rollout.agent.num_workers} agent-loop and "
        f"{config.reward.num_workers} reward workers",
        f"a step            {prompts} prompts x {rollout.n} = {rows} rows, {steps} optimizer step(s)",
        f"TransferQueue     at most {_gib(prompts * most * longest)} a step, if every answer is of full length",
    ]
    if size is not None and size.vision:
        pictures = prompts * most * PICTURE_PIXELS * PIXEL_BYTES
        made.append(f"pictures          {_gib(pictures)} more there, if every question has one of 1 M pixels")
    if size is None:
        return [*made, "memory of a GPU   unknown: the model is not on this machine, and there is no node model_size"]
    return [*made, *_memory(config, size, gpus)]


def _memory(config: Any, size: Size, gpus: int) -> list[str]:
    actor, data = config.actor_rollout_ref.actor, config.data
    packed = actor.ppo_max_token_len_per_gpu
    if not actor.use_dynamic_bsz:
        packed = (actor.ppo_micro_batch_size_per_gpu or 1) * (data.max_prompt_length + data.max_response_length)
    sharded = size.parameters * TRAINED_BYTES / gpus
    logits = packed * size.vocabulary * LOGIT_BYTES
    # With checkpointing each layer keeps its input, in bfloat16.
    activations = packed * size.width * size.layers * 2
    training = sharded + logits + activations
    where, shared = "an actor", ""
    if config.trainer.device != "cpu":
        share = config.actor_rollout_ref.rollout.gpu_memory_utilization
        where, shared = "a GPU   ", f"; the rollout engine takes {share:.0%} while it generates"
    return [
        f"model             {size.parameters / 1e6:,.1f} M parameters{', with pictures' if size.vision else ''}",
        f"memory of {where} {_gib(training)} while training: weights, gradients and Adam {_gib(sharded)}, logits of "
        f"{packed} tokens {_gib(logits)}, layers' inputs {_gib(activations)}{shared}",
    ]


def _gib(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 1024**2:.0f} MiB"
