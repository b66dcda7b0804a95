"""Difficulty bins from the base rollouts' accuracy (paper appendix G: 6 and 3 of 8, as the fractions 2/3 and 1/3).

Forks do not vote: they were made where the model was uncertain. A rollout that failed is not in the batch, so a
question is judged by those that it has.
"""

from __future__ import annotations

import numpy as np

from ares_train.aepo.config import DifficultyConfig
from ares_train.aepo.rollouts import Array, Rollouts

BINS = ("easy", "medium", "hard")
"""Names by code."""

EASY, MEDIUM, HARD = range(3)


def bin_groups(rollouts: Rollouts, config: DifficultyConfig) -> Array:
    """i8[B], each row's bin: 0 easy, 1 medium, 2 hard; one for all rows of a question."""
    _, group = np.unique(rollouts.question, return_inverse=True)
    groups = int(group.max(initial=-1)) + 1
    valid = np.bincount(group[rollouts.base], minlength=groups)
    right = np.bincount(group[rollouts.base], weights=rollouts.correct[rollouts.base], minlength=groups)
    # k / n in float64 is the correctly rounded quotient, so 4 of 6 is exactly the default's 2 / 3.
    accuracy = np.divide(right, valid, out=np.zeros(groups), where=valid > 0)
    bins = np.where(accuracy >= config.easy, EASY, np.where(accuracy < config.hard, HARD, MEDIUM))
    bins[valid < config.min_valid] = MEDIUM
    return np.asarray(bins[group], dtype=np.int8)
