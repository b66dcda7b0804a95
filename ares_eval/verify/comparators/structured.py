"""Intervals, sets, tuples, matrices, equations, inequalities: equal in meaning, open and closed ends told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ares_eval.verify.comparators.formula import compare_formula
from ares_eval.verify.decision import Outcome


def compare_structured(answer: str, reference: str, policy: Mapping[str, Any]) -> Outcome:
    """Decide over two structures."""
    return compare_formula("structured", answer, reference, policy)
