"""Numbers: exact by default, by tolerance or rounded digits where the task says so; units and percent by policy.

Policy keys: ``digits`` (decimals both are rounded to), ``tolerance`` (absolute), ``relative`` (relative tolerance),
``unit`` ("optional": a missing unit is fine, a different one is not), ``percent`` (True where the question asks for a
percentage, so that 50 and 50 % are the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ares_eval.verify.algebra.nodes import Unreadable
from ares_eval.verify.algebra.parser import parse
from ares_eval.verify.comparators.formula import compare_formula
from ares_eval.verify.decision import Decision, Outcome
from ares_eval.verify.quantity import Quantity, parse_quantity, plain_integer
from ares_eval.verify.rounding import approximates, rounded
from ares_eval.verify.units import same_dimension


def compare_number(answer: str, reference: str, policy: Mapping[str, Any]) -> Outcome:
    """Decide whether the answer states the reference's number."""
    quick = compare_quantities(answer, reference, policy)
    if quick is not None:
        return quick
    return compare_formula("number", answer, reference, policy)


def compare_quantities(answer: str, reference: str, policy: Mapping[str, Any]) -> Decision | None:
    """The decision where both sides are plain quantities; None where one is not."""
    plain, expected = plain_integer(answer.strip()), plain_integer(reference.strip())
    if plain is not None and expected is not None:
        same = plain == expected or (bool(policy) and _close(plain, expected, policy))
        return Decision(same, "number:exact", normalised=(_shown(plain), _shown(expected)))
    stated, wanted = parse_quantity(answer), parse_quantity(reference)
    if stated is None or wanted is None:
        return None
    same = _same(stated, wanted, policy) or _same_decimals(answer, reference)
    return Decision(same, "number:quantity", normalised=(_shown(stated.value), _shown(wanted.value)))


def _shown(value: Fraction) -> str:
    """A value for people; very long ones by their size (the interpreter refuses to print them)."""
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    return str(value) if bits < 4000 else f"a number of {bits} bits"


def _same_decimals(answer: str, reference: str) -> bool:
    """A decimal of enough digits for an exact fraction, or the other way round."""
    try:
        return approximates(parse(answer), parse(reference))
    except Unreadable:
        return False


def _close(one: Fraction, other: Fraction, policy: Mapping[str, Any]) -> bool:
    digits = policy.get("digits")
    if digits is not None and rounded(one, int(digits)) == rounded(other, int(digits)):
        return True
    tolerance = policy.get("tolerance")
    if tolerance is not None and abs(one - other) <= Fraction(str(tolerance)):
        return True
    relative = policy.get("relative")
    return relative is not None and abs(one - other) <= Fraction(str(relative)) * abs(other)


def _same(stated: Quantity, wanted: Quantity, policy: Mapping[str, Any]) -> bool:
    one, other = stated.value, wanted.value
    if stated.percent != wanted.percent and not (policy.get("percent") and one == other):
        if stated.percent:
            one /= 100
        else:
            other /= 100
    if stated.unit is not None and wanted.unit is not None:
        if not same_dimension(stated.unit, wanted.unit):
            return False
        one, other = one * stated.unit.factor, other * wanted.unit.factor
    return one == other or _close(one, other, policy)
