"""Token weights of the KL loss (paper equation 10) and their per-bin controller (paper equation 17).

w_{i,t} = kappa_d beta_d rho_t: beta_d by the difficulty bin, rho < 1 inside valid windows, where the policy may wander,
and kappa_d = 1 unless the controller moves it. The loss is kl_coef times the aggregate of w KL, so the weights are a
budget and not a weighted mean; ``normalise=mean_one`` keeps the whole budget what it was.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ares_train.aepo.config import ControllerConfig, KLConfig
from ares_train.aepo.rollouts import Array
from ares_train.aepo.state import AEPOState
from ares_train.aepo.windows import chunks


def kl_weights(bins: Array, valid: Array, trained: Array, state: AEPOState, config: KLConfig) -> Array:
    """f32[B, T]: weights on the ``trained`` tokens bool[B, T], 0 elsewhere; ``valid`` bool[B, T] is W_valid."""
    if config.mode == "uniform":
        return trained.astype(np.float32)
    weights = np.zeros(trained.shape, dtype=np.float32)
    if config.mode == "off":
        return weights
    beta = np.array(config.beta.values())
    scale = _to_mean_one(beta[bins], valid, trained, config.rho) if config.normalise == "mean_one" else 1.0
    outside = ((scale * beta * np.array(state.kappas))[bins])[:, None]
    within = (config.rho * outside).astype(np.float32)
    outside = outside.astype(np.float32)
    for part in chunks(trained.shape):
        np.multiply(np.where(valid[part], within[part], outside[part]), trained[part], out=weights[part])
    return weights


def _to_mean_one(beta: Array, valid: Array, trained: Array, rho: float) -> float:
    """The factor that makes the mean of beta rho over the trained tokens one; ``beta`` f64[B]."""
    mass, tokens = 0.0, 0
    for part in chunks(trained.shape):
        total = np.count_nonzero(trained[part], axis=1)
        inside = np.count_nonzero(trained[part] & valid[part], axis=1)
        mass += float(np.sum(beta[part] * (total - (1.0 - rho) * inside)))
        tokens += int(total.sum())
    return tokens / mass if mass > 0 else 1.0


def controlled(state: AEPOState, kl_sum: Array, tokens: Array, config: ControllerConfig) -> AEPOState:
    """The state after the controller saw one step's KL outside valid windows, of all ranks together.

    ``kl_sum`` f64[3]: summed over the trained tokens outside windows of each bin, nats; ``tokens``: how many those
    were. A bin without tokens keeps its kappa. ValueError for a KL that is not finite.
    """
    if not config.enabled:
        return state
    kappas = list(state.kappas)
    for d in range(3):
        if not tokens[d]:
            continue
        measured = float(kl_sum[d]) / float(tokens[d])
        if not np.isfinite(measured):
            raise ValueError(f"the KL outside windows is {measured} in bin {d}")
        moved = kappas[d] * (1.0 + config.rate * (measured / config.target - 1.0))
        kappas[d] = min(max(moved, config.lowest), config.highest)
    return replace(state, kappas=(kappas[0], kappas[1], kappas[2]))
