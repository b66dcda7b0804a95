"""The reward of each answer: accuracy and what AEPO takes from it for thinking too much or too little.

Paper equations 7 to 9: Delta = N_HE - N_target(d); g = max(0, Delta) in easy, |Delta| in medium, max(0, -Delta) in
hard; R = acc - 1[acc = 0] lambda_d g. ``shape_correct`` lifts the restriction to wrong answers: ``easy`` for right
answers of easy questions, ``all`` for those of easy and of hard ones. The medium bin's penalty, being symmetric,
never touches a right answer: it would punish the longer search that found it. lambda g is capped at ``max_penalty`` <
1, so a right answer has more than 0 and a wrong one 0 at most.
"""

from __future__ import annotations

import numpy as np

from ares_train.aepo.config import AEPOConfig, OverlongConfig, RewardConfig
from ares_train.aepo.difficulty import EASY, HARD, MEDIUM
from ares_train.aepo.rollouts import Array

SHAPED_RIGHT = {"none": (), "easy": (EASY,), "all": (EASY, HARD)}
"""Bins whose right answers are penalised, by ``shape_correct``."""


def hierarchical_penalty(
    correct: Array, n_he: Array, bins: Array, target: Array, lambdas: Array, config: RewardConfig
) -> Array:
    """f64[B], 0 to ``max_penalty``: what E9 takes. ``target`` f64[B], NaN where there is none; ``lambdas`` f64[3]."""
    delta = np.where(np.isnan(target), 0.0, n_he - target)
    g = np.select([bins == EASY, bins == MEDIUM], [np.maximum(delta, 0.0), np.abs(delta)], np.maximum(-delta, 0.0))
    touched = (correct == 0) | np.isin(bins, SHAPED_RIGHT[config.shape_correct])
    return np.where(touched, np.minimum(lambdas[bins] * g, config.max_penalty), 0.0)


def length_reward(correct: Array, lengths: Array, config: AEPOConfig) -> Array:
    """f64[B]: acc (1 - c len / response_length), the control that is blind to difficulty."""
    assert config.response_length is not None
    used = np.minimum(lengths / config.response_length, 1.0)
    return np.asarray(correct * (1.0 - config.reward.length_coef * used))


def overlong_penalty(lengths: Array, response_length: int, config: OverlongConfig) -> Array:
    """f64[B], 0 to ``factor``: rises over the last ``buffer`` tokens before the limit (DAPO equation 13)."""
    if not config.buffer:
        return np.zeros(len(lengths))
    into = (lengths - (response_length - config.buffer)) / config.buffer
    return np.asarray(config.factor * np.clip(into, 0.0, 1.0))
