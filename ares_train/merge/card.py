"""The model card of a merged checkpoint: what it is and where it comes from, no more."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ares_train.checkpoints import HF_FOLDER

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Of a model on the Hub; a path of this machine is nobody's business."""


RUN_CONFIGS = {"sft_config.yaml": ("model", "path"), "config.yaml": ("actor_rollout_ref", "model", "path")}
"""Where our launchers leave the configuration of a run, and what of it names the model that training began with."""
RUN_DEPTH = 6
"""A run's folder is so far above its checkpoint at most: a pinned one lies under eval/pinned."""


def base_model(actor: Path) -> str | None:
    """Name on the Hub of the model that training began with; None where nothing tells, or it was a local folder."""
    config = json.loads((actor / HF_FOLDER / "config.json").read_text(encoding="utf-8"))
    named = [config.get("_name_or_path")]
    for folder in list(actor.resolve().parents)[:RUN_DEPTH]:
        named += [_value(folder / name, keys) for name, keys in RUN_CONFIGS.items() if (folder / name).is_file()]
    names = [name for name in named if isinstance(name, str) and HUB_NAME.fullmatch(name) and not Path(name).exists()]
    return names[0] if names else None


def _value(path: Path, keys: Sequence[str]) -> object:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def text(folder: Path, made: Mapping[str, Any], base: str | None) -> str:
    """The card of the model in ``folder``; ``made``: the fields of Merged; ``base``: as of base_model."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    pictures = "vision_config" in config
    head = ["library_name: transformers", f"pipeline_tag: {'image-text-to-text' if pictures else 'text-generation'}"]
    if base is not None:
        head.append(f"base_model: {base}")
    head.append("tags: [ares]")
    rows = {
        "base model": base or "not recorded",
        "training step": made["step"] if made["step"] is not None else "not recorded",
        "checkpoint": f"`{made['source_digest']}`",
        "parameters": f"{made['parameters']:,} in {made['tensors']:,} tensors",
        "type": made["dtype"],
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    checks = "\n".join(f"- {line}" for line in made["checked"]) or "- nothing was compared (merged with `--no-check`)"
    joined = "\n".join(head)
    return (
        f"---\n{joined}\n---\n\n# {config['architectures'][0]} trained with ARES\n\n"
        f"Merged by `ares-train merge` from the files of a verl checkpoint.\n\n| | |\n|---|---|\n{table}\n\n"
        f"Compared with the checkpoint:\n\n{checks}\n"
    )
