"""Whether two expressions are the same function, by their values at fixed points (polynomial identity testing).

Points are rational, so that rational functions are compared exactly; everything else is compared as doubles, and a
difference that doubles cannot settle is left open (None). Points are positive, as the variables of school
mathematics; expressions with absolute values are also compared at points of mixed sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from ares_eval.verify.algebra.evaluation import Environment, Number, Undefined, as_complex, evaluate
from ares_eval.verify.algebra.huge import log_magnitude, residues
from ares_eval.verify.algebra.nodes import Node, TooLarge, Unreadable, contains, symbols

EQUAL = 1e-9
DIFFERENT = 1e-5
"""Relative differences below the first are rounding, above the second are real; between them doubles cannot tell."""
TINY = 1e-9
_NUMERATORS = (43, 83, 23, 71, 31, 97, 53, 37, 79, 29, 67, 41, 89, 47, 73, 19)
_DENOMINATOR = 59
"""Points lie between a third and one and a half: no overflow, no special value, distinct for sixteen symbols."""
_INTEGER_NAMES = frozenset("nkmNlj")


def environments(names: frozenset[str], mixed: bool = False) -> list[dict[str, Fraction]]:
    """Points for these symbols: the same for the same set of names, whatever the hash seed."""
    ordered = sorted(names)
    count = 3 if ordered else 1
    points = []
    for point in range(count):
        values = {}
        for index, name in enumerate(ordered):
            value = Fraction(_NUMERATORS[(index + point * 5) % 16] + 100 * (index // 16), _DENOMINATOR + 2 * point)
            values[name] = -value if mixed and (index + point) % 2 == 0 else value
        points.append(values)
    return points


def integer_environments(names: frozenset[str]) -> list[dict[str, Fraction]]:
    """Points where symbols that usually count (n, k, m) are whole numbers."""
    points = environments(names)
    for point, values in enumerate(points):
        for index, name in enumerate(sorted(names)):
            if name[0] in _INTEGER_NAMES:
                values[name] = Fraction(2 + point + 2 * (index % 3))
    return points


def same_number(one: Number, other: Number) -> bool | None:
    """Equal, different, or (None) too close for doubles to tell."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    try:
        left, right = as_complex(one), as_complex(other)
    except TooLarge:
        return None
    size = max(abs(left), abs(right))
    difference = abs(left - right)
    if difference <= EQUAL * size:
        return True
    if size < TINY or difference < DIFFERENT * size:
        return None
    return False


Settle = Callable[[Node, Node, tuple[int, int]], bool | None]
_settle: Settle | None = None


def settle_by(settle: Settle) -> None:
    """Ask this where doubles leave a comparison open: the workers compare at high precision."""
    global _settle
    _settle = settle


def same_expression(one: Node, other: Node, signs: tuple[int, int] = (1, 1)) -> bool | None:
    """Equal everywhere, different, or (None) not to be told here. Unreadable where either is no expression."""
    result = _compared(one, other, signs)
    return _settle(one, other, signs) if result is None and _settle is not None else result


def _compared(one: Node, other: Node, signs: tuple[int, int]) -> bool | None:
    names = symbols(one) | symbols(other)
    result = _at_points(one, other, environments(names), signs)
    if result is True and names and (contains(one, {"call"}) or contains(other, {"call"})) and _has_abs(one, other):
        return _at_points(one, other, environments(names, mixed=True), signs)
    if result is not True and any(name[0] in _INTEGER_NAMES for name in names) and _counts(one, other):
        whole = _at_points(one, other, integer_environments(names), signs)
        return whole if whole is not None else result
    return result


def _counts(one: Node, other: Node) -> bool:
    return contains(one, {"pow", "fact", "call"}) or contains(other, {"pow", "fact", "call"})


def _has_abs(*nodes: Node) -> bool:
    stack = list(nodes)
    while stack:
        item = stack.pop()
        if item.op == "call" and item.name == "abs":
            return True
        stack.extend(item.args)
    return False


def _at_points(one: Node, other: Node, points: list[dict[str, Fraction]], signs: tuple[int, int]) -> bool | None:
    agreed = 0
    for point in points:
        try:
            same = same_number(evaluate(one, point, signs[0]), evaluate(other, point, signs[1]))
        except Undefined:
            continue
        except TooLarge:
            same = _same_huge(one, other, point)
            if same is None and len(points) > 1:
                continue
        if same is False:
            return False
        if same is None:
            return None
        agreed += 1
    return True if agreed >= min(2, len(points)) else None


def _same_huge(one: Node, other: Node, point: Environment) -> bool | None:
    try:
        return residues(one, point) == residues(other, point)
    except (TooLarge, Unreadable, Undefined):
        pass
    try:
        left, right = log_magnitude(one, point), log_magnitude(other, point)
    except (TooLarge, Unreadable, Undefined, ValueError, OverflowError):
        return None
    if math.isinf(left) and math.isinf(right) and left == right:
        return None
    if math.isinf(left) != math.isinf(right):
        return False
    if math.isnan(left) or math.isnan(right):
        return None
    if abs(left - right) > 1e-6 * max(abs(left), abs(right), 1.0):
        return False
    return None
