"""Torch twins of the formulas, to judge by: entropy, windows, KL weights and losses, advantages, each written once more
as it stands on paper.

No run calls them. They are the tests' oracle for what runs: the NumPy functions of this package (windows, KL weights,
advantages; tests/train/test_aepo_kl.py), verl's entropies, and the loss and sums of ares_train.rl.loss
(tests/train/test_rl_loss.py); what autograd makes of them is compared with finite differences. Shapes: B rows, T
response positions, V symbols.
"""

from __future__ import annotations

import torch

from ares_train.aepo.advantage import EPSILON
from ares_train.aepo.config import KLConfig

KL_RANGE = (20.0, 10.0)
"""verl's clamps of k3: of the log-ratio, and of the value."""


def entropy_from_logits(logits: torch.Tensor, temperature: float = 1.0, rows: int = 2048) -> torch.Tensor:
    """f32[...] nats of softmax(logits / temperature) over the last axis (paper equation 1).

    A symbol that is ruled out (logit -inf) adds nothing. ``rows`` distributions are worked on together, so that memory
    beyond the logits stays at rows x V floats.
    """
    flat = logits.reshape(-1, logits.shape[-1])
    parts = []
    for part in flat.split(rows):
        log_p = torch.log_softmax(part.float() / temperature, dim=-1)
        p = log_p.exp()
        parts.append(-(p * torch.where(p > 0, log_p, torch.zeros_like(log_p))).sum(dim=-1))
    return torch.cat(parts).reshape(logits.shape[:-1]) if parts else logits.new_zeros(logits.shape[:-1]).float()


def window_mean(entropy: torch.Tensor, mask: torch.Tensor, w: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(Hbar f64[B, T], full bool[B, T]), see windows.window_mean."""
    rows, tokens = entropy.shape
    means = torch.zeros(rows, tokens, dtype=torch.float64, device=entropy.device)
    full = torch.zeros(rows, tokens, dtype=torch.bool, device=entropy.device)
    if tokens < w:
        return means, full
    zero = torch.zeros(rows, 1, dtype=torch.float64, device=entropy.device)
    known = torch.where(mask, entropy, torch.zeros_like(entropy)).double()
    total = torch.cat([zero, known.cumsum(dim=1)], dim=1)
    written = torch.cat([zero.long(), mask.long().cumsum(dim=1)], dim=1)
    starts = tokens - w + 1
    full[:, :starts] = written[:, w:] - written[:, :-w] == w
    means[:, :starts] = (total[:, w:] - total[:, :-w]) / w
    return torch.where(full, means, torch.zeros_like(means)), full


def kl_weights(
    bins: torch.Tensor, valid: torch.Tensor, trained: torch.Tensor, kappas: tuple[float, float, float], config: KLConfig
) -> torch.Tensor:
    """f32[B, T], see kl.kl_weights; ``kappas`` are the state's."""
    on = trained.double()
    if config.mode == "off":
        return torch.zeros_like(on).float()
    if config.mode == "uniform":
        return on.float()
    beta = torch.tensor(config.beta.values(), dtype=torch.float64, device=trained.device)
    rho = torch.where(valid, torch.full_like(on, config.rho), torch.ones_like(on)) * on
    weights = beta[bins.long()][:, None] * rho
    if config.normalise == "mean_one" and weights.sum() > 0:
        weights = weights * (on.sum() / weights.sum())
    kappa = torch.tensor(kappas, dtype=torch.float64, device=trained.device)
    return (weights * kappa[bins.long()][:, None]).float()


def token_kl(log_prob: torch.Tensor, reference: torch.Tensor, estimator: str = "k3") -> torch.Tensor:
    """f[B, T]: an estimate of KL(policy, reference) at each sampled token: ``k1``, ``k2`` or ``k3``, as verl has them.

    k3 is the released code's; as a loss its gradient is not that of the true KL (k2's is, in expectation). ValueError
    for another name.
    """
    ratio = reference - log_prob
    if estimator == "k1":
        return -ratio
    if estimator == "k2":
        return 0.5 * ratio.square()
    if estimator == "k3":
        ratio = ratio.clamp(-KL_RANGE[0], KL_RANGE[0])
        return (ratio.exp() - ratio - 1).clamp(-KL_RANGE[1], KL_RANGE[1])
    raise ValueError(f"no KL estimator {estimator!r}; there are k1, k2, k3")


def full_kl(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """f[B, T]: the exact KL(policy, reference) of whole distributions, logits [B, T, V]."""
    log_p = torch.log_softmax(logits, dim=-1)
    return (log_p.exp() * (log_p - torch.log_softmax(reference, dim=-1))).sum(dim=-1)


def weighted_kl(
    kl: torch.Tensor, weights: torch.Tensor, mask: torch.Tensor, aggregate: str = "token-mean"
) -> torch.Tensor:
    """The KL loss of paper equation 2, without its coefficient: the sum of w KL over the number of tokens
    (``token-mean``), or the mean over rows of each row's own (``seq-mean``; rows without a token are left out).

    ``kl``, ``weights`` f[B, T]; ``mask`` bool[B, T]. ValueError for another name.
    """
    on = mask.to(kl.dtype)
    weighted = torch.where(mask, kl * weights, torch.zeros_like(kl))
    if aggregate == "token-mean":
        return weighted.sum() / on.sum().clamp(min=1)
    if aggregate == "seq-mean":
        tokens = on.sum(dim=1)
        return (weighted.sum(dim=1) / tokens.clamp(min=1)).sum() / (tokens > 0).sum().clamp(min=1)
    raise ValueError(f"no aggregate {aggregate!r}; there are token-mean, seq-mean")


def kl_outside(
    kl: torch.Tensor, trained: torch.Tensor, valid: torch.Tensor, bins: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum f64[3], tokens f64[3]) of ``kl`` over the trained tokens outside valid windows, by bin: what the controller
    is driven by, once added up over micro-batches and ranks."""
    on = (trained & ~valid).double()
    code = bins.long()
    total = torch.zeros(3, dtype=torch.float64, device=kl.device)
    tokens = torch.zeros_like(total)
    total.index_add_(0, code, torch.where(on > 0, kl.detach().double(), torch.zeros_like(on)).sum(dim=1))
    tokens.index_add_(0, code, on.sum(dim=1))
    return total, tokens


def group_advantage(
    reward: torch.Tensor,
    group: torch.Tensor,
    *,
    std_floor: float = 0.0,
    normalise: bool = True,
    counted: torch.Tensor | None = None,
) -> torch.Tensor:
    """f[B]: (r - mean) / max(std, floor) within ``group`` (codes from 0), see advantage.group_advantage.

    ``counted`` bool[B]: rows that give mean and deviation, all if None. ``normalise=False`` only centres.
    """
    weight = torch.ones_like(reward) if counted is None else counted.to(reward.dtype)
    groups = int(group.max()) + 1 if len(group) else 0
    size = reward.new_zeros(groups).index_add_(0, group, weight)
    mean = reward.new_zeros(groups).index_add_(0, group, reward * weight) / size.clamp(min=1)
    centred = reward - mean[group]
    square = reward.new_zeros(groups).index_add_(0, group, centred.square() * weight)
    deviation = (square / (size - 1).clamp(min=1)).sqrt().clamp(min=std_floor)
    lone = (size < 2)[group]
    centred = torch.where(lone, reward, centred)
    if not normalise:
        return centred
    return centred / (torch.where(lone, torch.ones_like(centred), deviation[group]) + EPSILON)
