"""Formulas: equal as functions of their symbols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ares_eval.verify.comparators.formula import compare_formula
from ares_eval.verify.comparators.number import compare_quantities
from ares_eval.verify.decision import Outcome


def compare_latex(answer: str, reference: str, policy: Mapping[str, Any]) -> Outcome:
    """Decide over two formulas; plain quantities on both sides are compared as numbers."""
    quick = compare_quantities(answer, reference, policy)
    if quick is not None:
        return quick
    return compare_formula("latex", answer, reference, policy)
