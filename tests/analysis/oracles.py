"""Brute-force versions of the token analysis: plain loops that follow the definitions word by word."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def quantile(values: Sequence[float], q: float) -> float:
    """By linear interpolation between order statistics."""
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def window_means(row: Sequence[float], w: int) -> list[float]:
    """NaN where the window t .. t + w - 1 is not full."""
    return [math.fsum(row[t : t + w]) / w if t + w <= len(row) else math.nan for t in range(len(row))]


def flagged(row: Sequence[float], tau: float, w: int) -> list[int]:
    """Positions t whose full window has a mean of at least tau."""
    return [t for t, mean in enumerate(window_means(row, w)) if mean >= tau]


def merged(positions: Sequence[int], w: int, length: int) -> list[tuple[int, int, int]]:
    """(first, last, stop) of every maximal run."""
    runs: list[list[int]] = []
    for t in positions:
        if runs and t == runs[-1][-1] + 1:
            runs[-1].append(t)
        else:
            runs.append([t])
    return [(run[0], run[-1], min(run[-1] + w, length)) for run in runs]


def random_rows(rng: np.random.Generator, rows: int, longest: int) -> list[np.ndarray]:
    """Entropies as float32, like those of a trace; some rows are empty."""
    return [
        np.exp(rng.normal(-1.0, 1.2, size=int(rng.integers(0, longest)))).astype(np.float32).astype(np.float64)
        for _ in range(rows)
    ]
