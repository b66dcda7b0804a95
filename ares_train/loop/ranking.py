"""Which checkpoint is the best: by one figure, among those that are wholly measured and that the gate did not fail.

Of equal ones the earlier step is taken. The answer depends on the step files alone, not on their order or on time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from ares_eval.series.steps import StepResult
from ares_eval.types import Json
from ares_train.loop.settings import MEAN


def best_of(results: Iterable[StepResult], metric: str, mode: Literal["max", "min"]) -> StepResult | None:
    """The best of ``results``, None where none of them has the figure."""
    sign = 1.0 if mode == "max" else -1.0
    ranked = [
        (sign * result.figures[metric], -result.step, result)
        for result in results
        if result.status == "complete"
        and (result.gate is None or result.gate.verdict != "fail")
        and math.isfinite(result.figures.get(metric, math.nan))
    ]
    return max(ranked, key=lambda entry: entry[:2])[2] if ranked else None


def mean(results: Mapping[str, Json]) -> dict[str, float]:
    """``{"mean": ...}`` of the tasks' primary metrics in ``results.json``; empty where one of them has no value."""
    values = [task["metrics"].get(task["metrics"]["primary"]) for task in results["tasks"].values()]
    known = [float(value) for value in values if isinstance(value, int | float)]
    return {MEAN: math.fsum(known) / len(known)} if known and len(known) == len(values) else {}
