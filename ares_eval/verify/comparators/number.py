"""Numbers: exact by default, by tolerance or rounded digits where the task says so; units, percent and currency by policy.

Policy keys: ``digits`` (decimals both are rounded to), ``tolerance`` (absolute), ``relative`` (relative tolerance),
``unit`` ("optional": a missing unit is fine, a different one is not), ``percent`` (True where the question asks for a
percentage, so that 50 and 50 % are the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ares_eval.verify.decision import Algebra, Decision, Outcome
from ares_eval.verify.normalise import string_key
from ares_eval.verify.quantity import Quantity, parse_quantity, plain_integer
from ares_eval.verify.units import same_dimension


def compare_number(answer: str, reference: str, policy: Mapping[str, Any]) -> Outcome:
    """Decide whether the answer states the reference's number."""
    plain, expected = plain_integer(answer.strip()), plain_integer(reference.strip())
    if plain is not None and expected is not None:
        same = plain == expected or (bool(policy) and _close(plain, expected, policy))
        return Decision(same, "number:exact", normalised=(str(plain), str(expected)))
    stated, wanted = parse_quantity(answer), parse_quantity(reference)
    if stated is not None and wanted is not None:
        same = _same(stated, wanted, policy)
        return Decision(same, "number:quantity", normalised=(str(stated.value), str(wanted.value)))
    if string_key(answer) == string_key(reference):
        return Decision(True, "number:string")
    return Algebra("number", answer, reference, policy.get("digits"))


def _close(one: Fraction, other: Fraction, policy: Mapping[str, Any]) -> bool:
    digits = policy.get("digits")
    if digits is not None and rounded(one, int(digits)) == rounded(other, int(digits)):
        return True
    tolerance = policy.get("tolerance")
    if tolerance is not None and abs(one - other) <= Fraction(str(tolerance)):
        return True
    relative = policy.get("relative")
    return relative is not None and abs(one - other) <= Fraction(str(relative)) * abs(other)


def rounded(value: Fraction, digits: int) -> Fraction:
    """Half away from zero, as people round; Fraction.__round__ would round half to even."""
    scaled = abs(value) * 10**digits
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return Fraction(whole if value >= 0 else -whole, 10**digits)


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
