"""The value of an expression at a point: an exact fraction where arithmetic is rational, else a complex number.

``evaluate`` is bounded: integers above ``MAX_BITS`` bits, huge exponents and factorials raise TooLarge. Undefined
values (division by zero, logarithm of zero, infinity) raise Undefined. Units of angle: a degree sign leaves the number
as it is (answers in degrees are compared as written).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from ares_eval.verify.algebra.nodes import Node, TooLarge, Unreadable

MAX_BITS = 40_000
Number = Fraction | complex
Environment = Mapping[str, Fraction]


class Undefined(ArithmeticError):
    """The expression has no finite value here."""


def evaluate(node: Node, environment: Environment, sign: int = 1) -> Number:
    """The value of an expression node; ``sign`` chooses the branch of a plus-minus."""
    try:
        value = _value(node, environment, sign)
    except (OverflowError, RecursionError) as error:
        raise TooLarge(str(error)) from error
    except (ZeroDivisionError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Undefined(str(error)) from error
    if isinstance(value, complex) and not cmath.isfinite(value):
        raise Undefined("not finite")
    return value


def _value(node: Node, env: Environment, sign: int) -> Number:
    operation = _OPERATIONS.get(node.op)
    if operation is None:
        raise Unreadable(f"{node.op} is no expression")
    return operation(node, env, sign)


def _num(node: Node, _env: Environment, _sign: int) -> Number:
    assert node.value is not None
    return node.value


def _sym(node: Node, env: Environment, _sign: int) -> Number:
    return env[node.name]


_CONSTANTS: dict[str, complex] = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}


def _const(node: Node, env: Environment, _sign: int) -> Number:
    return env.get(node.name, _CONSTANTS[node.name])


def _add(node: Node, env: Environment, sign: int) -> Number:
    return bounded(_sum(_value(node.args[0], env, sign), _value(node.args[1], env, sign)))


def _sum(left: Number, right: Number) -> Number:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left + right
    return as_complex(left) + as_complex(right)


def _pm(node: Node, env: Environment, sign: int) -> Number:
    chosen = sign if node.op == "pm" else -sign
    left, right = _value(node.args[0], env, sign), _value(node.args[1], env, sign)
    return bounded(_sum(left, right if chosen > 0 else -right))


def _mul(node: Node, env: Environment, sign: int) -> Number:
    left, right = _value(node.args[0], env, sign), _value(node.args[1], env, sign)
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return bounded(left * right)
    return as_complex(left) * as_complex(right)


def _div(node: Node, env: Environment, sign: int) -> Number:
    left, right = _value(node.args[0], env, sign), _value(node.args[1], env, sign)
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return bounded(left / right)
    return as_complex(left) / as_complex(right)


def _neg(node: Node, env: Environment, sign: int) -> Number:
    return -_value(node.args[0], env, sign)


def _pow(node: Node, env: Environment, sign: int) -> Number:
    return power(_value(node.args[0], env, sign), _value(node.args[1], env, sign))


def power(base: Number, exponent: Number) -> Number:
    """Exact for integer exponents and for perfect roots of fractions; else the principal value."""
    if isinstance(exponent, Fraction) and isinstance(base, Fraction):
        if exponent.denominator == 1:
            return _integer_power(base, exponent.numerator)
        root = exact_root(base, exponent.denominator)
        if root is not None:
            return _integer_power(root, exponent.numerator)
    if base == 0:
        if as_complex(exponent).real > 0:
            return Fraction(0)
        raise Undefined("power of zero")
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and abs(exponent) < 10_000:
        return as_complex(base) ** int(exponent)
    return cmath.exp(as_complex(exponent) * cmath.log(as_complex(base)))


def _integer_power(base: Fraction, exponent: int) -> Fraction:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and base != 0 and bits * abs(exponent) > MAX_BITS:
        raise TooLarge("power")
    return Fraction(base**exponent)


def exact_root(value: Fraction, degree: int) -> Fraction | None:
    """The exact positive root of a non-negative fraction, or None."""
    if value < 0 or degree > 60:
        return None
    top, bottom = _integer_root(value.numerator, degree), _integer_root(value.denominator, degree)
    return Fraction(top, bottom) if top is not None and bottom is not None else None


def _integer_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        if middle**degree < value:
            low = middle + 1
        else:
            high = middle
    return low if low**degree == value else None


def _fact(node: Node, env: Environment, sign: int) -> Number:
    value = _value(node.args[0], env, sign)
    if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
        return complex(math.gamma(as_complex(value).real + 1))
    if value > 3000:
        raise TooLarge("factorial")
    return Fraction(math.factorial(int(value)))


def _infinity(_node: Node, _env: Environment, _sign: int) -> Number:
    raise Undefined("infinity")


def _ratio(node: Node, env: Environment, sign: int) -> Number:
    if len(node.args) != 2:
        raise Unreadable("ratio of more than two")
    return _div(node, env, sign)


def _call(node: Node, env: Environment, sign: int) -> Number:
    arguments = [_value(argument, env, sign) for argument in node.args]
    if node.name in _OF_ANGLES and node.args[0].op == "call" and node.args[0].name == "degree":
        arguments[0] = as_complex(arguments[0]) * math.pi / 180
    if node.name.startswith("opaque "):
        return _opaque(node.name, arguments)
    exact = _EXACT.get(node.name)
    if exact is not None and (result := exact(arguments)) is not None:
        return bounded(result)
    function = _FUNCTIONS.get(node.name)
    if function is None:
        raise Unreadable(f"function {node.name}")
    return function(*[as_complex(argument) for argument in arguments])


def _opaque(name: str, arguments: list[Number]) -> Number:
    """An unknown function: some fixed smooth function of its arguments, told apart by its name."""
    seed = sum((index + 1) * ord(letter) for index, letter in enumerate(name)) / 97.0
    total = complex(seed)
    for index, argument in enumerate(arguments):
        total += as_complex(argument) * (1.37 + 0.61 * index)
    return cmath.sin(total) + cmath.cos(total * 0.53) + seed


def bounded(value: Number) -> Number:
    """The value, unless it has grown too long."""
    if isinstance(value, Fraction) and value.numerator.bit_length() + value.denominator.bit_length() > 2 * MAX_BITS:
        raise TooLarge("digits")
    return value


def as_complex(value: Number) -> complex:
    """A double; TooLarge where it does not fit."""
    if isinstance(value, complex):
        return value
    try:
        return complex(float(value))
    except OverflowError as error:
        raise TooLarge("does not fit a double") from error


def _sqrt_exact(arguments: list[Number]) -> Number | None:
    value = arguments[0]
    return exact_root(value, 2) if isinstance(value, Fraction) else None


def _root_exact(arguments: list[Number]) -> Number | None:
    value, degree = arguments
    if not isinstance(value, Fraction) or not isinstance(degree, Fraction) or degree.denominator != 1 or degree < 1:
        return None
    if value < 0 and degree % 2 == 1:
        root = exact_root(-value, int(degree))
        return -root if root is not None else complex(-((-float(value)) ** (1 / float(degree))))
    return exact_root(value, int(degree))


def _binom_exact(arguments: list[Number]) -> Number | None:
    top, bottom = arguments
    if (
        not (isinstance(top, Fraction) and isinstance(bottom, Fraction))
        or top.denominator != 1
        or bottom.denominator != 1
    ):
        return None
    if not 0 <= bottom <= top:
        return None
    if min(bottom, top - bottom) > 2000 or top > 10**6:
        raise TooLarge("binomial")
    return Fraction(math.comb(int(top), int(bottom)))


def _abs_exact(arguments: list[Number]) -> Number | None:
    return abs(arguments[0]) if isinstance(arguments[0], Fraction) else None


def _floor_exact(arguments: list[Number]) -> Number | None:
    value = arguments[0]
    return Fraction(math.floor(value if isinstance(value, Fraction) else value.real))


def _ceil_exact(arguments: list[Number]) -> Number | None:
    value = arguments[0]
    return Fraction(math.ceil(value if isinstance(value, Fraction) else value.real))


def _percent_exact(arguments: list[Number]) -> Number | None:
    value = arguments[0]
    return value / 100


def _degree_exact(arguments: list[Number]) -> Number | None:
    return arguments[0]


def _numeral_exact(arguments: list[Number]) -> Number | None:
    """Digits read in another base; exact, or Undefined where a digit does not exist in it."""
    digits, base = arguments
    assert isinstance(digits, Fraction)
    assert isinstance(base, Fraction)
    if digits.denominator != 1 or not 2 <= base <= 36:
        raise Undefined("numeral")
    return Fraction(int(str(digits.numerator), int(base)))


def _extreme(choose: Callable[..., Fraction]) -> Callable[[list[Number]], Number | None]:
    def chosen(arguments: list[Number]) -> Number | None:
        if not arguments or not all(isinstance(a, Fraction) or abs(a.imag) < 1e-12 for a in arguments):
            return None
        exact = [a for a in arguments if isinstance(a, Fraction)]
        if len(exact) == len(arguments):
            return choose(*exact) if len(exact) > 1 else exact[0]
        return complex(choose(*[as_complex(a).real for a in arguments]))

    return chosen


_OF_ANGLES = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
_EXACT: dict[str, Callable[[list[Number]], Number | None]] = {
    "sqrt": _sqrt_exact,
    "root": _root_exact,
    "binom": _binom_exact,
    "abs": _abs_exact,
    "floor": _floor_exact,
    "ceil": _ceil_exact,
    "percent": _percent_exact,
    "degree": _degree_exact,
    "numeral": _numeral_exact,
    "min": _extreme(min),
    "max": _extreme(max),
}


def _log(value: complex, base: complex | None = None) -> complex:
    """The natural logarithm unless a base stands: both sides of a comparison read it alike."""
    return cmath.log(value) if base is None else cmath.log(value) / cmath.log(base)


_FUNCTIONS: dict[str, Callable[..., complex]] = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda x: 1 / cmath.tan(x),
    "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "arccot": lambda x: cmath.atan(1 / x),
    "arcsec": lambda x: cmath.acos(1 / x),
    "arccsc": lambda x: cmath.asin(1 / x),
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "ln": _log,
    "log": _log,
    "lg": lambda x: cmath.log10(x),
    "exp": cmath.exp,
    "sqrt": cmath.sqrt,
    "root": lambda x, n: cmath.exp(cmath.log(x) / n) if x else 0j,
    "abs": lambda x: complex(abs(x)),
}

_OPERATIONS: dict[str, Callable[[Node, Environment, int], Number]] = {
    "num": _num,
    "sym": _sym,
    "word": _sym,
    "const": _const,
    "add": _add,
    "pm": _pm,
    "mp": _pm,
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "pow": _pow,
    "fact": _fact,
    "ratio": _ratio,
    "call": _call,
    "infinity": _infinity,
}
