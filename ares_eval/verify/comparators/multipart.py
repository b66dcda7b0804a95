"""Answers in named parts: "(a) 20; (b) 7", "max 8, min 1". Every part must be found under its name and be equal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ares_eval.verify.comparators.formula import compare_formula
from ares_eval.verify.decision import Decision, Outcome
from ares_eval.verify.normalise import ascii_maths, trimmed, unwrap
from ares_eval.verify.quantity import parse_quantity, quantities_in

_ENUMERATED = re.compile(r"\(\s*([a-h]|i{1,3}|iv|v|[1-9])\s*\)\s*")
_WORDED = re.compile(r"\b([A-Za-z]{3,30})\s*(?:is|=|:|of)?\s*(-?\d[\d.,/]*\d|-?\d)")


MAX_TEXT = 5000


def parts_of(text: str) -> dict[str, str]:
    """Label to value, in lower case; empty where a text has no labelled parts."""
    text = text[:MAX_TEXT]
    found = list(_ENUMERATED.finditer(text))
    if len(found) > 1:
        ends = [match.start() for match in found[1:]] + [len(text)]
        return {m[1].lower(): trimmed(text[m.end() : end].strip(" ;,and")) for m, end in zip(found, ends, strict=True)}
    worded = _WORDED.findall(text)
    return {label.lower(): value for label, value in worded} if len(worded) > 1 else {}


def compare_multipart(answer: str, reference: str, policy: Mapping[str, Any]) -> Outcome:
    """Decide part by part; references without labelled parts are compared as one structure."""
    wanted = parts_of(unwrap(reference))
    if not wanted:
        return compare_formula("multipart", answer, reference, policy)
    stated = parts_of(unwrap(answer))
    missing = False
    for name, value in wanted.items():
        given = stated.get(name) or _after(name, answer)
        if given is None:
            missing = True
            continue
        outcome = _part(given, value, policy)
        if outcome is False:
            return Decision(False, "multipart:part")
        missing |= outcome is None
    return Decision(None, "multipart", "unparsed") if missing else Decision(True, "multipart:parts")


def _part(given: str, value: str, policy: Mapping[str, Any]) -> bool | None:
    one, other = parse_quantity(given), parse_quantity(value)
    if one is not None and other is not None:
        return one.value == other.value
    outcome = compare_formula("multipart", given, value, policy)
    return outcome.value if isinstance(outcome, Decision) else None


def _after(name: str, answer: str) -> str | None:
    """The first number after a word that begins with the part's name ("max" in "the maximum is 5")."""
    match = re.search(rf"\b{re.escape(name)}\w*", ascii_maths(answer), re.I)
    numbers = quantities_in(ascii_maths(answer)[match.end() :].replace("$", " ")) if match else []
    return numbers[0] if numbers else None
