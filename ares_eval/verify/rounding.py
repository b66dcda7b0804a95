"""Rounding as people do it, and when a decimal may stand for an exact value."""

from __future__ import annotations

from fractions import Fraction

from ares_eval.verify.algebra.evaluation import Undefined, evaluate
from ares_eval.verify.algebra.nodes import Node, TooLarge, Unreadable, symbols

SIGNIFICANT = 6
"""Digits that a decimal must give to stand for a value that has no finite decimal form."""
SIGNIFICANT_REFERENCE = 5
"""The same where the reference is the decimal and the answer is exact: reference answers are often rounded."""


def rounded(value: Fraction, digits: int) -> Fraction:
    """Half away from zero, as people round; Fraction.__round__ would round half to even."""
    scaled = abs(value) * Fraction(10) ** digits
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return Fraction(whole if value >= 0 else -whole) / Fraction(10) ** digits


def approximates(stated: Node, wanted: Node) -> bool:
    """Whether one side is a decimal of enough digits that is the other's exact value, rounded or cut."""
    if symbols(stated) or symbols(wanted):
        return False
    literal, other = _decimal(stated), wanted
    needed = SIGNIFICANT
    if literal is None or _decimal(wanted) is not None:
        literal, other, needed = _decimal(wanted), stated, SIGNIFICANT_REFERENCE
        if literal is None or _decimal(stated) is not None:
            return False
    digits = _places(literal)
    if digits == 0 or len(str(abs(literal.numerator * 10**digits // literal.denominator))) < needed:
        return False
    try:
        exact = evaluate(other, {})
    except (Undefined, TooLarge, Unreadable):
        return False
    if isinstance(exact, complex):
        if abs(exact.imag) > 1e-12 or digits > 14:
            return False
        exact = Fraction(exact.real)
    elif (exact * Fraction(10) ** digits).denominator == 1:
        return False
    return literal == rounded(exact, digits)


def _decimal(node: Node) -> Fraction | None:
    """The value of a decimal literal, signed or not; None for integers, fractions and everything else."""
    if node.op == "neg":
        inner = _decimal(node.args[0])
        return None if inner is None else -inner
    if node.op == "num" and node.value is not None and node.value.denominator != 1 and _places(node.value) <= 40:
        return node.value
    return None


def _places(value: Fraction) -> int:
    """Decimals of a terminating decimal; 41 where it has more than 40 or does not end."""
    for places in range(41):
        if (value * 10**places).denominator == 1:
            return places
    return 41
