"""One training step of AEPO, from rollouts to rewards, advantages and KL weights, in the one order that is right:

    difficulty -> tau -> HWE -> target and lambda -> reward -> filter -> advantage -> state

The reward must see this batch's bins and threshold, and targets must not see this batch before it is rewarded; the
released code had both the other way round. Pure: the same input gives the same bits, and ``state`` is not changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ares_train.aepo import released
from ares_train.aepo.advantage import group_advantage, kept_questions
from ares_train.aepo.config import AEPOConfig
from ares_train.aepo.difficulty import bin_groups
from ares_train.aepo.entropy import centre, tau_high
from ares_train.aepo.kl import kl_weights
from ares_train.aepo.metrics import step_metrics, warnings_of
from ares_train.aepo.reward import hierarchical_penalty, length_reward, overlong_penalty
from ares_train.aepo.rollouts import Array, Rollouts
from ares_train.aepo.state import AEPOState, frozen_tau, remember
from ares_train.aepo.target import Targets, lambdas, statistics, targets
from ares_train.aepo.windows import flags


@dataclass(frozen=True, slots=True)
class Shaped:
    """What a step makes of B rollouts of T positions.

    ``bins`` i8[B]: 0 easy, 1 medium, 2 hard. ``tau``: nats, NaN where nothing was measured. ``flagged`` bool[B, T]:
    starts of high windows. ``n_he`` i64[B]. ``valid`` bool[B, T]: W_valid. ``targets`` f64[3] (NaN: none), ``lambdas``
    f64[3]. ``penalty`` f64[B]: taken by the hierarchical reward. ``reward`` f64[B]. ``keep`` bool[B]: False for
    questions that the filter drops; their advantage and KL weights are 0. ``advantage`` f64[B]. ``kl_weight``
    f32[B, T]. ``state``: for the next step. ``metrics``, ``warnings``: to be logged.
    """

    bins: Array
    tau: float
    flagged: Array
    n_he: Array
    valid: Array
    targets: Array
    lambdas: Array
    penalty: Array
    reward: Array
    keep: Array
    advantage: Array
    kl_weight: Array
    state: AEPOState
    metrics: dict[str, float]
    warnings: tuple[str, ...]


def shape(rollouts: Rollouts, state: AEPOState, config: AEPOConfig) -> Shaped:
    """Rewards, advantages, KL weights and the next state; ValueError for entropies that are not finite."""
    bins = bin_groups(rollouts, config.difficulty)

    measured = tau_high(rollouts, config.window)
    frozen = frozen_tau(state, config.reward)
    tau = measured if frozen is None else frozen

    high = flags(rollouts, tau, config.window)

    stats = statistics(high.n_he, bins)
    held = targets(high.n_he, bins, rollouts.question, rollouts.correct, stats, state, config.reward)
    strengths = lambdas(stats, held.bins, config.reward)

    reward, penalty, held, strengths, alphas = _reward(rollouts, high.n_he, bins, held, strengths, state, config)

    keep = kept_questions(reward, rollouts, config.filter)

    advantage = np.where(keep, group_advantage(reward, rollouts, config.advantage), 0.0)
    trained = (rollouts.own if config.branch.prefix_loss == "mask" else rollouts.mask) & keep[:, None]
    weights = kl_weights(bins, high.valid, trained, state, config.kl)

    after = remember(
        state,
        config,
        tau=measured,
        means=(float(stats.mean[0]), float(stats.mean[1]), float(stats.mean[2])),
        counts=(int(stats.count[0]), int(stats.count[1]), int(stats.count[2])),
        rollout_tau=_rollout_tau(rollouts, config),
        alphas=alphas,
    )
    metrics = step_metrics(
        rollouts,
        config,
        after,
        tau=tau,
        flags=high,
        bins=bins,
        stats=stats,
        targets=held.bins,
        lambdas=strengths,
        penalty=penalty,
        reward=reward,
        keep=keep,
        kl_weight=weights,
        trained=trained,
    )
    return Shaped(
        bins=bins,
        tau=tau,
        flagged=high.flagged,
        n_he=high.n_he,
        valid=high.valid,
        targets=held.bins,
        lambdas=strengths,
        penalty=penalty,
        reward=reward,
        keep=keep,
        advantage=advantage,
        kl_weight=weights,
        state=after,
        metrics=metrics,
        warnings=warnings_of(metrics, config, stats, held.bins, strengths),
    )


def _reward(
    rollouts: Rollouts,
    n_he: Array,
    bins: Array,
    held: Targets,
    strengths: Array,
    state: AEPOState,
    config: AEPOConfig,
) -> tuple[Array, Array, Targets, Array, tuple[float, float, float]]:
    """(reward f64[B], penalty f64[B], targets, lambdas, the released reward's strengths after it), as ``reward.mode``
    says; targets and lambdas are those that it used, none and zero where it used none."""
    correct = rollouts.correct.astype(np.float64)
    penalty = np.zeros(rollouts.rows)
    alphas = state.alphas
    unused = Targets(np.full(3, np.nan), np.full(rollouts.rows, np.nan))
    match config.reward.mode:
        case "hier":
            penalty = hierarchical_penalty(correct, n_he, bins, held.rows, strengths, config.reward)
            reward = correct - penalty
        case "released":
            rounded, means = released.rounded_targets(n_he, bins, rollouts.question)
            held, strengths = Targets(rounded, rounded[bins]), np.zeros(3)
            reward = correct + released.entropy_reward(correct, n_he, bins, held.rows, np.array(alphas))
            alphas = released.walked(alphas, means, rounded)
        case "length":
            held, strengths = unused, np.zeros(3)
            reward = length_reward(correct, rollouts.lengths(), config)
        case "accuracy":
            held, strengths = unused, np.zeros(3)
            reward = correct if rollouts.scores is None else rollouts.scores.astype(np.float64)
    if config.overlong.buffer and config.response_length is not None:
        reward = reward - overlong_penalty(rollouts.lengths(), config.response_length, config.overlong)
    return reward, penalty, held, strengths, alphas


def _rollout_tau(rollouts: Rollouts, config: AEPOConfig) -> float:
    """The threshold of the base rows by the rollouts' own estimate; NaN where it was not measured."""
    if rollouts.rollout_quantile is None:
        return float("nan")
    return centre(rollouts.rollout_quantile[rollouts.base], config.window)
