"""Which response of a question is taken: the one whose length is nearest to the target, or any of them at random.

Candidates (C rows) are given as arrays, those of one question anywhere among them; results name rows of the candidates,
one a question that has any, in ascending order of questions. No order of rows changes which candidate is taken.
"""

from __future__ import annotations

import numpy as np


def nearest(question: np.ndarray, length: np.ndarray, draw: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rows of the candidates nearest in length to their question's target; of equally near ones the shorter, then the
    lower draw.

    ``question`` int [C], ``length`` int [C] tokens, ``draw`` int [C], unique within a question; ``target`` float [Q]
    tokens, finite where a question has candidates.
    """
    away = np.abs(length - target[question])
    order = np.lexsort((draw, length, away, question))
    return _firsts(question, order)


def at_random(question: np.ndarray, draw: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Rows of one candidate a question, each as likely: the place among its candidates (by draw) that ``rank``, uint64
    [Q] and uniform, falls on."""
    order = np.lexsort((draw, question))
    ordered = question[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts = np.diff(np.append(starts, len(ordered)))
    which = ordered[starts]
    # The upper 32 bits times the count keep within 64 bits.
    picks = (rank[which] >> np.uint64(32)) * counts.astype(np.uint64) >> np.uint64(32)
    found: np.ndarray = order[starts + picks.astype(np.int64)]
    return found


def _firsts(question: np.ndarray, order: np.ndarray) -> np.ndarray:
    found: np.ndarray = order[np.flatnonzero(np.diff(question[order], prepend=-1))]
    return found
