"""A response as a whole, as it is counted, verified and trained on: thinking in its tags, then the answer.

Servers give thinking apart (``reasoning``), inside of tags, or with the opening tag left out because their chat
template put it into the prompt. `whole` makes one form of all of them: ``<think>\\n...\\n</think>\\n\\nanswer``.
"""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"

_BOX = re.compile(r"\\boxed\s*\{")


def whole(text: str, reasoning: str = "") -> str:
    """The response in one text; what has no thinking stays as it is."""
    if reasoning:
        return f"{OPEN}\n{reasoning.strip()}\n{CLOSE}\n\n{text.lstrip()}"
    if CLOSE in text and OPEN not in text[: text.index(CLOSE)]:
        return f"{OPEN}\n{text.lstrip()}"
    return text


def split(response: str) -> tuple[str, str]:
    """(thinking, answer) of a whole response, tags left out; thinking that never ends leaves no answer."""
    before, opened, rest = response.partition(OPEN)
    if not opened:
        return "", response
    thinking, closed, answer = rest.rpartition(CLOSE)
    if not closed:
        return rest.strip(), ""
    return thinking.strip(), (before + answer).strip()


def well_formed(response: str, *, box: bool = False, think: bool = False) -> bool:
    """Whether a whole response may be imitated: thinking is opened once, closed once and followed by an answer.

    ``box``: the answer must stand in a ``\\boxed{}``; ``think``: there must be thinking.
    """
    opened, closed = response.count(OPEN), response.count(CLOSE)
    if opened != closed or opened > 1 or (think and not opened):
        return False
    if opened and response.index(OPEN) > response.index(CLOSE):
        return False
    thinking, answer = split(response)
    if not answer.strip() or (think and not thinking):
        return False
    return not box or _BOX.search(answer) is not None
