"""Sentence or formula: whether a text holds words that no function name, connective or unit explains."""

from __future__ import annotations

import re

from ares_eval.verify.algebra.tokens import FUNCTIONS
from ares_eval.verify.units import parse_unit

_WORD = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z]{3,}")
_SENTENCE = re.compile(r"(?<![\\a-zA-Z{])(?:is|are|was|were|be|of|to|it|has|have|the)(?![a-zA-Z])", re.I)
"""Words that only sentences have, and shorter or more like units than what ``_WORD`` looks at."""
_QUOTED = re.compile(r"\\(?:text|mathrm)\s*\{[^{}]*\}")
_CONNECTIVES = frozenset(
    [
        "and",
        "pi",
        "infty",
        "infinity",
        "inf",
        "mod",
        "where",
        "for",
        "all",
        "any",
        "integer",
        "integers",
        "some",
        "real",
        "with",
    ]
)


def is_prose(text: str) -> bool:
    """True for text with words of a sentence in it; words inside \\text{..} do not count."""
    text = _QUOTED.sub(" ", text)
    if _SENTENCE.search(text):
        return True
    for match in _WORD.finditer(text):
        word = match[0].lower()
        if word in FUNCTIONS or word in _CONNECTIVES or ((unit := parse_unit(word)) is not None and unit.known):
            continue
        return True
    return False
