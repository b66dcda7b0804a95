"""Repetition loops: a reply that ends in the same words over and over, as models do that cannot stop.

A loop is a tail in which a unit of up to LONGEST_UNIT words repeats at least FEWEST_TURNS times and fills at least
SHORTEST words. Only the end of a reply is searched: a loop that a model left again cost it little.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SEEN = 2048
LONGEST_UNIT = 200
FEWEST_TURNS = 3
SHORTEST = 48

_PIECE = re.compile(r"\w+|[^\w\s]")
_LONG_PIECE = 40
"""Characters: no word is longer, but "0000..." is, and is then read character by character."""


def loop_share(text: str) -> float:
    """Share of a text's words that lies in a loop at its end; 0 where there is none."""
    pieces = _PIECE.findall(text)
    if any(len(piece) > _LONG_PIECE for piece in pieces[-SEEN:]):
        pieces = [part for piece in pieces for part in (piece if len(piece) > _LONG_PIECE else (piece,))]
    if len(pieces) < SHORTEST:
        return 0.0
    # A loop of some turns has at most a unit's worth of different words; most texts are ruled out here.
    if len(set(pieces[-SHORTEST:])) > SHORTEST * 0.8 and len(set(pieces[-SEEN:])) > 0.6 * min(len(pieces), SEEN):
        return 0.0
    tail = _codes(pieces[-SEEN:])
    longest = 0
    for period in range(1, min(LONGEST_UNIT, len(tail) // FEWEST_TURNS) + 1):
        run = _run(tail, period)
        if run >= max(FEWEST_TURNS * period, SHORTEST):
            if run == len(tail) < len(pieces):  # it began before what was looked at
                run = _run(_codes(pieces), period)
            longest = max(longest, run)
    return longest / len(pieces)


def _codes(pieces: list[str]) -> np.ndarray:
    import numpy as np

    names = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return np.array([names[piece] for piece in pieces])


def _run(codes: np.ndarray, period: int) -> int:
    """Words at the end of which each equals the one a period before it, the first period included."""
    import numpy as np

    differs = np.flatnonzero(codes[period:] != codes[:-period])
    return len(codes) - (int(differs[-1]) + 1 if len(differs) else 0)
