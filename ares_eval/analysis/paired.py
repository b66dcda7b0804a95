"""Two runs over the same questions: differences, ratios and their tests, clustered by question.

A *pair* is one draw of one question in both runs; a *cluster* is all pairs of one question and its variants, since
these are not independent. Everything here takes plain sums of clusters and knows no record.

    difference    mean of b - a for scores in [0, 1], adjusted Wald interval for paired proportions (Bonett and Price
                  2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
                  data") with the effective number of pairs and Student's t where clusters hold several
    one-sided     whether the difference lies above or below a bound: the larger p of the adjusted Wald test and of the
                  score test of Tango (1998, "Equivalence test and confidence interval for the difference in
                  proportions for the paired-sample design"); each alone exceeds its level somewhere, both together
                  keep it (see tests)
    two-sided p   McNemar's exact test where every cluster is one pair of right/wrong scores, else a permutation test
                  that exchanges the runs' names cluster by cluster
    ratio         ratio of mean tokens, on the log scale, linearised; against a bound also by permutation, since only
                  few clusters may differ at all
    holm          Holm's step-down adjustment (1979)

Plain Python but for the permutations; a few thousand clusters take milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import NamedTuple

from ares_eval.analysis.statistics import LEVEL, t_quantile, t_tail

EXACT_CLUSTERS = 14
"""Up to so many clusters that differ, all 2^c exchanges are counted; beyond, PERMUTATIONS random ones."""
PERMUTATIONS = 20_000
"""Monte Carlo error of a p-value of 0.05: 0.0015."""
FEW = 50
"""Clusters that differ, beyond which the t distribution is close enough for a ratio of means (see tests)."""
_SEED = 20240917
_CHUNK = 4_000_000


class Cluster(NamedTuple):
    """Sums over the pairs of one question: of b - a, of (b - a)^2, and their number > 0."""

    total: float
    squares: float
    pairs: int


class Sides(NamedTuple):
    """Sums over the pairs of one question of a quantity >= 0 (tokens) in run a and run b, and the number of pairs."""

    a: float
    b: float
    pairs: int


@dataclass(frozen=True)
class Normal:
    """An estimate with an error to test by Student's t: ``centre`` +- ``error`` with ``df`` degrees of freedom."""

    centre: float
    error: float
    df: float

    def below(self, bound: float) -> float:
        """p of "the true value is at least ``bound``" against "it is below"."""
        return Normal(-self.centre, self.error, self.df).above(-bound)

    def above(self, bound: float) -> float:
        """p of "the true value is at most ``bound``" against "it is above"."""
        if self.error < 1e-12:
            return 0.0 if self.centre > bound + 1e-9 else 1.0
        t = (self.centre - bound) / self.error
        return t_tail(t, self.df) if t >= 0 else 1.0 - t_tail(-t, self.df)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Two-sided interval."""
        half = quantile(self.df, level) * self.error
        return self.centre - half, self.centre + half

    def detectable(self, alpha: float, power: float) -> float:
        """The smallest true shift that a two-sided test at ``alpha`` finds with probability ``power``."""
        return (quantile(self.df, 1 - alpha) + quantile(self.df, 2 * power - 1)) * self.error


@dataclass(frozen=True)
class Difference:
    """Mean of b - a over ``pairs`` in ``clusters``, with what tests need; in [-1, 1]."""

    mean: float
    gains: float
    losses: float
    """Mean of the positive parts of b - a, and of the negative ones: for right/wrong scores the shares of flips."""
    effective: float
    """Number of independent pairs that would carry as much."""
    pairs: int
    clusters: int

    @cached_property
    def normal(self) -> Normal:
        """The adjusted Wald estimate: one more gain and one more loss among the effective pairs."""
        n = self.effective
        square = (n * (self.gains + self.losses) + 2) / (n + 2)
        centre = n * self.mean / (n + 2)
        return Normal(centre, math.sqrt((square - centre * centre) / (n + 2)), max(self.clusters - 1, 1))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Two-sided interval, within [-1, 1]; holds the mean."""
        low, high = self.normal.interval(level)
        return max(-1.0, min(low, self.mean)), min(1.0, max(high, self.mean))

    def above(self, bound: float) -> float:
        """p of "the true difference is at most ``bound``" against "it is above"; -1 < bound < 1."""
        return max(self.normal.above(bound), _tango(self.effective, self.gains, self.losses, bound))

    def below(self, bound: float) -> float:
        """p of "the true difference is at least ``bound``" against "it is below"."""
        return max(self.normal.below(bound), _tango(self.effective, self.losses, self.gains, -bound))


def difference(clusters: Sequence[Cluster]) -> Difference:
    """From clusters of b - a, scores in [0, 1]. ValueError where there is no pair.

    The effective number of pairs is (variance of one difference) / (clustered squared error of the mean): the number
    of pairs itself where each is its own cluster. Where nothing varies each cluster counts once.
    """
    pairs = sum(cluster.pairs for cluster in clusters)
    if not pairs:
        raise ValueError("the difference of no pairs is undefined")
    count = len(clusters)
    mean = math.fsum(cluster.total for cluster in clusters) / pairs
    square = math.fsum(cluster.squares for cluster in clusters) / pairs
    spread = square - mean * mean
    effective = float(count)
    if count > 1 and spread > 1e-12:
        deviations = math.fsum((c.total - mean * c.pairs) ** 2 for c in clusters)
        error2 = deviations * count / (count - 1) / pairs**2
        if error2 > 1e-15:
            effective = min(spread * pairs / (pairs - 1) / error2, float(pairs))
    # Gains and losses whose sum is the mean square, so that fractional scores keep their (smaller) variance.
    return Difference(mean, (square + mean) / 2, (square - mean) / 2, effective, pairs, count)


def _tango(n: float, gains: float, losses: float, bound: float) -> float:
    """p of "the true difference is at most ``bound``" against "it is above", by the score test."""
    p_gain, p_loss = n * gains, n * losses
    d = -bound  # in Tango's form the null is (loss - gain) = d, and small p rejects it downwards
    a, b, c = 2 * n, -p_loss - p_gain + (2 * n - p_loss + p_gain) * d, -p_gain * d * (1 - d)
    nuisance = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * nuisance + d * (1 - d))
    distance = p_loss - p_gain - n * d
    if variance <= 1e-12:
        return 0.0 if distance < -1e-12 else 1.0
    return NormalDist().cdf(distance / math.sqrt(variance))


def average(parts: Sequence[Normal]) -> Normal:
    """Plain mean of independent estimates, degrees of freedom by Welch and Satterthwaite; at least one."""
    count = len(parts)
    variances = [(part.error / count) ** 2 for part in parts]
    total = math.fsum(variances)
    below = math.fsum(v * v / part.df for v, part in zip(variances, parts, strict=True))
    df = total * total / below if below > 0 else min(part.df for part in parts)
    return Normal(math.fsum(part.centre for part in parts) / count, math.sqrt(total), df)


def log_ratio(clusters: Sequence[Sides]) -> Normal | None:
    """log(mean of b / mean of a) over pairs, error linearised over clusters; None where it is undefined.

    Undefined: a side without tokens, or fewer than two clusters.
    """
    total_a = math.fsum(c.a for c in clusters)
    total_b = math.fsum(c.b for c in clusters)
    count = len(clusters)
    if total_a <= 0 or total_b <= 0 or count < 2:
        return None
    squares = math.fsum((c.b / total_b - c.a / total_a) ** 2 for c in clusters)
    return Normal(math.log(total_b / total_a), math.sqrt(squares * count / (count - 1)), count - 1)


def ratio_above(parts: Sequence[Sequence[Sides]], bound: float, log: Normal | None) -> float:
    """p of "mean b / mean a is at most ``bound``" against "it is above", over one task or the mean of several.

    ``log``: the estimate of its logarithm. Where no more than FEW clusters differ the larger p of its t test and of a
    permutation test counts; where it is None (a side without tokens) the permutation test alone. The totals of a must
    be positive.
    """
    return _against(parts, bound, 1.0, None if log is None else log.above(math.log(bound)))


def ratio_below(parts: Sequence[Sequence[Sides]], bound: float, log: Normal | None) -> float:
    """p of "mean b / mean a is at least ``bound``" against "it is below", likewise."""
    return _against(parts, bound, -1.0, None if log is None else log.below(math.log(bound)))


def _against(parts: Sequence[Sequence[Sides]], bound: float, sign: float, p: float | None) -> float:
    sums = []
    for part in parts:
        total = math.fsum(side.a for side in part)
        sums += [sign * (side.b - bound * side.a) / total for side in part if abs(side.b - bound * side.a) > 1e-9]
    if p is None:
        return permutation(sums, one_sided=True)
    return max(p, permutation(sums, one_sided=True)) if len(sums) <= FEW else p


# ---------------------------------------------------------------- two-sided tests


def mcnemar(gains: int, losses: int) -> float:
    """Exact two-sided p of McNemar's test: are flips in both directions equally likely? 1 without flips."""
    n, few = gains + losses, min(gains, losses)
    tail = sum(math.comb(n, k) for k in range(few + 1))
    return min(1.0, tail / 2 ** (n - 1)) if n else 1.0


def permutation(sums: Sequence[float], *, one_sided: bool = False) -> float:
    """Two-sided p of "the runs are exchangeable", from each cluster's (weighted) sum of b - a.

    The share of sign changes of the sums whose absolute total is at least the observed one: all of them for up to
    EXACT_CLUSTERS clusters that differ, else PERMUTATIONS random ones of a fixed seed (the observed one counted in).
    ``one_sided``: against "the total is above 0", so totals are compared with their sign.
    """
    import numpy as np

    # Sorted, so that no order of the clusters changes a Monte Carlo p.
    values = np.sort(np.asarray([value for value in sums if value != 0], dtype=float))
    if not len(values):
        return 1.0
    total = float(values.sum())
    observed = (total if one_sided else abs(total)) - 1e-9 * float(np.abs(values).sum())
    if one_sided and observed <= -float(np.abs(values).sum()):
        return 1.0
    if len(values) <= EXACT_CLUSTERS:
        totals = np.zeros(1)
        for value in values:
            totals = np.concatenate([totals + value, totals - value])
        return float(np.mean((totals if one_sided else np.abs(totals)) >= observed))
    random = np.random.default_rng(_SEED)
    chunk = max(1, _CHUNK // len(values))
    width = -(-len(values) // 8)
    hits = done = 0
    while done < PERMUTATIONS:
        size = min(chunk, PERMUTATIONS - done)
        kept = np.unpackbits(np.frombuffer(random.bytes(size * width), np.uint8).reshape(size, width), axis=1)
        drawn = 2 * (kept[:, : len(values)].astype(float) @ values) - total
        hits += int(np.count_nonzero((drawn if one_sided else np.abs(drawn)) >= observed))
        done += size
    return (hits + 1) / (PERMUTATIONS + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject where it is at most alpha."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted = [0.0] * len(values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(values) - rank) * values[i])
        adjusted[i] = min(1.0, running)
    return adjusted


def quantile(df: float, level: float) -> float:
    """Two-sided critical value of Student's t; fractional degrees are rounded down, which is the careful side."""
    if level <= 0:
        return -quantile(df, -level) if level < 0 else 0.0
    return t_quantile(max(1, int(df)), level)


# ---------------------------------------------------------------- how much would be enough


def needed_clusters(estimate: Normal, clusters: int, distance: float, alpha: float, power: float) -> int:
    """Clusters of the same kind with which a one-sided test at ``alpha`` bridges ``distance`` > 0 with ``power``."""
    reach = (quantile(10**6, 1 - 2 * alpha) + quantile(10**6, 2 * power - 1)) * estimate.error
    return max(clusters, math.ceil(clusters * (reach / distance) ** 2))


def needed_draws(clusters: Sequence[Cluster], distance: float, alpha: float, power: float) -> int | None:
    """Draws a question, on the same questions, that would do as ``needed_clusters``; None where none would, or unknown.

    More draws shrink the spread within questions only. It is estimated from clusters of k >= 2 pairs (one-way analysis
    of variance, clusters of the mean size).
    """
    several = [cluster for cluster in clusters if cluster.pairs > 1]
    if len(several) < 2 or len(several) < len(clusters):
        return None
    count, pairs = len(several), sum(cluster.pairs for cluster in several)
    within = math.fsum(c.squares - c.total**2 / c.pairs for c in several) / (pairs - count)
    means = [cluster.total / cluster.pairs for cluster in several]
    centre = math.fsum(means) / count
    size = pairs / count
    between = max(0.0, math.fsum((m - centre) ** 2 for m in means) / (count - 1) - within / size)
    reach = quantile(10**6, 1 - 2 * alpha) + quantile(10**6, 2 * power - 1)
    left = (distance / reach) ** 2 * count - between
    return math.ceil(within / left) if left > 0 else None
