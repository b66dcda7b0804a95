"""Equations and inequalities that are the same up to scaling and rearrangement, by their residuals at points."""

from __future__ import annotations

from fractions import Fraction

from ares_eval.verify.algebra.evaluation import Number, Undefined, as_complex, evaluate
from ares_eval.verify.algebra.nodes import Node, TooLarge, Unreadable, symbols
from ares_eval.verify.algebra.points import environments

_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
TOLERANCE = 1e-8


def same_equation(one: Node, other: Node) -> bool | None:
    """Whether both equations say the same of their symbols: residuals in a constant, non-zero ratio at all points."""
    if len(one.args) != len(other.args):
        return False
    if len(one.args) > 2:
        return None
    return _proportional(one, other, positive=False)


def same_inequality(one: Node, other: Node) -> bool | None:
    """The same with the direction: residuals in a constant positive ratio, operators equal after turning."""
    ours, theirs = one.name.split(","), other.name.split(",")
    if len(ours) != len(theirs):
        return False
    if len(ours) > 1:
        return None
    left, right = _turned(one), _turned(other)
    if left.name != right.name:
        return False
    return _proportional(left, right, positive=left.name != "!=")


def _turned(node: Node) -> Node:
    if node.name in ("<", "<="):
        return Node("rel", node.args[::-1], _FLIPPED[node.name])
    return node


def _proportional(one: Node, other: Node, positive: bool) -> bool | None:
    names = symbols(one) | symbols(other)
    if symbols(one) != symbols(other):
        return False
    ratios: list[Number] = []
    for point in [*environments(names), *environments(names, mixed=True)]:
        try:
            left, right = _residual(one, point), _residual(other, point)
        except (Undefined, TooLarge):
            continue
        if left == 0 or right == 0:
            if left == right:
                continue
            return False
        ratios.append(
            left / right
            if isinstance(left, Fraction) and isinstance(right, Fraction)
            else as_complex(left) / as_complex(right)
        )
    if len(ratios) < 2:
        return None
    first = as_complex(ratios[0])
    if positive and (abs(first.imag) > TOLERANCE * abs(first) or first.real <= 0):
        return False
    return all(abs(as_complex(ratio) - first) <= TOLERANCE * abs(first) for ratio in ratios)


def _residual(node: Node, point: dict[str, Fraction]) -> Number:
    if node.op != "rel" or len(node.args) != 2:
        raise Unreadable("no equation")
    left, right = evaluate(node.args[0], point), evaluate(node.args[1], point)
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left - right
    return as_complex(left) - as_complex(right)
