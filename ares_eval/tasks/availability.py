"""Whether a task's data can be had here, without network and without reading a row: for `ares-eval list`."""

from __future__ import annotations

import os
from pathlib import Path

from ares_eval.tasks.definition import Definition
from ares_eval.tasks.errors import TaskError
from ares_eval.tasks.sources import find_local


def availability(definition: Definition, dataset_dir: Path | None) -> tuple[bool | None, str]:
    """(here, where): True with its place, None where the hub has to be asked, False with the cause."""
    try:
        source = find_local(definition, dataset_dir)
    except TaskError as error:
        return False, str(error)
    if source is not None:
        return True, source.description
    if definition.hub is None:
        return False, "only in a --dataset-dir"
    if in_cache(definition.hub.path):
        return True, f"hub's cache: {definition.hub.path}"
    gated = ", gated" if definition.metadata.get("gated") else ""
    if offline():
        return False, f"hub: {definition.hub.path}{gated} (offline)"
    return None, f"hub: {definition.hub.path}{gated}"


def hub_cache() -> Path:
    """The folder of huggingface_hub's cache, by its own environment variables."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("HF_HOME", f"{cache}/huggingface")).expanduser() / "hub"


def in_cache(path: str) -> bool:
    """Whether something of a dataset lies in the hub's cache."""
    snapshots = hub_cache() / f"datasets--{path.replace('/', '--')}" / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())


def offline() -> bool:
    """Whether HF_HUB_OFFLINE (or the name that `datasets` also knows) is set."""
    named = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))
    return any(value.upper() in ("1", "ON", "YES", "TRUE") for value in named)
