"""One self-contained HTML page over finished runs, and the same tables and charts as CSV, PNG and SVG.

    from ares_eval import report

    gathered = report.gather([Path("results/runs/my-model/text-1a2b3c4d")], references=["ARES-7B"])
    Path("report.html").write_text(report.render(gathered), encoding="utf-8")

The page loads nothing from anywhere and runs no script. Reads records only; needs the extra [report] (matplotlib).
"""

from __future__ import annotations

from ares_eval.report.gather import Report, Reported, gather
from ares_eval.report.page import render

__all__ = ["Report", "Reported", "gather", "render"]
