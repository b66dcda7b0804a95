"""What a model needs in a GPU's memory while verl trains it with FSDP, supervised or by reinforcement: an estimate, by
stated rules.

Parameters P in all, T of them trained, N ranks, sharded fully. For each rank:

- weights in ``model_dtype`` (4 P / N bytes in float32), gradients of the same type (4 T / N), AdamW's two moments
  (8 T / N);
- what is gathered for computing in 2 bytes: the largest block twice (one computes, the next is fetched) and what lies
  outside the blocks (embedding and head);
- activations with gradient checkpointing: one hidden vector of 2 bytes for each token and layer, and inside one layer
  about 34 bytes for each token and hidden unit (Korthikanti et al. 2022, table 2, without attention scores);
- the reference model of reinforcement learning with a KL loss, where it stays on the GPU: its weights, sharded
  (4 P / N bytes in float32); its own gathered layers are gone while the actor trains;
- logits: 10 bytes for each token and word of the vocabulary (2 for the values, 4 for their float32 copy, 4 for its
  gradient).

Not counted: the CUDA context, fragmentation and NCCL's buffers (add a tenth), pictures' patches in the vision tower,
savings by LoRA, by offloading to the CPU and by entropies in chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ares_eval.config import ConfigError

GATHERED_BYTES = 2
LAYER_BYTES = 34
LOGIT_BYTES = 10
MODEL_BYTES = {"fp32": 4, "float32": 4, "bf16": 2, "bfloat16": 2, "fp16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Counts of parameters: ``parameters`` in all, ``vision`` in the vision tower, ``block`` in the largest block,
    ``outside`` in no block; and the language model's shape."""

    parameters: int
    vision: int
    block: int
    outside: int
    layers: int
    hidden: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of one rank, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    logits: int
    reference: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self._parts().values())

    def __str__(self) -> str:
        told = ", ".join(f"{name} {amount(size)}" for name, size in self._parts().items())
        return f"{amount(self.total)} a rank ({told})"

    def _parts(self) -> dict[str, int]:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "gathered layers": self.gathered,
            "activations": self.activations,
            "logits": self.logits,
        }
        return {**parts, "reference model": self.reference} if self.reference else parts


def size_of(path: str, *, trust_remote_code: bool = False) -> ModelSize:
    """The size of the checkpoint at ``path`` (a folder or a Hub id), from its configuration; no weights are read.

    Raises ConfigError where there is no configuration to be had, or one that makes no model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        kind = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever transformers makes of somebody's file
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ConfigError(f"{path}: no model configuration ({' '.join(lines[:2])})") from error
    return measure(model)


def size_by(parameters: int, layers: int, hidden: int, vocabulary: int) -> ModelSize:
    """The size of a model of which only these numbers are known: as if it had no vision tower, an embedding and a head
    of its own, and all the rest in equal blocks."""
    outside = min(2 * vocabulary * hidden, parameters)
    return ModelSize(parameters, 0, (parameters - outside) // layers, outside, layers, hidden, vocabulary)


def measure(model: Any) -> ModelSize:
    """The size of a transformers model, on whichever device (the meta device is enough)."""
    from ares_train.towers import vision_towers

    text = model.config.get_text_config()
    kinds = set(model._no_split_modules or ())
    blocks = [module for module in model.modules() if type(module).__name__ in kinds]
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    seen = {id(parameter): parameter.numel() for tower in vision_towers(model) for parameter in tower.parameters()}
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vision=sum(seen.values()),
        block=max((sum(each.numel() for each in block.parameters()) for block in blocks), default=0),
        outside=sum(each.numel() for each in model.parameters() if id(each) not in inside),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
    )


def training(
    size: ModelSize,
    *,
    ranks: int,
    tokens: int,
    model_dtype: str,
    frozen_vision: bool,
    reference_dtype: str | None = None,
) -> Estimate:
    """Of one rank that computes ``tokens`` tokens at a time (with sequence parallelism: its share of them).
    ``reference_dtype``: of a reference model that stays beside the trained one; None: there is none."""
    trained = size.parameters - (size.vision if frozen_vision else 0)
    each = MODEL_BYTES[model_dtype]
    return Estimate(
        weights=each * size.parameters // ranks,
        gradients=each * trained // ranks,
        optimizer=2 * each * trained // ranks,
        gathered=GATHERED_BYTES * (2 * size.block + size.outside),
        activations=tokens * size.hidden * (2 * size.layers + LAYER_BYTES),
        logits=LOGIT_BYTES * tokens * size.vocabulary,
        reference=0 if reference_dtype is None else MODEL_BYTES[reference_dtype] * size.parameters // ranks,
    )


def amount(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
