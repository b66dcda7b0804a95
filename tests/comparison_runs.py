"""Run folders with planted outcomes, for tests of compare, gate and baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ares_eval.records import MANIFEST, RunWriter
from ares_eval.types import Record, TokenTrace, Usage, Verdict


@dataclass(frozen=True)
class Row:
    """One draw of a made-up run; ``outcome`` is a verdict, or the cause of a failure. ``entropies``: its trace."""

    sample: str
    outcome: str = "correct"
    draw: int = 0
    task: str = "t"
    group: str | None = None
    level: str | None = None
    tokens: int | None = 10
    truncated: bool = False
    prompt: str = "p"
    reference: str = "7"
    entropies: Sequence[float] | None = None
    top: int = 20


def write_run(
    folder: Path, rows: Sequence[Row], *, fingerprints: Mapping[str, str] | None = None, model: str = "m"
) -> Path:
    """A run folder that holds ``rows``; each task's definition has the fingerprint given, else the same one."""
    tasks = sorted({row.task for row in rows})
    with RunWriter(folder) as writer:
        for row in rows:
            writer.append_prompt(row.task, row.sample, row.prompt, [])
            writer.append(_record(row), _trace(row))
    planned = {task: sum(row.task == task for row in rows) for task in tasks}
    (folder / MANIFEST).write_text(
        json.dumps(
            {
                "model": model,
                "created": "2025-01-01T00:00:00Z",
                "settings": {"temperature": 0.0, "system_prompt": "a secret prompt"},
                "tasks": {
                    task: {"fingerprint": (fingerprints or {}).get(task, "f" * 64), "planned": planned[task]}
                    for task in tasks
                },
            }
        )
    )
    return folder


def _record(row: Row) -> Record:
    common = {"task": row.task, "sample": row.sample, "draw": row.draw, "group": row.group or row.sample}
    common |= {"key": "k", "prompt": row.prompt, "level": row.level, "reference": row.reference}
    if row.outcome not in ("correct", "incorrect", "unverifiable"):
        return Record(**common, cause=row.outcome, message="m")  # type: ignore[arg-type]
    return Record(
        **common,  # type: ignore[arg-type]
        text="a private reply",
        usage=Usage(5, row.tokens, None),
        truncated=row.truncated,
        verdict=Verdict(row.outcome, "box>number", version="1.0"),  # type: ignore[arg-type]
    )


def _trace(row: Row) -> TokenTrace | None:
    if row.entropies is None:
        return None
    values = np.asarray(row.entropies, dtype=float)
    nothing = np.full(len(values), np.nan)
    return TokenTrace(("x",) * len(values), nothing, values, nothing, nothing, row.top, "topk-bounds")
