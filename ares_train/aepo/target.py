"""N_target(d) and lambda_d: how much thinking each difficulty bin is meant to have, and how strongly that is asked for.

Paper equations 5 and 6: lambda_d = max(0, (E[N|d] - N_target(d)) / (Var[N|d] + eps)). With the target as printed, the
mean of the same batch (``batch_mean``), the numerator is zero and with it lambda, always. The other modes:

    ema, prev_batch   the mean of earlier batches, smoothed or the last one; the current batch moves it after its use
    bootstrap         the mean of the first K batches, then frozen, and tau_high frozen with it: N_HE falls as entropy
                      falls, so a frozen target with a floating threshold would ask for ever less (or more)
    fixed             given numbers
    group             per question, the mean N_HE of its right answers (of all its answers where none is right)

The group's lambda is given, not computed: its closed form would be zero for the same reason as the printed one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ares_train.aepo.config import RewardConfig
from ares_train.aepo.difficulty import EASY, HARD
from ares_train.aepo.rollouts import Array
from ares_train.aepo.state import AEPOState

NOBODY = float("nan")
"""The target of a bin that has none yet."""


@dataclass(frozen=True, slots=True)
class BinStatistics:
    """N_HE of each bin's answers: ``count`` i64[3], ``mean`` and population ``var`` f64[3], NaN for an empty bin."""

    count: Array
    mean: Array
    var: Array


@dataclass(frozen=True, slots=True)
class Targets:
    """``bins`` f64[3]: N_target of each bin, NaN for none. ``rows`` f64[B]: the one that each answer is held to."""

    bins: Array
    rows: Array


def statistics(n_he: Array, bins: Array) -> BinStatistics:
    """Of all answers of the batch, forks included."""
    count = np.bincount(bins, minlength=3)
    mean, var = np.full(3, np.nan), np.full(3, np.nan)
    for d in np.flatnonzero(count).tolist():
        values = n_he[bins == d].astype(np.float64)
        mean[d] = values.mean()
        var[d] = np.mean((values - mean[d]) ** 2)
    return BinStatistics(count, mean, var)


def targets(
    n_he: Array,
    bins: Array,
    question: Array,
    correct: Array,
    stats: BinStatistics,
    state: AEPOState,
    config: RewardConfig,
) -> Targets:
    """What this batch is held to; ``state`` is that of the steps before it."""
    coef = np.array(config.coef.values())
    if config.target_mode == "group":
        rows = coef[bins] * _of_groups(n_he, question, correct)
        means = [rows[bins == d].mean() if stats.count[d] else NOBODY for d in range(3)]
        return Targets(np.array(means), rows)
    if config.target_mode == "batch_mean":
        known = stats.mean
    elif config.target_mode == "fixed":
        assert config.fixed_targets is not None
        known = np.array(config.fixed_targets.values())
    else:
        known = np.array([_remembered(state, d, config) for d in range(3)], dtype=np.float64)
    chosen = coef * known
    return Targets(chosen, chosen[bins])


def lambdas(stats: BinStatistics, target: Array, config: RewardConfig) -> Array:
    """f64[3], dimensionless, 0 to ``lam_max`` (``fixed_lambda`` where given); 0 for a bin without a target.

    A bin with fewer than ``min_count`` answers has 0, too, unless lambda is fixed. ``paper``: the printed numerator in
    every bin. ``directional``: mean - target in easy, its absolute value in medium, target - mean in hard, so that each
    penalty is on while its own side of the target is violated.
    """
    result = np.zeros(3)
    for d in range(3):
        if np.isnan(target[d]) or not stats.count[d]:
            continue
        if config.fixed_lambda is not None:
            result[d] = config.fixed_lambda
        elif stats.count[d] >= config.min_count:
            excess = stats.mean[d] - target[d]
            if config.lambda_sign == "directional" and d != EASY:
                excess = -excess if d == HARD else abs(excess)
            closed = excess / (max(stats.var[d], config.var_floor) + config.eps)
            result[d] = min(max(0.0, closed), config.lam_max)
    return result


def _remembered(state: AEPOState, d: int, config: RewardConfig) -> float:
    """The target that earlier batches left for bin ``d``."""
    memory = state.bins[d]
    value: float | None
    if config.target_mode == "ema":
        value = memory.ema
    elif config.target_mode == "prev_batch":
        value = memory.previous
    else:
        value = memory.bootstrap.mean(config.bootstrap_steps)
    return NOBODY if value is None else value


def _of_groups(n_he: Array, question: Array, correct: Array) -> Array:
    """f64[B]: for each row the mean N_HE of its question's right answers, of all its answers where none is right."""
    _, group = np.unique(question, return_inverse=True)
    right = correct > 0
    groups = int(group.max(initial=-1)) + 1
    some = np.bincount(group[right], minlength=groups) > 0
    counted = right | ~some[group]
    total = np.bincount(group[counted], weights=n_he[counted], minlength=groups)
    size = np.bincount(group[counted], minlength=groups)
    return np.asarray((total / np.maximum(size, 1))[group])
