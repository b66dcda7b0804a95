"""Sets of real numbers: intervals, their unions and differences, and inequalities in one variable, at a point.

A region is a sorted list of disjoint pieces (low, low closed, high, high closed). Parameters in the bounds take the
values of the point, so that regions with symbolic bounds are compared as numeric ones at several points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from ares_eval.verify.algebra.evaluation import Environment, Number, Undefined, evaluate
from ares_eval.verify.algebra.nodes import Node, Unreadable, symbols

Bound = Fraction | float
Piece = tuple[Bound, bool, Bound, bool]
Region = tuple[Piece, ...]
REALS: Region = ((-math.inf, False, math.inf, False),)
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!=", "=": "="}


def region_of(node: Node, environment: Environment, variable: str | None) -> Region:
    """The set of reals that a node describes; Unreadable where it describes none."""
    if node.op == "bracket" and len(node.args) == 2:
        low, high = (bound(argument, environment) for argument in node.args)
        piece = (low, node.name[0] == "[", high, node.name[1] == "]")
        return merged([piece]) if low <= high else ()
    if node.op == "in":
        return region_of(node.args[1], environment, variable)
    if node.op == "named_set" and node.name in ("R", "R^"):
        return REALS
    if node.op == "empty":
        return ()
    if node.op in ("union", "inter", "minus"):
        left, right = (region_of(argument, environment, variable) for argument in node.args)
        if node.op == "union":
            return merged([*left, *right])
        return intersection(left, right if node.op == "inter" else complement(right))
    if node.op == "set":
        values = [bound(argument, environment) for argument in node.args]
        return merged([(value, True, value, True) for value in values])
    if node.op == "rel":
        return _relation(node, environment, variable)
    if node.op == "list":
        return _several(node, environment, variable)
    raise Unreadable(f"{node.op} is no set of reals")


def _several(node: Node, environment: Environment, variable: str | None) -> Region:
    parts = [region_of(argument, environment, variable) for argument in node.args]
    common = parts[0]
    for part in parts[1:]:
        common = intersection(common, part)
    if node.name == "and" or (node.name != "or" and common and all(a.op == "rel" for a in node.args)):
        return common
    return merged([piece for part in parts for piece in part])


def bound(node: Node, environment: Environment) -> Bound:
    """An end of an interval: a real number or an infinity."""
    if node.op == "infinity":
        return math.inf
    if node.op == "neg" and node.args[0].op == "infinity":
        return -math.inf
    if node.op == "add" and node.args[1].op == "infinity":
        return math.inf
    return real(evaluate(node, environment))


def real(value: Number) -> Bound:
    """A value as a real number; Undefined where it is none."""
    if isinstance(value, Fraction):
        return value
    if abs(value.imag) > 1e-9 * max(1.0, abs(value.real)):
        raise Undefined("not real")
    return value.real


def merged(pieces: list[Piece]) -> Region:
    """Pieces in order, overlapping and touching ones joined."""
    result: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: (p[0], not p[1])):
        low, low_closed, high, high_closed = piece
        if low == high and not (low_closed and high_closed):
            continue
        if result and (low < result[-1][2] or (low == result[-1][2] and (low_closed or result[-1][3]))):
            before = result[-1]
            if (high, high_closed) > (before[2], before[3]):
                result[-1] = (before[0], before[1], high, high_closed)
        else:
            result.append(piece)
    return tuple(result)


def complement(region: Region) -> Region:
    """The reals outside a region."""
    result: list[Piece] = []
    low: Bound = -math.inf
    closed = False
    for piece in region:
        if piece[0] > -math.inf:
            result.append((low, closed, piece[0], not piece[1]))
        low, closed = piece[2], not piece[3]
    if low < math.inf:
        result.append((low, closed, math.inf, False))
    return tuple(p for p in result if p[0] < p[2] or (p[1] and p[3]))


def intersection(one: Region, other: Region) -> Region:
    """What both regions hold."""
    return complement(merged([*complement(one), *complement(other)]))


def same_region(one: Region, other: Region) -> bool:
    """Equal bounds (as doubles to nine digits) and equal closedness."""
    if len(one) != len(other):
        return False
    return all(
        a[1] == b[1] and a[3] == b[3] and _close(a[0], b[0]) and _close(a[2], b[2])
        for a, b in zip(one, other, strict=True)
    )


def _close(one: Bound, other: Bound) -> bool:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    return one == other or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _relation(node: Node, environment: Environment, variable: str | None) -> Region:
    """A chain of inequalities in one variable."""
    if variable is None:
        raise Unreadable("no variable")
    region = REALS
    for index, operator in enumerate(node.name.split(",")):
        left, right = node.args[index], node.args[index + 1]
        region = intersection(region, _simple(left, operator, right, environment, variable))
    return region


def _simple(left: Node, operator: str, right: Node, environment: Environment, variable: str) -> Region:
    if operator not in _FLIPPED:
        raise Unreadable(operator)
    if variable in symbols(right) and variable not in symbols(left):
        left, operator, right = right, _FLIPPED[operator], left
    if right.op == "infinity" or (right.op == "neg" and right.args[0].op == "infinity"):
        return REALS
    inner = _even_part(left)
    if inner is not None and variable not in symbols(right):
        return _around_zero(inner, operator, right, environment, variable, left)

    def difference(at: int) -> Bound:
        point = {**environment, variable: Fraction(at)}
        a, b = real(evaluate(left, point)), real(evaluate(right, point))
        return a - b if isinstance(a, Fraction) and isinstance(b, Fraction) else float(a) - float(b)

    return _linear(difference, operator)


def _linear(difference: Callable[[int], Bound], operator: str) -> Region:
    values = [difference(at) for at in (1, 2, 3, 7)]
    slope = values[1] - values[0]
    if slope == 0 or not _close(values[2] - values[1], slope) or not _close(values[3] - values[0], 6 * slope):
        raise Unreadable("not linear")
    edge = 1 - values[0] / slope
    if slope < 0:
        operator = _FLIPPED[operator]
    return _half(edge, operator)


def _half(edge: Bound, operator: str) -> Region:
    if operator == "=":
        return ((edge, True, edge, True),)
    if operator == "!=":
        return ((-math.inf, False, edge, False), (edge, False, math.inf, False))
    if operator in ("<", "<="):
        return ((-math.inf, False, edge, operator == "<="),)
    return ((edge, operator == ">=", math.inf, False),)


def _even_part(node: Node) -> str | None:
    """The variable of |x| or x^2."""
    if node.op == "call" and node.name == "abs" and node.args[0].op == "sym":
        return node.args[0].name
    if node.op == "pow" and node.args[0].op == "sym" and node.args[1].op == "num" and node.args[1].value == 2:
        return node.args[0].name
    return None


def _around_zero(inner: str, operator: str, right: Node, environment: Environment, variable: str, left: Node) -> Region:
    if inner != variable:
        raise Unreadable("another variable")
    limit = bound(right, environment)
    if left.op == "pow":
        if limit < 0:
            raise Unreadable("negative square")
        root = evaluate(Node("call", (right,), "sqrt"), environment)
        limit = real(root)
    if operator in ("<", "<="):
        closed = operator == "<="
        return ((-limit, closed, limit, closed),) if limit > 0 or (closed and limit == 0) else ()
    if operator in (">", ">="):
        if limit < 0:
            return REALS
        closed = operator == ">="
        return ((-math.inf, False, -limit, closed), (limit, closed, math.inf, False))
    raise Unreadable(operator)
