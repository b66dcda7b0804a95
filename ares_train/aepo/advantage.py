"""Group-relative advantages (``ares_grpo``) and DAPO's filter of questions.

GRPO as verl has it: (r - mean) / (std + 1e-6) within a question, sample deviation, a lone row keeps its reward.
Dividing by the group's own deviation erases the size of a penalty wherever accuracy does not vary: rewards (0, -1, 0,
-2) s give the same advantages for s = 0.1 and s = 0.001. ``std_floor`` is the least deviation that divides, so that
small stays small; ``std=accuracy`` takes the deviation of the accuracies, ``none`` only centres.
"""

from __future__ import annotations

import numpy as np

from ares_train.aepo.config import AdvantageConfig, FilterConfig
from ares_train.aepo.rollouts import Array, Rollouts

EPSILON = 1e-6
"""verl's: added to the deviation."""


def group_advantage(reward: Array, rollouts: Rollouts, config: AdvantageConfig) -> Array:
    """f64[B], one for all tokens of a row.

    ``all``: each row against its question's rows. ``base_baseline``: all rows against the question's base rows (against
    all of them where it has fewer than two base rows). ``siblings``: base rows against base rows, a fork against its
    parent and the other forks of it.
    """
    base = rollouts.base
    _, question = np.unique(rollouts.question, return_inverse=True)
    if config.group == "siblings":
        own = _against(reward, rollouts.correct, question, base, config)
        family = np.where(base, np.arange(len(base)), rollouts.parent)
        return np.where(base, own, _against(reward, rollouts.correct, family, np.ones_like(base), config))
    counted = np.ones_like(base)
    if config.group == "base_baseline":
        enough = np.bincount(question[base], minlength=int(question.max(initial=-1)) + 1) >= 2
        counted = base | ~enough[question]
    return _against(reward, rollouts.correct, question, counted, config)


def kept_questions(reward: Array, rollouts: Rollouts, config: FilterConfig) -> Array:
    """bool[B]: rows of questions whose mean lies strictly between the bounds; all rows for ``none``."""
    if config.metric == "none":
        return np.ones(rollouts.rows, dtype=np.bool_)
    values = rollouts.correct if config.metric == "accuracy" else reward
    _, question = np.unique(rollouts.question, return_inverse=True)
    mean = np.bincount(question, weights=values) / np.maximum(np.bincount(question), 1)
    return np.asarray(((mean > config.low) & (mean < config.high))[question])


def _against(reward: Array, correct: Array, group: Array, counted: Array, config: AdvantageConfig) -> Array:
    """(r - mean) / deviation, both over the ``counted`` rows of each row's ``group`` (codes from 0)."""
    mean, deviation, size = _moments(reward, group, counted)
    if config.std == "accuracy":
        deviation = _moments(correct.astype(np.float64), group, counted)[1]
    lone = size < 2
    mean = np.where(lone, 0.0, mean)
    deviation = np.where(lone, 1.0, np.maximum(deviation, config.std_floor))
    divisor = np.ones_like(mean) if config.std == "none" else deviation + EPSILON
    return np.asarray((reward - mean[group]) / divisor[group])


def _moments(values: Array, group: Array, counted: Array) -> tuple[Array, Array, Array]:
    """Each group's mean, sample deviation (0 for fewer than two rows) and number of counted rows."""
    groups = int(group.max(initial=-1)) + 1
    size = np.bincount(group[counted], minlength=groups)
    mean = np.bincount(group[counted], weights=values[counted], minlength=groups) / np.maximum(size, 1)
    square = np.bincount(group[counted], weights=(values - mean[group])[counted] ** 2, minlength=groups)
    return mean, np.sqrt(square / np.maximum(size - 1, 1)), size
