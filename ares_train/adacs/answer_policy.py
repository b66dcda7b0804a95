"""Answer policies that the verifier could not work with, known before anything is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

_READ: Mapping[str, Callable[[Any], object]] = {
    "digits": int,
    "tolerance": lambda value: Fraction(str(value)),
    "relative": lambda value: Fraction(str(value)),
}
"""Numbers of a policy, as ares_eval.verify reads them."""


def fault(policy: Mapping[str, Any]) -> str | None:
    """What is wrong with a policy; None for one that answers can be compared by."""
    for name, read in _READ.items():
        if policy.get(name) is None:
            continue
        try:
            read(policy[name])
        except (ValueError, TypeError, OverflowError, ZeroDivisionError):
            return f"{name} must be a number, not {policy[name]!r:.60}"
    return None
