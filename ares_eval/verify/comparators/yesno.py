"""Yes or no, true or false, in several languages."""

from __future__ import annotations

import re

from ares_eval.verify.decision import Decision
from ares_eval.verify.normalise import trimmed, words_key

_YES = frozenset(
    [
        "yes",
        "true",
        "yeah",
        "yep",
        "correct",
        "right",
        "是",
        "对",
        "正确",
        "是的",
        "oui",
        "si",
        "sí",
        "ja",
        "да",
        "예",
        "네",
        "はい",
    ]
)
_NO = frozenset(
    [
        "no",
        "false",
        "nope",
        "incorrect",
        "wrong",
        "not",
        "否",
        "不",
        "不是",
        "错",
        "错误",
        "non",
        "nein",
        "нет",
        "아니오",
        "いいえ",
    ]
)
_WORD = re.compile(r"\b(yes|no|true|false|yeah|nope|correct|incorrect)\b|(是的|不是|正确|错误|是|否|对|错)", re.I)


_DOUBLE = re.compile(r"\bnot (true|false|correct|incorrect)\b")


def polarity(text: str) -> bool | None:
    """What a text says, by its only polar word or its first one where it leads; None where it says neither or both."""
    key = _DOUBLE.sub(lambda m: "false" if m[1] in _YES else "true", words_key(trimmed(text)))
    first = key.split(" ", 1)[0] if key else ""
    if first in _YES:
        return True
    if first in _NO and first != "not":
        return False
    found = {match[0].lower() in _YES for match in _WORD.finditer(key)}
    return found.pop() if len(found) == 1 else None


def compare_yesno(answer: str, reference: str) -> Decision:
    """Decide whether both say the same; an answer that says neither is ambiguous."""
    stated, wanted = polarity(answer), polarity(reference)
    if wanted is None:
        return Decision(None, "yesno", "unparsed")
    if stated is None:
        return Decision(None, "yesno", "ambiguous")
    return Decision(stated == wanted, "yesno", normalised=(str(stated), str(wanted)))
