"""Where the vision tower of a transformers model is."""

from __future__ import annotations

from typing import Any

TOWERS = ("visual", "vision_tower", "vision_model")
"""What vision-language models of transformers call their vision tower, as the last part of its name."""


def vision_towers(model: Any) -> list[Any]:
    """The modules that are vision towers, projection into the language model included where it is a part of them (as
    Qwen2.5-VL's merger is); none in a model of text. Parts of a tower may be listed beside it."""
    return [module for name, module in model.named_modules() if name.rpartition(".")[2] in TOWERS]
