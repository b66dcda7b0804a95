"""How many questions each tier gives, and which: equal shares, filled like water, drawn by a seeded hash.

A question's place in the draw is a hash of the seed and its id alone. So a selection depends on no order of rows, a
larger one contains a smaller one of the same seed, and questions that join later move nobody but by rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

TIERS = 9
"""Pass rates k/8 for k = 0 .. 8, all kept: p = 1 too, unlike in earlier work."""


def fill(available: Sequence[int], total: int) -> list[int]:
    """Shares of ``total`` (rows) among tiers that have ``available`` each: equal up to 1, but where a tier has less it
    gives all, and the others make up for it. What does not divide goes to the lower tiers (harder questions).

    The sum is min(total, sum(available)); the smallest share is as large as can be (max-min fairness).
    """
    shares = [0] * len(available)
    left = min(total, sum(available))
    open_tiers = [tier for tier, most in enumerate(available) if most]
    while left and open_tiers:
        level, extra = divmod(left, len(open_tiers))
        short = [tier for tier in open_tiers if available[tier] - shares[tier] <= level]
        if not short:
            for place, tier in enumerate(open_tiers):
                shares[tier] += level + (place < extra)
            break
        for tier in short:
            left -= available[tier] - shares[tier]
            shares[tier] = available[tier]
        open_tiers = [tier for tier in open_tiers if tier not in short]
    return shares


def apportion(weights: Sequence[int], total: int) -> list[int]:
    """``total`` in whole numbers in proportion to ``weights``, none above its weight (largest remainders; ties to the
    first). The sum is min(total, sum(weights))."""
    whole = sum(weights)
    total = min(total, whole)
    if not total:
        return [0] * len(weights)
    shares = [total * weight // whole for weight in weights]
    remainders = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in remainders[: total - sum(shares)]:
        shares[i] += 1
    return shares


def ranks(qids: Sequence[str], seed: int, purpose: str) -> np.ndarray:
    """Each question's place in the draw, uint64 [Q]: uniform, and independent between seeds and purposes."""
    start = hashlib.blake2b(f"{seed}\0{purpose}\0".encode(), digest_size=8)
    found = bytearray()
    for qid in qids:
        one = start.copy()
        one.update(qid.encode())
        found += one.digest()
    return np.frombuffer(bytes(found), dtype="<u8")


def uniform(available: Sequence[int]) -> int:
    """The most rows that give every tier that has any the same share."""
    present = [count for count in available if count]
    return min(present) * len(present) if present else 0


def choose(tier: np.ndarray, source: np.ndarray, rank: np.ndarray, size: int | None, per: str) -> np.ndarray:
    """Which questions are taken, bool [Q]: at most ``size``, uniform over tiers; None: as many as are quite uniform.

    ``tier`` int [Q] 0 .. 8; ``source`` int [Q]; ``rank`` uint64 [Q], the lowest go first. ``per`` "global": the shares
    are those of all sources together; "source": each source gets rows in proportion to its questions, uniform within.
    """
    taken = np.zeros(len(tier), dtype=np.bool_)
    for rows, share in _groups(source, size, per):
        available = np.bincount(tier[rows], minlength=TIERS).tolist()
        for each, count in enumerate(fill(available, uniform(available) if share is None else share)):
            inside = rows[tier[rows] == each]
            taken[inside[np.argsort(rank[inside], kind="stable")[:count]]] = True
    return taken


def _groups(source: np.ndarray, size: int | None, per: str) -> list[tuple[np.ndarray, int | None]]:
    """Rows that share tiers among themselves, and how many of them may be taken."""
    if per == "global":
        return [(np.arange(len(source)), size)]
    members = [np.flatnonzero(source == code) for code in np.unique(source)]
    if size is None:
        return [(rows, None) for rows in members]
    return list(zip(members, apportion([len(rows) for rows in members], size), strict=True))
