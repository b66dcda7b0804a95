"""The released training code's entropy reward, derived anew from what is known of it, for comparison only.

With Delta = N_HE - N_target, margin m_d (a share of the target), over = max(Delta - m, 0) and the strength alpha_d:

    easy, right      - min(huber(over; kappa_d), alpha_d)
    medium, right    - min(huber(max(|Delta| - m, 0); kappa_d), alpha_d)
    hard, right      + bonus while Delta >= -m, else - min(huber(-Delta - m; kappa_d), 0.2 alpha_d)
    any, wrong       + bonus
    bonus            share_d cap_d alpha_d sigmoid(over / T_d)

The "floors" of the code's bonuses (0.15, 0.2, 0.3 at alpha = 0.5) are this formula at over = 0, where the sigmoid is a
half; so they scale with alpha, as the paper's case study shows. Its values come out to the printed digits (appendix M):
-0.5 (easy right, 51 for 28), 0.0 (easy right, 20 for 28), and with alpha = 0.475 +0.379 and +0.190 (medium wrong, 84
and 24 for 55). What they leave open, and is our reading: Huber with unit slope, the hard bin's small penalty.

It pays wrong answers, which E9 never does. alpha walks by RATE (mean - round(mean)), the rounding error of the bin's
target; it is kept within ALPHA_RANGE, below which no wrong answer outranks a right one of its bin.
"""

from __future__ import annotations

import numpy as np

from ares_train.aepo.difficulty import EASY, HARD, MEDIUM
from ares_train.aepo.rollouts import Array

MARGIN = np.array([0.15, 0.25, 0.35])
"""m_d as a share of the target."""
KAPPA = np.array([2.0, 3.0, 4.0])
"""Where the Huber penalty turns from quadratic to linear, in windows."""
TEMPERATURE = np.array([2.0, 2.5, 3.0])
"""T_d of the bonus's sigmoid, in windows."""
SHARE = np.array([0.6, 0.8, 1.0])
CAP = np.array([1.0, 1.0, 1.2])
HARD_PENALTY = 0.2
"""Cap of a hard right answer's penalty, as a share of alpha."""

RATE = 0.05
ALPHA_RANGE = (0.05, 0.55)
"""1 - alpha, a right medium answer at worst, stays above 0.8 alpha, a wrong one at best, up to 5/9."""


def entropy_reward(correct: Array, n_he: Array, bins: Array, target: Array, alphas: Array) -> Array:
    """f64[B], what is added to the accuracy; ``target`` f64[B] and ``alphas`` f64[3] by bin."""
    delta = n_he - target
    margin = MARGIN[bins] * np.maximum(target, 1.0)
    alpha = np.asarray(alphas, dtype=np.float64)[bins]
    over = np.maximum(delta - margin, 0.0)
    bonus = SHARE[bins] * CAP[bins] * alpha / (1.0 + np.exp(-over / TEMPERATURE[bins]))
    far = np.select([bins == EASY, bins == MEDIUM], [over, np.maximum(np.abs(delta) - margin, 0.0)], -delta - margin)
    most = np.where(bins == HARD, HARD_PENALTY * alpha, alpha)
    penalty = np.minimum(_huber(np.maximum(far, 0.0), KAPPA[bins]), most)
    paid = (correct == 0) | ((bins == HARD) & (delta >= -margin))
    return np.asarray(np.where(paid, bonus, -penalty))


def rounded_targets(n_he: Array, bins: Array, question: Array) -> tuple[Array, Array]:
    """(targets, means) f64[3]: each bin's mean over its questions of their mean N_HE, rounded and not; NaN if empty."""
    _, first, group = np.unique(question, return_index=True, return_inverse=True)
    per_question = np.bincount(group, weights=n_he, minlength=len(first)) / np.bincount(group, minlength=len(first))
    of_bin = bins[first]
    means = np.array([per_question[of_bin == d].mean() if (of_bin == d).any() else np.nan for d in range(3)])
    return np.round(means), means


def walked(alphas: tuple[float, float, float], means: Array, targets: Array) -> tuple[float, float, float]:
    """The strengths after a batch; a bin that was empty keeps its own."""
    low, high = ALPHA_RANGE
    moved = []
    for d, alpha in enumerate(alphas):
        gap = float(means[d] - targets[d])
        step = RATE * (-gap if d == HARD else gap)
        moved.append(alpha if np.isnan(gap) else min(max(alpha + step, low), high))
    return (moved[0], moved[1], moved[2])


def _huber(x: Array, kappa: Array) -> Array:
    """x^2 / (2 kappa) up to kappa, x - kappa / 2 beyond; x >= 0."""
    return np.where(x <= kappa, x * x / (2 * kappa), x - kappa / 2)
