"""Two runs, paired question by question: what differs, and how sure that is.

from ares_eval.compare import compare_paths

comparison = compare_paths("results/runs/a/...", "results/runs/b/...")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ares_eval.compare.comparison import Comparison, compare
from ares_eval.compare.pairing import By, Mismatch, pair
from ares_eval.compare.tiers import Source
from ares_eval.outcomes import Outcomes

__all__ = ["Comparison", "Mismatch", "compare", "compare_outcomes", "compare_paths", "pair"]


def compare_paths(
    a: str | Path,
    b: str | Path,
    *,
    partial: bool = False,
    changed: bool = False,
    by: By = "id",
    names: Mapping[str, str] | None = None,
    tier_source: Source = "auto",
) -> Comparison:
    """Compare the runs at two paths (folders, baselines, other harnesses' files); differences are b - a.

    Raises Mismatch, foreign.ForeignError, records.RunError.
    """
    from ares_eval.foreign import load_any

    return compare_outcomes(
        load_any(a), load_any(b), partial=partial, changed=changed, by=by, names=names, tier_source=tier_source
    )


def compare_outcomes(
    a: Outcomes,
    b: Outcomes,
    *,
    partial: bool = False,
    changed: bool = False,
    by: By = "id",
    names: Mapping[str, str] | None = None,
    tier_source: Source = "auto",
) -> Comparison:
    """The same for runs that are loaded; token traces are read where both have them."""
    from ares_eval.compare.window_entropy import with_window_entropy

    a, b = with_window_entropy(a, b)
    return compare(pair(a, b, partial=partial, changed=changed, by=by, names=names), tier_source=tier_source)
