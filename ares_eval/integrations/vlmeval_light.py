"""VLMEvalKit's datasets without VLMEvalKit's start: no torch, no model classes, no side effects. In the child only.

`import vlmeval` takes half a minute, a gigabyte and torch, switches certificate checks off and reads a ``.env``. Here
the two packages get empty modules whose ``__path__`` is the installed folder, so that each dataset module is imported
by itself, after a few of their functions were replaced (vlmeval_stand_ins.py).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import json
import multiprocessing
import os
import pkgutil
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ares_eval.integrations import vlmeval_stand_ins as stand_ins

PACKAGE = "ms-vlmeval"
LMU_DATA = "LMUData"


def package_folder() -> Path:
    """The installed ``vlmeval`` folder, found without importing it. Raises PackageNotFoundError."""
    return Path(str(importlib.metadata.distribution(PACKAGE).locate_file("vlmeval")))


def install(judge: Callable[..., Any]) -> None:
    """Make ``vlmeval.dataset.*`` importable, once per process; ``judge(**kwargs)`` stands in for build_judge."""
    root = package_folder()
    for name, folder in (("vlmeval", root), ("vlmeval.dataset", root / "dataset")):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
    stand_ins.guard_eval()
    sys.modules["timeout_decorator"] = stand_ins.timeouts()
    multiprocessing.Pool = stand_ins.Pool  # type: ignore[assignment]
    files = importlib.import_module("vlmeval.smp.file")
    smp = importlib.import_module("vlmeval.smp")
    files.load = smp.load = stand_ins.own_temporary(stand_ins.texts_kept(files.load), 0)  # type: ignore[attr-defined]
    files.dump = smp.dump = stand_ins.own_temporary(files.dump, 1)  # type: ignore[attr-defined]
    utils = importlib.import_module("vlmeval.utils")
    importlib.import_module("vlmeval.utils.mp_util").track_progress_rich = stand_ins.track  # type: ignore[attr-defined]
    utils.track_progress_rich = stand_ins.track  # type: ignore[attr-defined]
    judging = importlib.import_module("vlmeval.dataset.utils.judge_util")
    judging.build_judge = judge  # type: ignore[attr-defined]
    for name, module in list(sys.modules.items()):
        if name.startswith("vlmeval.") and hasattr(module, "build_judge"):
            module.build_judge = judge  # type: ignore[attr-defined]


# ---------------------------------------------------------------- which datasets there are


def index() -> dict[str, Any]:
    """Every dataset that can be reached: name -> module, class, url, md5, type, modality; and what cannot, why."""
    root = package_folder() / "dataset"
    # Of classes that claim the same name VLMEvalKit takes the first of its lists, which follow the imports.
    lists = (root / "__init__.py").read_text(encoding="utf-8").partition("\nIMAGE_DATASET = [")[2]
    order = re.findall(r"\b[A-Z_]\w+", lists)
    rank = {name: place for place, name in reversed(list(enumerate(order)))}
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    missing: dict[str, str] = {}
    for info in pkgutil.iter_modules([str(root)]):
        if info.name == "utils":
            continue
        try:
            module = importlib.import_module(f"vlmeval.dataset.{info.name}")
        except Exception as error:  # noqa: BLE001 - a module that needs more packages is one that is not reached
            missing[info.name] = f"{type(error).__name__}: {error}"[:200]
            continue
        for kind in vars(module).values():
            if not (inspect.isclass(kind) and kind.__name__ in rank and hasattr(kind, "supported_datasets")):
                continue
            if not kind.__module__.startswith(f"vlmeval.dataset.{info.name}"):
                continue
            for name in _names(kind):
                entry = _entry(name, kind)
                if name not in found or rank[kind.__name__] < found[name][0]:
                    found[name] = (rank[kind.__name__], entry)
    return {"datasets": {name: entry for name, (_, entry) in sorted(found.items())}, "missing": missing}


def _names(kind: Any) -> list[str]:
    try:
        return [str(name) for name in kind.supported_datasets()]
    except Exception:  # noqa: BLE001 - base classes raise whatever they like
        return []


def _entry(name: str, kind: Any) -> dict[str, Any]:
    def of(attribute: str) -> Any:
        table = getattr(kind, attribute, None)
        value = table.get(name) if isinstance(table, Mapping) else None
        return value if isinstance(value, str) and value else None

    kinds = [str(getattr(kind, a, "") or "") for a in ("TYPE", "MODALITY")]
    return {
        "module": kind.__module__,
        "class": kind.__name__,
        "url": of("DATASET_URL"),
        "md5": of("DATASET_MD5"),
        "type": kinds[0],
        "modality": kinds[1] or "IMAGE",
    }


def build(name: str, entry: Mapping[str, Any] | None) -> Any:
    """The dataset object, its rows read from ``$LMUData``; ``entry`` None: a table of the user's own."""
    kind = _custom(name) if entry is None else getattr(importlib.import_module(entry["module"]), entry["class"])
    # The caller has compared the checksum and says so; here a difference would start a download.
    checksums = getattr(kind, "DATASET_MD5", None)
    if isinstance(checksums, dict) and name in checksums:
        kind.DATASET_MD5 = {key: value for key, value in checksums.items() if key != name}
    return kind(dataset=name)


def _custom(name: str) -> Any:
    """The class that VLMEvalKit takes for a table it does not know (its build_dataset)."""
    import pandas as pd

    head = pd.read_csv(Path(os.environ[LMU_DATA]) / f"{name}.tsv", sep="\t", nrows=1)
    if "question" not in [str(column).lower() for column in head.columns]:
        raise ValueError(f"{name}.tsv has no column `question`")
    pictures = "image" in head or "image_path" in head
    if "A" in head and "B" in head:
        module, kind = ("image_mcq", "CustomMCQDataset") if pictures else ("text_mcq", "CustomTextMCQDataset")
    else:
        module, kind = "image_vqa", "CustomVQADataset"
    return getattr(importlib.import_module(f"vlmeval.dataset.{module}"), kind)


# ---------------------------------------------------------------- values that JSON carries


def plain(value: Any) -> Any:
    """A cell or metric as JSON: None for what is missing; text for what JSON has no word for."""
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        with contextlib.suppress(ValueError, TypeError):
            value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    return str(value)


def lines(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
