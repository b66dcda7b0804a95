"""The model card of a merged checkpoint: what it is and where it comes from, no more."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Of a model on the Hub; a path of this machine is nobody's business."""


def text(folder: Path, made: Mapping[str, Any]) -> str:
    """The card of the model in ``folder``; ``made``: the fields of Merged."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    base = str(config.get("_name_or_path") or "")
    pictures = "vision_config" in config
    head = ["library_name: transformers", f"pipeline_tag: {'image-text-to-text' if pictures else 'text-generation'}"]
    known = HUB_NAME.fullmatch(base) is not None and not Path(base).exists()
    if known:
        head.append(f"base_model: {base}")
    head.append("tags: [ares]")
    rows = {
        "base model": base if known else "not recorded in the checkpoint",
        "training step": made["step"] if made["step"] is not None else "not recorded in the checkpoint's path",
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
