"""AEPO once more, by loops over tokens and straight from the formulas: the oracle of the tests of ares_train.aepo.

Slow and plain on purpose; shares nothing with the package but the names of the settings and the Rollouts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ares_train.aepo.config import AEPOConfig, WindowConfig
from ares_train.aepo.rollouts import Rollouts, rollouts

BINS = ("easy", "medium", "hard")


def random_rollouts(
    rng: np.random.Generator,
    *,
    questions: int = 5,
    base: int = 4,
    tokens: int = 12,
    forks: bool = False,
    holes: bool = False,
) -> Rollouts:
    """A small batch: lengths from 0 on, accuracies that fill all bins, forks and tool spans where asked for. Entropies
    are multiples of 1/8, so that sums are exact in any order and a mean can equal a threshold."""
    rows: list[tuple[int, int, int]] = []
    for q in range(questions):
        first = len(rows)
        rows += [(q, -1, 0)] * base
        if forks:
            rows += [
                (q, first + int(rng.integers(base)), 1 + int(rng.integers(3))) for _ in range(int(rng.integers(3)))
            ]
    count = len(rows)
    question, parent, fork_at = (np.array(column) for column in zip(*rows, strict=True))
    entropy = rng.integers(0, 17, (count, tokens)) / 8.0
    lengths = rng.integers(0, tokens + 1, count)
    lengths = np.maximum(lengths, np.where(parent >= 0, fork_at, 0))
    mask = np.arange(tokens) < lengths[:, None]
    if holes:
        mask &= rng.random(mask.shape) < 0.9
    rate = rng.choice([0.0, 0.2, 0.5, 0.8, 1.0], questions)[question]
    order = rng.permutation(questions) * 7
    return rollouts(
        np.where(mask, entropy, 99.0),
        mask,
        rng.random(count) < rate,
        order[question],
        parent=parent,
        fork_at=fork_at,
        truncated=lengths == tokens,
        trigger=rng.random(mask.shape) < 0.3,
    )


def window_means(entropy: np.ndarray, mask: np.ndarray, w: int) -> list[list[float | None]]:
    """Double loop over rows and positions; None where the window is not full."""
    result: list[list[float | None]] = []
    for h, m in zip(entropy.tolist(), mask.tolist(), strict=True):
        row: list[float | None] = []
        for t in range(len(h)):
            inside = t + w <= len(h) and all(m[t : t + w])
            row.append(sum(h[t : t + w]) / w if inside else None)
        result.append(row)
    return result


def runs(flagged: list[bool], mask: list[bool], w: int) -> list[tuple[int, int, int]]:
    """(first, last, stop) of the maximal runs of flagged positions within a span; stop is behind the last token."""
    found = []
    t = 0
    while t < len(flagged):
        if flagged[t]:
            first = t
            while t + 1 < len(flagged) and flagged[t + 1] and mask[t + 1]:
                t += 1
            found.append((first, t, t + w))
        t += 1
    return found


def tau_of(batch: Rollouts, config: WindowConfig) -> float:
    """tau_high by numpy's quantile."""
    means = window_means(batch.entropy, batch.own, config.size)
    groups = []
    for row in range(batch.rows):
        if config.rows == "base" and not batch.base[row]:
            continue
        if config.quantile_of == "token":
            values = [float(h) for h, own in zip(batch.entropy[row], batch.own[row], strict=True) if own]
        else:
            values = [mean for mean in means[row] if mean is not None]
        if values:
            groups.append(values)
    if not groups:
        return math.nan
    if config.reduce == "pooled":
        return float(np.quantile(np.concatenate(groups), config.quantile))
    quantiles = [np.quantile(values, config.quantile) for values in groups]
    return float(np.median(quantiles) if config.reduce == "median" else np.mean(quantiles))


@dataclass
class Counted:
    """Of one row."""

    flagged: list[bool]
    valid: list[bool]
    n_he: int
    starts: int
    covered: int
    windows: int


def counted(batch: Rollouts, tau: float, config: WindowConfig) -> list[Counted]:
    """Flags, counts and W_valid of every row."""
    w = config.size
    result = []
    means = window_means(batch.entropy, batch.mask, w)
    for row in range(batch.rows):
        h, mask = batch.entropy[row].tolist(), batch.mask[row].tolist()
        length = len(h)
        flagged = [mean is not None and mean >= tau for mean in means[row]]
        trigger = batch.trigger[row].tolist() if batch.trigger is not None else [False] * length
        found = runs(flagged, mask, w)
        inside = [any(flagged[s] for s in range(max(0, t - w + 1), t + 1)) and mask[t] for t in range(length)]
        valid = [False] * length
        points = [int(batch.fork_at[f]) for f in range(batch.rows) if batch.parent[f] == row]
        if not batch.base[row]:
            points.append(int(batch.fork_at[row]))
        for first, last, stop in found:
            begin = first - 1 if first and mask[first - 1] else first
            starts = list(range(first, last + 1))
            if config.valid_mode == "trigger" and not any(trigger[begin:stop]):
                continue
            if config.valid_mode == "branched" and not any(first <= at < stop for at in points):
                continue
            if config.valid_mode == "confirmed":
                starts = [s for s in starts if h[s] >= tau]
            for s in starts:
                valid[s : s + w] = [True] * w
        high = [mask[t] and h[t] >= tau for t in range(length)]
        counts = {
            "starts": sum(flagged),
            "covered": sum(inside),
            "windows": len(found),
            "token": sum(high),
            "trigger": sum(a and b for a, b in zip(high, trigger, strict=True)),
        }
        result.append(
            Counted(flagged, valid, counts[config.count_mode], counts["starts"], counts["covered"], counts["windows"])
        )
    return result


def bins_of(batch: Rollouts, config: AEPOConfig) -> list[int]:
    """0, 1, 2 for each row."""
    result = []
    for row in range(batch.rows):
        peers = [r for r in range(batch.rows) if batch.question[r] == batch.question[row] and batch.base[r]]
        right = sum(int(batch.correct[r]) for r in peers)
        if len(peers) < config.difficulty.min_valid:
            result.append(1)
        elif right / len(peers) >= config.difficulty.easy:
            result.append(0)
        else:
            result.append(2 if right / len(peers) < config.difficulty.hard else 1)
    return result


@dataclass
class Memory:
    """The oracle's own state."""

    taus: list[float] = field(default_factory=list)
    means: list[list[float]] = field(default_factory=lambda: [[], [], []])
    """Of each bin, the mean N_HE of every batch that had enough answers of it."""
    alphas: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])


def step(batch: Rollouts, memory: Memory, config: AEPOConfig) -> dict[str, Any]:
    """Everything that ``shape`` gives, from this batch and what ``memory`` kept of those before; moves ``memory``."""
    reward = config.reward
    bins = bins_of(batch, config)
    measured = tau = tau_of(batch, config.window)
    first = memory.taus[: reward.bootstrap_steps]
    if reward.mode == "hier" and reward.target_mode == "bootstrap" and len(first) == reward.bootstrap_steps:
        tau = sum(first) / len(first)
    rows = counted(batch, tau, config.window)
    n_he = [row.n_he for row in rows]
    of_bin = [[n_he[r] for r in range(batch.rows) if bins[r] == d] for d in range(3)]

    target, lam, goal = _targets(batch, bins, n_he, of_bin, memory, config)
    rewards, penalties = [], []
    if reward.mode == "released":
        target = [_question_mean(batch, bins, n_he, d) for d in range(3)]
        target = [None if mean is None else round(mean) for mean in target]
        lam = [0.0] * 3
    elif reward.mode != "hier":
        target, lam = [None] * 3, [0.0] * 3
    for r in range(batch.rows):
        acc, d = float(batch.correct[r]), bins[r]
        length = int(batch.mask[r].sum())
        penalty = 0.0
        if reward.mode == "hier":
            penalty = _penalty(acc, d, n_he[r], goal[r], lam[d], config)
            value = acc - penalty
        elif reward.mode == "released":
            value = acc + released(acc, d, n_he[r], target[d], memory.alphas[d])
        elif reward.mode == "length":
            value = acc * (1 - reward.length_coef * length / config.response_length)
        else:
            value = acc
        if config.overlong.buffer:
            into = (length - (config.response_length - config.overlong.buffer)) / config.overlong.buffer
            value -= config.overlong.factor * min(max(into, 0.0), 1.0)
        rewards.append(value)
        penalties.append(penalty)
    keep = [_kept(batch, rewards, r, config) for r in range(batch.rows)]
    advantage = [_advantage(batch, rewards, r, config) if keep[r] else 0.0 for r in range(batch.rows)]
    weights = _weights(batch, bins, rows, keep, config)

    if not math.isnan(measured):
        memory.taus.append(measured)
    for d in range(3):
        if len(of_bin[d]) >= reward.min_count:
            memory.means[d].append(sum(of_bin[d]) / len(of_bin[d]))
        mean = _question_mean(batch, bins, n_he, d)
        if reward.mode == "released" and mean is not None:
            gap = mean - round(mean)
            memory.alphas[d] = min(max(memory.alphas[d] + 0.05 * (-gap if d == 2 else gap), 0.05), 0.55)
    return {
        "bins": bins,
        "tau": tau,
        "n_he": n_he,
        "flagged": [row.flagged for row in rows],
        "valid": [row.valid for row in rows],
        "targets": [math.nan if value is None else value for value in target],
        "lambdas": lam,
        "penalty": penalties,
        "reward": rewards,
        "keep": keep,
        "advantage": advantage,
        "kl_weight": weights,
    }


def released(acc: float, d: int, n: float, target: float, alpha: float) -> float:
    """The released code's addition to the accuracy, for one answer."""
    delta, margin = n - target, (0.15, 0.25, 0.35)[d] * max(target, 1)

    def huber(x: float) -> float:
        kappa = (2.0, 3.0, 4.0)[d]
        return x * x / (2 * kappa) if x <= kappa else x - kappa / 2

    over = max(delta - margin, 0.0)
    bonus = (0.6, 0.8, 1.2)[d] * alpha / (1 + math.exp(-over / (2.0, 2.5, 3.0)[d]))
    if not acc:
        return bonus
    if d == 0:
        return -min(huber(over), alpha)
    if d == 1:
        return -min(huber(max(abs(delta) - margin, 0.0)), alpha)
    return bonus if delta >= -margin else -min(huber(-delta - margin), 0.2 * alpha)


def _targets(
    batch: Rollouts, bins: list[int], n_he: list[int], of_bin: list[list[int]], memory: Memory, config: AEPOConfig
) -> tuple[list[float | None], list[float], list[float | None]]:
    """(per bin targets, per bin lambdas, per row targets)."""
    reward = config.reward
    coef = reward.coef.values()
    goal: list[float | None] = [None] * batch.rows
    target: list[float | None] = [None, None, None]
    lam = [0.0, 0.0, 0.0]
    for d in range(3):
        past = memory.means[d]
        mean = sum(of_bin[d]) / len(of_bin[d]) if of_bin[d] else None
        if reward.target_mode == "batch_mean":
            target[d] = mean
        elif reward.target_mode == "fixed":
            target[d] = reward.fixed_targets.values()[d]
        elif reward.target_mode == "prev_batch":
            target[d] = past[-1] if past else None
        elif reward.target_mode == "bootstrap" and len(past) >= reward.bootstrap_steps:
            target[d] = sum(past[: reward.bootstrap_steps]) / reward.bootstrap_steps
        elif reward.target_mode == "ema" and past:
            smooth = past[0]
            for value in past[1:]:
                smooth = reward.ema * smooth + (1 - reward.ema) * value
            target[d] = smooth
        if target[d] is not None:
            target[d] *= coef[d]
        mine = [r for r in range(batch.rows) if bins[r] == d]
        for r in mine:
            goal[r] = target[d]
        if reward.target_mode == "group":
            for r in mine:
                peers = [p for p in range(batch.rows) if batch.question[p] == batch.question[r]]
                peers = [p for p in peers if batch.correct[p]] or peers
                goal[r] = coef[d] * sum(n_he[p] for p in peers) / len(peers)
            target[d] = sum(goal[r] for r in mine) / len(mine) if mine else None
        if target[d] is None or mean is None:
            continue
        if reward.fixed_lambda is not None:
            lam[d] = reward.fixed_lambda
        elif len(mine) >= reward.min_count:
            gap = mean - target[d]
            if reward.lambda_sign == "directional":
                gap = (gap, abs(gap), -gap)[d]
            var = sum((n - mean) ** 2 for n in of_bin[d]) / len(of_bin[d])
            lam[d] = min(max(0.0, gap / (max(var, reward.var_floor) + reward.eps)), reward.lam_max)
    return target, lam, goal


def _penalty(acc: float, d: int, n: int, goal: float | None, lam: float, config: AEPOConfig) -> float:
    """Equation 9's, for one answer."""
    if goal is None:
        return 0.0
    delta = n - goal
    g = (max(0.0, delta), abs(delta), max(0.0, -delta))[d]
    shaped = {"none": "", "easy": "easy", "all": "easy hard"}[config.reward.shape_correct]
    if acc and BINS[d] not in shaped.split():
        return 0.0
    return min(lam * g, config.reward.max_penalty)


def _question_mean(batch: Rollouts, bins: list[int], n_he: list[int], d: int) -> float | None:
    """Mean over the questions of bin ``d`` of the mean N_HE of their answers."""
    per_question: dict[int, list[int]] = {}
    for r in range(batch.rows):
        if bins[r] == d:
            per_question.setdefault(int(batch.question[r]), []).append(n_he[r])
    means = [sum(values) / len(values) for values in per_question.values()]
    return sum(means) / len(means) if means else None


def _kept(batch: Rollouts, rewards: list[float], row: int, config: AEPOConfig) -> bool:
    """Whether the filter keeps this row's question."""
    if config.filter.metric == "none":
        return True
    peers = [r for r in range(batch.rows) if batch.question[r] == batch.question[row]]
    values = [float(batch.correct[r]) if config.filter.metric == "accuracy" else rewards[r] for r in peers]
    return config.filter.low < sum(values) / len(values) < config.filter.high


def _advantage(batch: Rollouts, rewards: list[float], row: int, config: AEPOConfig) -> float:
    """Group-relative, for one row."""
    how = config.advantage
    peers = [r for r in range(batch.rows) if batch.question[r] == batch.question[row]]
    based = [r for r in peers if batch.base[r]]
    if (how.group == "base_baseline" and len(based) >= 2) or (how.group == "siblings" and batch.base[row]):
        peers = based
    elif how.group == "siblings":
        parent = batch.parent[row]
        peers = [r for r in peers if r == parent or batch.parent[r] == parent]
    normal = how.std != "none"
    if len(peers) < 2:
        return rewards[row] / (1 + 1e-6 if normal else 1)
    centred = rewards[row] - sum(rewards[r] for r in peers) / len(peers)
    measured = rewards if how.std == "reward" else [float(value) for value in batch.correct]
    std = float(np.std([measured[r] for r in peers], ddof=1))
    return centred / (max(std, how.std_floor) + 1e-6) if normal else centred


def _weights(
    batch: Rollouts, bins: list[int], rows: list[Counted], keep: list[bool], config: AEPOConfig
) -> list[list[float]]:
    """KL weights of every token, with kappa 1."""
    kl = config.kl
    inside = batch.own if config.branch.prefix_loss == "mask" else batch.mask
    weights = []
    for r in range(batch.rows):
        beta = kl.beta.values()[bins[r]] if kl.mode == "dynamic" else 1.0
        rho = kl.rho if kl.mode == "dynamic" else 1.0
        trained = [bool(on) and keep[r] and kl.mode != "off" for on in inside[r]]
        weights.append(
            [beta * (rho if v else 1.0) if on else 0.0 for on, v in zip(trained, rows[r].valid, strict=True)]
        )
    total = sum(map(sum, weights))
    if kl.mode == "dynamic" and kl.normalise == "mean_one" and total > 0:
        tokens = sum(bool(on) and keep[r] for r in range(batch.rows) for on in inside[r])
        weights = [[weight * tokens / total for weight in row] for row in weights]
    return weights
