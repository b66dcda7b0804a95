"""A training run's checkpoints against the step: accuracy, tokens, HWE, and what the gate said.

    from ares_eval import series

    found = series.gather(Path("checkpoints/my-run"))
    Path("series.html").write_text(series.render(found), encoding="utf-8")

``steps`` is the format of the step files, which `ares-train watch` writes.
"""

from __future__ import annotations

from ares_eval.series.gather import Point, Series, SeriesError, TaskPoint, gather
from ares_eval.series.page import render

__all__ = ["Point", "Series", "SeriesError", "TaskPoint", "gather", "render"]
