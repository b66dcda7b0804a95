"""Repetition loops: a reply that ends in the same words over and over, as models do that cannot stop.

A loop is a tail in which a unit of up to LONGEST_UNIT words repeats at least FEWEST_TURNS times and fills at least
SHORTEST words. Only the end of a reply is searched: a loop that a model left again cost it little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SEEN = 16_384
"""Characters at the end of a reply in which a loop must show."""

LONGEST_UNIT = 200
FEWEST_TURNS = 3
SHORTEST = 48

_PIECE = re.compile(r"\w+|[^\w\s]")
_LONG_PIECE = 40
"""Characters: no word is longer, but "0000..." is, and is then read character by character."""


def loop_share(text: str) -> float:
    """Share of a text's words that lies in a loop at its end; 0 where there is none."""
    tail = _codes(text[-SEEN:])
    periods = [period for period in _candidates(tail) if _is_loop(tail, period)]
    if not periods:
        return 0.0
    whole = tail if len(text) <= SEEN else _codes(text)
    return max(_run(whole, period) for period in periods) / len(whole)


def _codes(text: str) -> np.ndarray:
    """The words of a text as numbers, equal for equal words."""
    import numpy as np

    pieces: list[str] = _PIECE.findall(text)
    if any(len(piece) > _LONG_PIECE for piece in pieces):
        pieces = [part for piece in pieces for part in (piece if len(piece) > _LONG_PIECE else (piece,))]
    names: dict[str, int] = {}
    return np.array([names.setdefault(piece, len(names)) for piece in pieces], dtype=np.int64)


def _candidates(codes: np.ndarray) -> list[int]:
    """Periods at which the last three words stood before: a loop's period is one of them."""
    import numpy as np

    reach = min(LONGEST_UNIT, len(codes) // FEWEST_TURNS)
    if len(codes) < SHORTEST or reach < 1:
        return []
    seen = codes[::-1]
    same = np.ones(reach, dtype=np.bool_)
    for back in range(3):
        same &= seen[back + 1 : back + 1 + reach] == seen[back]
    return (np.flatnonzero(same) + 1).tolist()


def _is_loop(codes: np.ndarray, period: int) -> bool:
    return _run(codes, period) >= max(FEWEST_TURNS * period, SHORTEST)


def _run(codes: np.ndarray, period: int) -> int:
    """Words at the end of which each equals the one a period before it, the first period included."""
    import numpy as np

    differs = np.flatnonzero(codes[period:] != codes[:-period])
    return len(codes) - (int(differs[-1]) + 1 if len(differs) else 0)
