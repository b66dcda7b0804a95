"""What sympy is not asked: formulas whose cost is out of proportion to any answer. Cheap text checks, no parsing."""

from __future__ import annotations

import re

MAX_CHARACTERS = 400
MAX_DEPTH = 24
MAX_ITEMS = 150
_BIG = re.compile(
    r"\^\s*\{?\s*-?\d{5,}|\d{6,}\s*!|!\s*\)\s*!|\\binom\s*\{\s*\d{5,}|"
    r"\\(?:sum|prod)[^^]{0,60}\^\s*\{?\s*\d{5,}|\\(?:int|iint|lim)\b.{0,200}\\(?:int|iint|lim)\b"
)
_TOWER = re.compile(r"\^\s*[{(]?\s*[\w.\\]+\s*\^\s*[{(]?\s*[\w.\\]+\s*\^")


def too_costly(text: str) -> bool:
    """Whether a formula is beyond what is handed to sympy."""
    if len(text) > MAX_CHARACTERS or text.count(",") > MAX_ITEMS:
        return True
    depth = deepest = 0
    for character in text:
        if character in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "})]":
            depth -= 1
    return deepest > MAX_DEPTH or bool(_BIG.search(text)) or bool(_TOWER.search(text))
