"""What a model needs in a GPU's memory while verl trains it with FSDP: an estimate, by stated rules.

Parameters P in all, T of them trained, N ranks, sharded fully. For each rank:

- weights in ``model_dtype`` (4 P / N bytes in float32), gradients of the same type (4 T / N), AdamW's two moments
  (8 T / N);
- what is gathered for computing in 2 bytes: the largest block twice (one computes, the next is fetched) and what lies
  outside the blocks (embedding and head);
- activations with gradient checkpointing: one hidden vector of 2 bytes for each token and layer, and inside one layer
  about 34 bytes for each token and hidden unit (Korthikanti et al. 2022, table 2, without attention scores);
- logits: 10 bytes for each token and word of the vocabulary (2 for the values, 4 for their float32 copy, 4 for its
  gradient).

Not counted: the CUDA context, fragmentation (add a tenth), pictures' patches in the vision tower.
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

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations + self.logits

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "gathered layers": self.gathered,
            "activations": self.activations,
            "logits": self.logits,
        }
        told = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
        return f"{_size(self.total)} a rank ({told})"


def size_of(path: str, *, trust_remote_code: bool = False) -> ModelSize:
    """The size of the checkpoint at ``path`` (a folder or a Hub id), from its configuration; no weights are read.

    Raises ConfigError where there is no configuration to be had.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no model configuration ({str(error).splitlines()[0]})") from error
    kind = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config, trust_remote_code=trust_remote_code)
    return measure(model)


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


def training(size: ModelSize, *, ranks: int, tokens: int, model_dtype: str, frozen_vision: bool) -> Estimate:
    """Of one rank that computes ``tokens`` tokens at a time (with sequence parallelism: its share of them)."""
    trained = size.parameters - (size.vision if frozen_vision else 0)
    each = MODEL_BYTES[model_dtype]
    return Estimate(
        weights=each * size.parameters // ranks,
        gradients=each * trained // ranks,
        optimizer=2 * each * trained // ranks,
        gathered=GATHERED_BYTES * (2 * size.block + size.outside),
        activations=tokens * size.hidden * (2 * size.layers + LAYER_BYTES),
        logits=LOGIT_BYTES * tokens * size.vocabulary,
    )


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
