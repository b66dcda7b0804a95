"""Inside a worker: the decision over one algebra question.

First our own algebra again, with limits that are wider than in the caller's thread and with high precision; then,
unless it would cost too much, math-verify (sympy). math-verify's timeouts are off (they need the main thread's alarm
and turn into "not equal"): the pool bounds the worker. An error is ``unparsed`` or ``over_budget``, never "not equal".

math-verify accepts some wrong answers; a True of its is kept only if both sides were read whole: the same percent
signs and numeral bases, no number out of the middle of words, and values that agree at high precision.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from ares_eval.verify.algebra import parser, points, precise
from ares_eval.verify.algebra.nodes import TooLarge, Unreadable
from ares_eval.verify.comparators.formula import compare_trees
from ares_eval.verify.cost import too_costly
from ares_eval.verify.normalise import bare_maths, unwrap

RECURSION = 60_000
PRECISION = 30
CLOSE = 1e-9
_RELATIONAL = ("structured", "list", "multipart")


def warm_up() -> None:
    """Import and run everything once, so that the first question costs no more than the others."""
    sys.setrecursionlimit(RECURSION)
    points.settle_by(precise.settle)
    answer_question("latex", "\\int x dx", "\\frac{x^2}{2}", None)


def answer_question(kind: str, answer: str, reference: str, digits: int | None) -> dict[str, Any]:
    """The decision as a plain mapping: value, method, reason."""
    try:
        value = compare_trees(
            parser.parse_deep(answer), parser.parse_deep(reference), answer, reference, {"digits": digits}
        )
    except (Unreadable, TooLarge, ArithmeticError):
        value = None
    if value is not None:
        return {"value": value, "method": f"{kind}:precise"}
    if too_costly(answer) or too_costly(reference):
        return {"value": None, "method": "algebra", "reason": "over_budget"}
    return _by_sympy(kind, answer, reference, digits)


def _by_sympy(kind: str, answer: str, reference: str, digits: int | None) -> dict[str, Any]:
    from math_verify import parse, verify

    try:
        stated = parse("\\boxed{" + answer + "}", parsing_timeout=None, raise_on_error=True)
        wanted = parse("\\boxed{" + reference + "}", parsing_timeout=None, raise_on_error=True)
    except Exception as error:  # noqa: BLE001 - antlr and sympy raise anything; the name of it is recorded
        return {"value": None, "method": "algebra", "reason": "unparsed", "detail": type(error).__name__}
    if not stated or not wanted:
        return {"value": None, "method": "algebra", "reason": "unparsed"}

    def equal(gold: Any, target: Any) -> bool:
        return bool(
            verify(
                gold,
                target,
                float_rounding=6 if digits is None else digits,
                timeout_seconds=None,
                raise_on_error=True,
                allow_set_relation_comp=kind in _RELATIONAL,
            )
        )

    try:
        value = equal(wanted, stated) or (kind in _RELATIONAL and equal(stated, wanted))
        if value and not _trustworthy(answer, reference, stated[0], wanted[0], digits):
            return {"value": None, "method": "algebra:guarded", "reason": "unparsed"}
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - as above
        return {"value": None, "method": "algebra", "reason": "unparsed", "detail": type(error).__name__}
    return {"value": value, "method": "algebra"}


_BASE = re.compile(r"\d_\{?\d")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_RESIDUE = re.compile(r"(?!d[a-z]\b)\b[a-zA-Z]{2,}")
"""Words that are no differential."""


def _trustworthy(answer: str, reference: str, stated: Any, wanted: Any, digits: int | None) -> bool:
    """Whether an equality that math-verify found rests on all of both texts."""
    if answer.count("%") != reference.count("%"):
        return False
    if len(_BASE.findall(answer)) != len(_BASE.findall(reference)):
        return False
    for text, value in ((answer, stated), (reference, wanted)):
        residue = _COMMAND.sub(" ", unwrap(bare_maths(text)))
        if (
            getattr(value, "is_number", False)
            and _RESIDUE.search(residue)
            and not re.search(r"\\(?:text|mathrm)", text)
        ):
            return False
    return digits is not None or _numerically_close(stated, wanted)


def _numerically_close(stated: Any, wanted: Any) -> bool:
    """Both values at high precision, relative to their size; True where they are no plain numbers."""
    if not (getattr(stated, "is_number", False) and getattr(wanted, "is_number", False)):
        return True
    from sympy import N

    one, other = N(stated, PRECISION), N(wanted, PRECISION)
    size = max(abs(one), abs(other))
    if size == 0:
        return True
    return bool(abs(one - other) <= CLOSE * size) or bool(abs(one - other) <= 1e-6 and size > 1e-2)
