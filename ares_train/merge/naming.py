"""What tensors a model must have, from its configuration alone, and what each is called on disk.

The model is built without memory (meta device) from ``config.json``; no code of a checkpoint is run. transformers names
some tensors otherwise in files than in memory (Qwen2.5-VL: ``visual.`` for ``model.visual.``); files get the names that
every loader knows, those that transformers itself would save.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ares_train.checkpoints import CheckpointError
from ares_train.merge.source import Source, Spec, same_bits

VERL_MERGER = "python -m verl.model_merger merge --backend fsdp --local_dir DIR --target_dir OUT"
CRITIC = ("ForTokenClassification", "ForSequenceClassification", "ForRewardModel")


@dataclass(frozen=True, slots=True)
class Outline:
    """``shapes``: by name in memory. ``disk``: name on disk by name in memory. ``tied``: name to the one it shares."""

    model_class: Any
    config: Any
    shapes: dict[str, tuple[int, ...]]
    disk: dict[str, str]
    tied: dict[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the target: its name in the source, in memory and on disk, and what it is in the source."""

    source: str
    memory: str
    disk: str
    spec: Spec


def outline(folder: Path) -> Outline:
    """The model that ``folder/config.json`` describes."""
    import transformers
    from transformers.core_model_loading import revert_weight_conversion

    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        names = raw.get("architectures") or []
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a model's configuration ({error})") from None
    if raw.get("auto_map"):
        raise CheckpointError(f"{path}: this model brings code of its own (auto_map), which is not run here")
    if len(names) != 1:
        raise CheckpointError(f"{path}: one architecture expected, found {names}")
    if str(names[0]).endswith(CRITIC):
        raise CheckpointError(f"{path}: {names[0]} is a critic or reward model; merge the actor beside it")
    found: object = getattr(transformers, str(names[0]), None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise CheckpointError(f"{path}: transformers {transformers.__version__} has no model {names[0]}")
    model_class: Any = found
    config = model_class.config_class.from_pretrained(folder)
    with torch.device("meta"):
        model = model_class(config)
    state = model.state_dict()
    origin = {id(tensor): name for name, tensor in state.items()}
    saved = revert_weight_conversion(model, dict(state))
    disk = {origin.get(id(tensor), ""): name for name, tensor in saved.items()}
    if disk.keys() != state.keys():
        raise CheckpointError(
            f"{names[0]}: its files differ from its memory in more than names, which is not merged here; "
            f"use {VERL_MERGER}"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return Outline(model_class, config, shapes, disk, dict(model.all_tied_weights_keys))


def plan(source: Source, model: Outline) -> list[Entry]:
    """Every tensor of the model once, in the order of the model; CheckpointError where the source has another set.

    Of tied tensors one is kept, the one that the others are tied to; those that are there must be equal.
    """
    specs = source.specs
    _refuse_adapters(specs)
    in_memory = {name: name for name in model.shapes}
    # Checkpoints of an older transformers, and all folders, have the names of files.
    naming = max((in_memory, model.disk), key=lambda names: len(specs.keys() & set(names.values())))
    entries = []
    missing = []
    for memory, shape in model.shapes.items():
        if memory in model.tied and model.tied[memory] in model.shapes:
            continue
        shared = [memory, *(other for other, first in model.tied.items() if first == memory and other in model.shapes)]
        there = [naming[name] for name in shared if naming[name] in specs]
        if not there:
            missing.append(memory)
            continue
        for other in there[1:]:
            _same(source, there[0], other)
        if specs[there[0]].shape != shape:
            raise CheckpointError(
                f"{there[0]}: shape {specs[there[0]].shape}, but the configuration of the model says {shape}"
            )
        entries.append(Entry(there[0], memory, model.disk[memory], specs[there[0]]))
    if missing:
        raise CheckpointError(f"{_some(missing)} of the model {_are(missing)} not in the checkpoint")
    left = sorted(specs.keys() - set(naming.values()))
    if left:
        raise CheckpointError(f"{_some(left)} of the checkpoint {_are(left)} unknown to {model.model_class.__name__}")
    return entries


def _refuse_adapters(specs: Mapping[str, Spec]) -> None:
    adapters = [name for name in specs if "lora_" in name or ".adapter_" in name]
    if adapters:
        raise CheckpointError(
            f"{_some(adapters)} {_are(adapters)} of a LoRA adapter, which is not folded in here; "
            f"{VERL_MERGER} writes base model and adapter apart"
        )
    heads = [name for name in specs if name.startswith(("v_head.", "value_head.", "score.")) or ".v_head." in name]
    if heads:
        raise CheckpointError(f"{_some(heads)}: a value head; this is a critic, merge the actor beside it")


def _same(source: Source, one: str, other: str) -> None:
    pairs = zip(source.pieces(one), source.pieces(other), strict=True)
    if source.specs[one] != source.specs[other] or not all(same_bits(a, b) for a, b in pairs):
        raise CheckpointError(
            f"{one} and {other}: tied by the configuration, but different in the checkpoint; "
            "set tie_word_embeddings to false in its config.json if they were trained apart"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
