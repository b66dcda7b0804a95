"""Expressions at fifty digits, for what doubles leave open. Uses mpmath and runs in a worker only.

Bounded by the worker's CPU time, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ares_eval.verify.algebra.evaluation import Undefined
from ares_eval.verify.algebra.nodes import Node, TooLarge, Unreadable, symbols
from ares_eval.verify.algebra.points import environments

DIGITS = 60
EQUAL = 1e-30
MAX_EXPONENT = 10**7


def settle(one: Node, other: Node, signs: tuple[int, int]) -> bool | None:
    """Equal or different at high precision; None where the expressions cannot be evaluated."""
    import mpmath  # type: ignore[import-untyped]

    agreed = 0
    points = environments(symbols(one) | symbols(other))
    with mpmath.workdps(DIGITS):
        for point in points:
            try:
                left, right = _value(one, point, signs[0], mpmath), _value(other, point, signs[1], mpmath)
            except (ZeroDivisionError, ValueError, Undefined, OverflowError):
                continue
            except (TooLarge, Unreadable, KeyError):
                return None
            size = max(abs(left), abs(right))
            if not mpmath.isfinite(size):
                continue
            if abs(left - right) > EQUAL * size and size > mpmath.mpf(10) ** -40:
                return False
            if size > mpmath.mpf(10) ** (DIGITS - 10):
                return None
            agreed += 1
    return True if agreed >= min(2, len(points)) else None


def _value(node: Node, env: Mapping[str, Fraction], sign: int, mp: Any) -> Any:
    args = [_value(argument, env, sign, mp) for argument in node.args]
    if node.op == "num" and node.value is not None:
        return mp.mpf(node.value.numerator) / node.value.denominator
    if node.op in ("sym", "word"):
        return mp.mpf(env[node.name].numerator) / env[node.name].denominator
    if node.op == "const":
        return {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}[node.name] * 1
    if node.op == "add":
        return args[0] + args[1]
    if node.op in ("pm", "mp"):
        return args[0] + args[1] * (sign if node.op == "pm" else -sign)
    if node.op == "mul":
        return args[0] * args[1]
    if node.op in ("div", "ratio"):
        return args[0] / args[1]
    if node.op == "neg":
        return -args[0]
    if node.op == "pow":
        if abs(args[1]) > MAX_EXPONENT:
            raise TooLarge("exponent")
        return mp.power(args[0], args[1])
    if node.op == "fact":
        if abs(args[0]) > MAX_EXPONENT:
            raise TooLarge("factorial")
        return mp.gamma(args[0] + 1)
    if node.op == "call":
        return _call(node, args, mp)
    raise Unreadable(node.op)


def _call(node: Node, args: list[Any], mp: Any) -> Any:
    name = node.name
    if name in ("degree", "percent"):
        return args[0] / (100 if name == "percent" else 1)
    if (
        name in ("sin", "cos", "tan", "cot", "sec", "csc")
        and node.args[0].op == "call"
        and node.args[0].name == "degree"
    ):
        args = [args[0] * mp.pi / 180]
    simple = {
        "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": mp.cot, "sec": mp.sec, "csc": mp.csc, "arcsin": mp.asin,
        "arccos": mp.acos, "arctan": mp.atan, "sinh": mp.sinh, "cosh": mp.cosh, "tanh": mp.tanh, "ln": mp.log,
        "exp": mp.exp, "sqrt": mp.sqrt, "abs": abs, "floor": mp.floor, "ceil": mp.ceil, "log": mp.log, "lg": mp.log10,
        "binom": mp.binomial,
    }  # fmt: skip
    if name in simple:
        return simple[name](*args)
    if name == "root":
        return mp.power(args[0], 1 / args[1])
    raise Unreadable(name)
