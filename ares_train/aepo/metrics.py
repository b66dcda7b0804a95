"""What a step of AEPO logs, and what it warns of.

Names hold none of "max", "min" and "sum", by which verl's aggregator would choose how to merge them. A value that was
not measured is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ares_train.aepo.config import AEPOConfig
from ares_train.aepo.difficulty import BINS
from ares_train.aepo.rollouts import Array, Rollouts
from ares_train.aepo.target import BinStatistics
from ares_train.aepo.windows import Flags

if TYPE_CHECKING:
    from ares_train.aepo.state import AEPOState

FEW_FLAGGED = 0.001
"""Share of flagged positions below which windows say nothing."""

SILENT_ANSWERS = 0.5
"""Share of answers without a high-entropy window above which N_HE says little."""

FLAT = 1e-6
"""Rewards of a question that differ by less give no gradient."""


def step_metrics(
    rollouts: Rollouts,
    config: AEPOConfig,
    state: AEPOState,
    *,
    tau: float,
    flags: Flags,
    bins: Array,
    stats: BinStatistics,
    targets: Array,
    lambdas: Array,
    penalty: Array,
    reward: Array,
    keep: Array,
    kl_weight: Array,
    trained: Array,
) -> dict[str, float]:
    """Names and finite values; ``state`` is the one after the step, ``trained`` bool[B, T] what KL weights are for."""
    lengths = rollouts.lengths()
    tokens = max(int(lengths.sum()), 1)
    _, first, question = np.unique(rollouts.question, return_index=True, return_inverse=True)
    right = rollouts.correct > 0
    logged: dict[str, float] = {
        "aepo/tau/exact": tau,
        "aepo/tau/rollout": np.nan if state.tau_rollout is None else state.tau_rollout,
        "aepo/hwe/frac_flagged": flags.starts.sum() / tokens,
        "aepo/hwe/valid_frac": np.count_nonzero(flags.valid) / tokens,
        "aepo/hwe/zero_frac": np.mean(flags.n_he == 0) if rollouts.rows else np.nan,
        "aepo/hwe/starts_mean": _mean(flags.starts),
        "aepo/hwe/covered_mean": _mean(flags.covered),
        "aepo/hwe/windows_mean": _mean(flags.windows),
        "aepo/lambda_identically_zero": float(config.lambda_is_zero),
        "aepo/reward/active_frac/right": _mean(penalty[right] > 0),
        "aepo/reward/active_frac/wrong": _mean(penalty[~right] > 0),
        "aepo/reward/flat_frac": _flat(reward, question),
        "aepo/filter/dropped_frac": _mean(~keep[first]),
        "aepo/kl/weight_mean": _over(float(kl_weight.sum(dtype=np.float64)), int(np.count_nonzero(trained))),
        "aepo/rows/real": float(rollouts.rows),
        "aepo/rows/truncated_frac": _mean(rollouts.truncated),
    }
    for d, name in enumerate(BINS):
        here = bins == d
        based = here & rollouts.base
        logged |= {
            f"aepo/hwe/count_mean/{name}": stats.mean[d],
            f"aepo/difficulty/{name}/groups": float(np.count_nonzero(bins[first] == d)),
            f"aepo/difficulty/{name}/acc": _mean(rollouts.correct[based]),
            f"aepo/difficulty/{name}/len_mean": _mean(lengths[here]),
            f"aepo/reward/lambda/{name}": lambdas[d],
            f"aepo/reward/target/{name}": targets[d],
            f"aepo/reward/mean/{name}": stats.mean[d],
            f"aepo/reward/shaped/{name}": _mean(reward[here]),
            f"aepo/reward/var/{name}": stats.var[d],
            f"aepo/reward/penalty_mean/{name}": _mean(penalty[here]),
            f"aepo/reward/active_frac/{name}": _mean(penalty[here] > 0),
            f"aepo/kl/beta/{name}": config.kl.beta.values()[d] * state.kappas[d],
        }
    logged |= _branching(rollouts, tokens, len(first))
    return {name: float(value) for name, value in logged.items() if np.isfinite(value)}


def warnings_of(
    metrics: Mapping[str, float], config: AEPOConfig, stats: BinStatistics, targets: Array, lambdas: Array
) -> tuple[str, ...]:
    """One line for each thing that makes a step's shaping mean less than it seems."""
    found = []
    if metrics.get("aepo/hwe/zero_frac", 0.0) > SILENT_ANSWERS:
        found.append(
            f"{metrics['aepo/hwe/zero_frac']:.0%} of the answers have N_HE = 0: windows of {config.window.size} tokens "
            f"at the {config.window.quantile} quantile are too strict for this text"
        )
    if metrics["aepo/hwe/frac_flagged"] < FEW_FLAGGED:
        found.append(f"{metrics['aepo/hwe/frac_flagged']:.4%} of the positions are flagged; below {FEW_FLAGGED:.1%}")
    if config.lambda_is_zero:
        found.append("lambda is identically zero: the target is the batch's own mean, so the reward is the accuracy")
    elif config.reward.mode == "hier" and not np.isnan(targets).all() and not lambdas.any():
        found.append(
            f"lambda is zero in every bin, so the reward is the accuracy: {_no_lambda(config, stats, targets)}"
        )
    empty = [name for name in BINS if not metrics.get(f"aepo/difficulty/{name}/groups")]
    if empty:
        found.append(f"no question of this batch is {' or '.join(empty)}")
    return tuple(found)


def _no_lambda(config: AEPOConfig, stats: BinStatistics, targets: Array) -> str:
    """Why no bin has a lambda, though there are targets. The same text in every batch, so that it is told once."""
    reward = config.reward
    if reward.fixed_lambda == 0:
        return "reward.fixed_lambda is 0"
    if reward.fixed_lambda is None and reward.lam_max == 0:
        return "reward.lam_max is 0"
    needed = 1 if reward.fixed_lambda is not None else reward.min_count
    if (stats.count[~np.isnan(targets)] < needed).all():
        if reward.fixed_lambda is not None:
            return "no answer of this batch is in a bin that has a target"
        return f"no bin with a target has reward.min_count={needed} answers; lower it, or take larger batches"
    return f"no bin's mean N_HE is on the penalised side of its target (reward.lambda_sign={reward.lambda_sign})"


def _branching(rollouts: Rollouts, tokens: int, questions: int) -> dict[str, float]:
    """How much of the batch is forks, and whether they do as well as the rollouts that they left."""
    forks = np.flatnonzero(~rollouts.base)
    if not len(forks):
        return {"aepo/branch/done": 0.0}
    inherited = int(np.count_nonzero(rollouts.mask)) - int(np.count_nonzero(rollouts.own))
    gain = rollouts.correct[forks] - rollouts.correct[rollouts.parent[forks]]
    return {
        "aepo/branch/done": float(len(forks)),
        "aepo/branch/per_prompt": len(forks) / questions,
        "aepo/branch/prefix_token_frac": inherited / tokens,
        "aepo/branch/fork_acc_gain": _mean(gain),
    }


def _over(total: float, count: int) -> float:
    """NaN over nothing."""
    return total / count if count else float("nan")


def _mean(values: Array) -> float:
    """NaN of nothing."""
    return float(np.mean(values, dtype=np.float64)) if len(values) else float("nan")


def _flat(reward: Array, question: Array) -> float:
    """Share of questions whose rewards are all alike."""
    if not len(reward):
        return float("nan")
    groups = int(question.max()) + 1
    low, high = np.full(groups, np.inf), np.full(groups, -np.inf)
    np.minimum.at(low, question, reward)
    np.maximum.at(high, question, reward)
    return float(np.mean(high - low < FLAT))
