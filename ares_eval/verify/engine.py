"""Inside a worker: the decision over one algebra question by math-verify (sympy).

math-verify's own timeouts are off (they need the main thread's alarm and turn into "not equal"); the pool bounds the
worker instead. An error is ``unparsed`` or ``over_budget``, never "not equal".
"""

from __future__ import annotations

from typing import Any


def warm_up() -> None:
    """Import and run everything once, so that the first question costs no more than the others."""
    answer_question("latex", "\\frac{1}{2}", "0.5+x", None)


def answer_question(kind: str, answer: str, reference: str, digits: int | None) -> dict[str, Any]:
    """The decision as a plain mapping: value, method, reason."""
    from math_verify import parse, verify

    parsed_answer = parse("\\boxed{" + answer + "}", parsing_timeout=None)
    parsed_reference = parse("\\boxed{" + reference + "}", parsing_timeout=None)
    if not parsed_answer or not parsed_reference:
        return {"value": None, "method": "algebra", "reason": "unparsed"}
    rounding = 6 if digits is None else digits
    relations = kind in ("structured", "list", "multipart")
    value = verify(
        parsed_reference,
        parsed_answer,
        float_rounding=rounding,
        timeout_seconds=None,
        allow_set_relation_comp=relations,
    )
    return {"value": bool(value), "method": "algebra"}
