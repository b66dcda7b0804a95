"""A dataset folder as the Hub has it (config, split, column names), read without the `datasets` library.

Which files make a split is said by the `configs:` of the folder's README.md, or else by the Hub's own conventions
for file names. Reading the files directly keeps two folders of one name apart, which the `datasets` cache does not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ares_eval.tasks.arrow import Parquet
from ares_eval.tasks.definition import Definition
from ares_eval.tasks.errors import DataUnavailable
from ares_eval.tasks.rows import JsonFile, JsonLines, Table
from ares_eval.tasks.sources import Source, choose_splits, described, of_configs

_SUFFIXES = (".parquet", ".jsonl", ".json")
_FRONT_MATTER = re.compile(rb"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


def hub_folder_source(definition: Definition, dataset_dir: Path) -> Source | None:
    """The task's rows from `DIR/hub_<name>/`, `DIR/<name>/hub_<name>*/`; None where there is no such folder."""
    if definition.hub is None:
        return None
    for folder in candidates(definition.folders, dataset_dir):
        name, configs = definition.name, definition.hub.configs or (definition.hub.config,)
        files = {config: split_files(name, folder, config) for config in configs}
        here = [config for config in configs if choose_splits(definition, files[config].__contains__) is not None]
        if not here:
            continue
        splits = choose_splits(definition, files[here[0]].__contains__)
        assert splits is not None
        tables: tuple[Table, ...]
        if definition.hub.configs:
            there = {config: _table(name, files[config][splits[0]], splits[0]) for config in here if config}
            tables = of_configs(definition.hub, functools.partial(_of, there), splits, list(there))
        else:
            tables = tuple(_table(name, files[here[0]][split], split) for split in splits)
        part = f", {len(here)} of {len(configs)} configs" if len(here) < len(configs) else ""
        return Source(
            name, "hub-folder", f"hub folder: {folder} ({described(definition, splits)}{part})", folder, tables
        )
    return None


def _of(tables: Mapping[str, Table], config: str, _: str) -> Table:
    return tables[config]


def candidates(names: Sequence[str], dataset_dir: Path) -> list[Path]:
    """Folders that may hold a task of these names in the Hub's form, best first."""
    found: list[Path] = []
    for name in names:
        inside = dataset_dir / name
        found += [dataset_dir / f"hub_{name}", inside / f"hub_{name}"]
        found += sorted(path for path in inside.glob(f"hub_{name}[_-]*") if path.is_dir())
    return [path for path in found if path.is_dir()]


def split_files(name: str, folder: Path, config: str | None) -> dict[str, list[Path]]:
    """Split -> its files in order. Raises DataUnavailable for a README that cannot be read."""
    declared = _declared(name, folder, config)
    if declared is not None:
        return declared
    roots = [folder / config] if config and (folder / config).is_dir() else [folder / "data", folder]
    splits: dict[str, list[Path]] = {}
    for root in roots:
        for path in sorted(root.glob("*")) + sorted(root.glob("*/*")):
            if path.suffix not in _SUFFIXES or not path.is_file():
                continue
            stem = re.sub(r"-\d+(-of-\d+.*)?$", "", path.stem)
            split = path.parent.name if path.parent != root else stem
            splits.setdefault(split, []).append(path)
        if splits:
            break
    return splits


def _declared(name: str, folder: Path, config: str | None) -> dict[str, list[Path]] | None:
    readme = folder / "README.md"
    if not readme.is_file():
        return None
    match = _FRONT_MATTER.match(readme.read_bytes()[: 1 << 20])
    if match is None:
        return None
    try:
        front: Any = yaml.load(match[1], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise DataUnavailable(name, f"{readme} has a broken head: {error}", "mend or remove it") from error
    configs = front.get("configs") if isinstance(front, dict) else None
    if not isinstance(configs, list):
        return None
    chosen = [c for c in configs if isinstance(c, dict) and c.get("config_name", "default") == (config or "default")]
    if config is None and not chosen and len(configs) == 1 and isinstance(configs[0], dict):
        chosen = configs
    splits: dict[str, list[Path]] = {}
    for entry in chosen:
        files = entry.get("data_files", [])
        listed = files if isinstance(files, list) else [{"split": "train", "path": files}]
        for item in listed:
            if isinstance(item, dict) and isinstance(item.get("split"), str):
                splits.setdefault(item["split"], []).extend(_matching(folder, item.get("path")))
    return {split: paths for split, paths in splits.items() if paths}


def _matching(folder: Path, patterns: Any) -> list[Path]:
    found: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns or []:
        if not isinstance(pattern, str) or pattern.startswith("/") or ".." in pattern.split("/"):
            continue
        found += sorted(path for path in folder.glob(pattern) if path.suffix in _SUFFIXES and path.is_file())
    return found


def _table(name: str, paths: list[Path], split: str) -> Table:
    if all(path.suffix == ".parquet" for path in paths):
        return Parquet(paths, split)
    if len(paths) == 1:
        return JsonFile(paths[0], split, None) if paths[0].suffix == ".json" else JsonLines(paths[0], split)
    raise DataUnavailable(name, f"split {split} has {len(paths)} JSON files", "give it as one file or as parquet")
