"""Free text: equal in normal form to the reference or one of its aliases, or plainly something else; rules go no further.

What a rule can not tell is ``needs_judge``. Policy ``closed`` (True): the reference is one of a fixed set of words, so
anything else is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ares_eval.verify.decision import Decision
from ares_eval.verify.normalise import string_key, words_key


def compare_text(answer: str, references: tuple[str, ...], policy: Mapping[str, Any]) -> Decision:
    """Decide whether the answer says what one of the references says."""
    key, words = string_key(answer), words_key(answer)
    for reference in references:
        if key and key == string_key(reference):
            return Decision(True, "text:equal", normalised=(key, key))
        if words and words == words_key(reference):
            return Decision(True, "text:words", normalised=(words, words))
    shown = (words, words_key(references[0]) if references else "")
    if policy.get("closed"):
        return Decision(False, "text:closed", normalised=shown)
    return Decision(None, "text", "needs_judge", shown)
