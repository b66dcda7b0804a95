"""The tree of a parsed answer, and the two errors that parsing and evaluating may raise."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


class Unreadable(ValueError):
    """The text is no mathematics that this parser knows."""


class TooLong(Unreadable):
    """Mathematics, but longer or deeper than what is parsed here."""


class TooLarge(ArithmeticError):
    """Evaluation would cost more than its bound: exponents, factorials, digits."""


@dataclass(frozen=True, slots=True)
class Node:
    """``op`` with its operands.

    Expressions: num (value: Fraction), sym (name), word (name), add, mul, div, pow, neg, pm (a, b) and mp, call
    (name: function; args), fact, ratio, infinity, const (name: pi, e, i). Structures: bracket (name: the two
    delimiters), set, list (name: separator), rel (name: operators, comma-separated; args: the sides), union, inter,
    minus, in, matrix (name: rows x columns), named_set (name: R, Z, ...), empty.
    """

    op: str
    args: tuple[Node, ...] = ()
    name: str = ""
    value: Fraction | None = None


def number(value: int | Fraction) -> Node:
    """A numeric leaf."""
    return Node("num", value=Fraction(value))


STRUCTURES = frozenset(
    {"bracket", "set", "list", "rel", "union", "inter", "minus", "in", "matrix", "named_set", "empty"}
)


def symbols(node: Node) -> frozenset[str]:
    """Names of the free symbols in a tree."""
    found: set[str] = set()
    stack = [node]
    while stack:
        item = stack.pop()
        if item.op in ("sym", "word"):
            found.add(item.name)
        stack.extend(item.args)
    return frozenset(found)


def contains(node: Node, ops: frozenset[str] | set[str]) -> bool:
    """Whether any node of the tree has one of these operators."""
    stack = [node]
    while stack:
        item = stack.pop()
        if item.op in ops:
            return True
        stack.extend(item.args)
    return False
