"""Repetition loops: a reply that ends in the same words over and over, as models do that cannot stop.

A loop is a tail in which a unit of up to LONGEST_UNIT words repeats at least FEWEST_TURNS times and fills at least
SHORTEST words. Only the last SEEN words are looked at: a loop that a model left again cost it little.
"""

from __future__ import annotations

import re

SEEN = 2048
LONGEST_UNIT = 200
FEWEST_TURNS = 3
SHORTEST = 48

_PIECE = re.compile(r"\w+|[^\w\s]")
_LONG_PIECE = 40
"""Characters: no word is longer, but "0000..." is, and is then read character by character."""


def loop_share(text: str) -> float:
    """Share of a text's words that lies in a loop at its end; 0 where there is none."""
    import numpy as np

    pieces = _PIECE.findall(text)
    if any(len(piece) > _LONG_PIECE for piece in pieces[-SEEN:]):
        pieces = [part for piece in pieces for part in (piece if len(piece) > _LONG_PIECE else (piece,))]
    if len(pieces) < SHORTEST:
        return 0.0
    # A loop of some turns has at most a unit's worth of different words; most texts are ruled out here.
    if len(set(pieces[-SHORTEST:])) > SHORTEST * 0.8 and len(set(pieces[-SEEN:])) > 0.6 * min(len(pieces), SEEN):
        return 0.0
    tail = pieces[-SEEN:]
    names = {piece: i for i, piece in enumerate(dict.fromkeys(tail))}
    codes = np.array([names[piece] for piece in tail])
    longest = 0
    for period in range(1, min(LONGEST_UNIT, len(codes) // FEWEST_TURNS) + 1):
        differs = np.flatnonzero(codes[period:] != codes[:-period])
        # All words behind the last difference equal the word one period before them.
        run = len(codes) - (int(differs[-1]) + 1 if len(differs) else 0)
        if run >= max(FEWEST_TURNS * period, SHORTEST):
            longest = max(longest, run)
    return longest / len(pieces)
