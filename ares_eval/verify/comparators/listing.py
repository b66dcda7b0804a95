"""Lists: the same elements, each as often; in any order unless brackets or the policy (``ordered``) say otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ares_eval.verify.comparators.formula import compare_formula
from ares_eval.verify.decision import Decision, Outcome
from ares_eval.verify.normalise import bare_maths, words_key

_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*(?: [A-Za-z][A-Za-z' -]*)+")


def compare_list(answer: str, reference: str, policy: Mapping[str, Any]) -> Outcome:
    """Decide over two lists; a reference of bare words is an ordered list of words."""
    if _WORDS.fullmatch(reference) and " and " not in reference:
        one, other = words_key(bare_maths(answer)), words_key(reference)
        return Decision(one == other, "list:words", normalised=(one, other))
    return compare_formula("list", answer, reference, policy)
