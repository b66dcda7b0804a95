"""Row by row what VLMEvalKit's scorers decided, read from the side files they leave. Runs in the child only.

A scorer of theirs returns totals; most write a table with a decision in each row on the way. Where they keep only what
was extracted and decide while summing up, their own deciding function is asked again for each row.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

DECISIONS = ("hit", "correct", "score", "eval_score", "match", "is_correct", "judge")
"""Columns that hold a decision, the surest name first."""

_DECIDERS = {
    "MathVista": "mathvista",
    "MathVision": "mathv",
    "LENS": "lens",
    "OCR_Reasoning": "ocr_reasoning",
    "SeePhys": "seephys",
    "QSpatial": "qspatial",
}
"""Beginning of a dataset's name -> module of dataset/utils whose ``post_check`` decides."""

CIRCULAR = 1_000_000
"""In circular evaluation the rotations of a question have its index plus multiples of this."""

_GUESSED = re.compile(r"thus randomly generate one")


def read(folder: Path, name: str, asked: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Index -> ``score`` (a number, 1 for right) and ``guessed`` (a letter drawn by lot) for the rows decided on."""
    decide = _decider(name)
    for table in _tables(folder):
        column = next((c for c in DECISIONS if c in table.columns), None)
        if column is None and decide is not None and {"res", "log"} <= set(table.columns):
            decided = {str(row["index"]): _number(decide(row)) for _, row in table.iterrows()}
        elif column is not None:
            decided = {str(i): _number(v) for i, v in zip(table["index"], table[column], strict=True)}
        else:
            continue
        if any(value is not None for value in decided.values()):
            logs = dict(zip(map(str, table["index"]), table["log"], strict=True)) if "log" in table.columns else {}
            return _all_rows(decided, logs, asked)
    return {}


def _all_rows(
    decided: Mapping[str, float | None], logs: Mapping[str, Any], asked: Sequence[str]
) -> dict[str, dict[str, Any]]:
    found = {}
    for index in asked:
        key = index
        if key not in decided and key.isdigit():
            key = str(int(key) % CIRCULAR)
        if decided.get(key) is not None:
            found[index] = {"score": decided[key], "guessed": bool(_GUESSED.search(str(logs.get(key, ""))))}
    return found


def _tables(folder: Path) -> list[Any]:
    """The tables with an index that scoring wrote, best decisions first; the predictions are not among them."""
    load = sys.modules["vlmeval.smp.file"].load
    found = []
    predictions = min(folder.glob("ares_*.tsv"), key=lambda path: len(path.name), default=None)
    for path in sorted(folder.iterdir()):
        if path == predictions or path.suffix not in (".tsv", ".csv", ".xlsx", ".json"):
            continue
        try:
            table = load(str(path))
        except Exception:  # noqa: BLE001 - a side file that is no table
            continue
        if hasattr(table, "columns") and "index" in table.columns:
            place = min((DECISIONS.index(c) for c in table.columns if c in DECISIONS), default=len(DECISIONS))
            found.append((place, path.name, table))
    return [table for _, _, table in sorted(found, key=lambda one: one[:2])]


def _decider(name: str) -> Callable[[Any], Any] | None:
    module = next((module for start, module in _DECIDERS.items() if name.startswith(start)), None)
    if module is None:
        return None
    check = importlib.import_module(f"vlmeval.dataset.utils.{module}").post_check

    def decide(row: Any) -> Any:
        try:
            return bool(check(row, prefetch=False))
        except Exception:  # noqa: BLE001 - then their totals fail on it as well
            return None

    return decide


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        value = {"true": 1.0, "false": 0.0}.get(value.strip().lower(), value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number == number else None
