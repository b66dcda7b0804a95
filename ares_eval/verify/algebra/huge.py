"""Numbers too long to write out: compared modulo large primes, and by their magnitude.

Rational expressions with integer exponents are evaluated in prime fields (two different residues prove a difference,
equal ones modulo two 61-bit primes an equality but for a chance of 2^-100); towers are told apart by their logarithm.
"""

from __future__ import annotations

import math
from fractions import Fraction

from ares_eval.verify.algebra.evaluation import Environment, Undefined, evaluate
from ares_eval.verify.algebra.nodes import Node, TooLarge, Unreadable

PRIMES = ((1 << 61) - 1, 2305843009213693921)
MAX_FACTORIAL = 100_000


def residues(node: Node, environment: Environment) -> tuple[int, int]:
    """The value in both prime fields. TooLarge or Unreadable where it is no rational expression."""
    return _residue(node, environment, PRIMES[0]), _residue(node, environment, PRIMES[1])


def _residue(node: Node, env: Environment, prime: int) -> int:
    if node.op == "num" and node.value is not None:
        return node.value.numerator * pow(node.value.denominator, -1, prime) % prime
    if node.op in ("sym", "word"):
        value = env[node.name]
        return value.numerator * pow(value.denominator, -1, prime) % prime
    if node.op in ("add", "mul", "div", "pow"):
        left = _residue(node.args[0], env, prime)
        if node.op == "pow":
            exponent = evaluate(node.args[1], env)
            if not isinstance(exponent, Fraction) or exponent.denominator != 1:
                raise TooLarge("exponent")
            if left == 0 and exponent < 0:
                raise Undefined("power of zero")
            return pow(left, int(exponent), prime)
        right = _residue(node.args[1], env, prime)
        if node.op == "div":
            if right == 0:
                raise Undefined("division by zero")
            right = pow(right, -1, prime)
        return (left + right if node.op == "add" else left * right) % prime
    if node.op == "neg":
        return -_residue(node.args[0], env, prime) % prime
    if node.op == "fact":
        count = evaluate(node.args[0], env)
        if not isinstance(count, Fraction) or count.denominator != 1 or not 0 <= count <= MAX_FACTORIAL:
            raise TooLarge("factorial")
        result = 1
        for factor in range(2, int(count) + 1):
            result = result * factor % prime
        return result
    raise Unreadable(node.op)


def log_magnitude(node: Node, environment: Environment) -> float:
    """Natural logarithm of the absolute value; may be infinite for towers. Sums keep the larger part."""
    if node.op == "pow":
        return log_magnitude(node.args[0], environment) * _float(node.args[1], environment)
    if node.op == "mul":
        return log_magnitude(node.args[0], environment) + log_magnitude(node.args[1], environment)
    if node.op == "div":
        return log_magnitude(node.args[0], environment) - log_magnitude(node.args[1], environment)
    if node.op == "neg":
        return log_magnitude(node.args[0], environment)
    if node.op == "fact":
        return math.lgamma(_float(node.args[0], environment) + 1)
    if node.op == "add":
        return max(log_magnitude(node.args[0], environment), log_magnitude(node.args[1], environment))
    value = evaluate(node, environment)
    if value == 0:
        return -math.inf
    if isinstance(value, complex):
        return math.log(abs(value))
    return math.log(abs(value.numerator)) - math.log(value.denominator)


def _float(node: Node, environment: Environment) -> float:
    """An exponent as a double, infinite where it does not fit."""
    try:
        value = evaluate(node, environment)
        number = float(value) if isinstance(value, Fraction) else value.real
    except (TooLarge, OverflowError):
        magnitude = log_magnitude(node, environment)
        number = math.exp(magnitude) if magnitude < 700 else math.inf
        return -number if node.op == "neg" else number
    return number
