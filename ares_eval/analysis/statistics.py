"""How sure a number is: standard errors clustered by question, and 95 % intervals.

Draws of one question and variants of one question are not independent, so a mean over them is a ratio of cluster sums
and its error comes from the spread between clusters (linearised ratio estimator with the small-sample factor G/(G-1);
Miller 2024, arXiv:2411.00640). Intervals are Wilson's score interval (Wilson 1927). With clusters, the number of trials
is replaced by the effective one, mean (1 - mean) / stderr^2, and the normal quantile by Student's t with G-1 degrees of
freedom (Dean and Pagano 2015, "Evaluating confidence interval methods for binomial proportions in clustered surveys").
In simulation that covers better than the plain t interval and is hardly wider: 0.90 against 0.86 for 30 questions x 16
draws at 5 % accuracy. Few questions of which nearly none can be solved carry too little information for any interval
to reach 0.95.

Plain Python: a few thousand clusters take about a millisecond, and no order of the input changes a result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

LEVEL = 0.95
"""Two-sided coverage of the intervals that results carry."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error and interval (lo, hi); None where a single cluster gives no spread to see."""

    mean: float
    stderr: float | None
    interval: tuple[float, float] | None
    method: str
    clusters: int


def wilson(successes: float, n: float, quantile: float | None = None) -> tuple[float, float]:
    """Wilson's score interval for ``successes`` of ``n`` > 0 trials; never empty, never outside [0, 1].

    ``n`` may be an effective (fractional) number of trials. ``quantile`` is the two-sided critical value; the
    normal one of LEVEL when not given.
    """
    if not n > 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    z2 = (normal_quantile() if quantile is None else quantile) ** 2
    p = successes / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At 0 and n the bound is exactly 0 and 1; rounding must not say otherwise.
    return (0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == n else min(1.0, centre + half))


def proportion(clusters: Mapping[str, Sequence[float]] | Sequence[Sequence[float]]) -> Estimate:
    """Mean of values in [0, 1], grouped in clusters, as a ratio of sums: every value weighs the same.

    ValueError where there is no value. Empty clusters do not count.
    """
    lists = clusters.values() if isinstance(clusters, Mapping) else clusters
    return from_sums([(math.fsum(values), len(values)) for values in lists if len(values)])


def from_sums(sums: Sequence[tuple[float, int]]) -> Estimate:
    """As ``proportion``, from each cluster's (sum of values, number of values > 0)."""
    total = sum(n for _, n in sums)
    if not total:
        raise ValueError("the mean of nothing is undefined")
    mean = math.fsum(s for s, _ in sums) / total
    count = len(sums)
    stderr = None
    if count > 1:
        squares = math.fsum((s - mean * n) ** 2 for s, n in sums)
        stderr = math.sqrt(squares * count / (count - 1)) / total
    if total == count and all(s in (0, 1) for s, _ in sums):
        return Estimate(mean, stderr, wilson(math.fsum(s for s, _ in sums), total), "wilson", count)
    return Estimate(mean, stderr, _clustered(mean, stderr, count, total), "wilson-clustered", count)


def _clustered(mean: float, stderr: float | None, clusters: int, values: int) -> tuple[float, float] | None:
    if stderr is None:
        return None
    if mean in (0, 1):  # clusters that all agree at an end of the range are one trial each
        return wilson(mean * clusters, clusters)
    if stderr * stderr < 1e-12:  # no visible spread: each value is a trial
        effective: float = values
    else:
        effective = mean * (1 - mean) / (stderr * stderr)
    return wilson(min(mean * effective, effective), effective, t_quantile(clusters - 1))


def interval_of_mean(parts: Sequence[tuple[float, tuple[float, float]]]) -> tuple[float, float]:
    """Interval for the plain mean of independent estimates, each (mean, interval); at least one.

    Recovers each side's variance from the parts' own limits (Zou, Huang and Zhang 2009, "A note on confidence interval
    estimation for a linear function of binomial proportions"), so it stays honest where a part lies at 0 or 1.
    """
    count = len(parts)
    mean = math.fsum(value for value, _ in parts) / count
    below = math.sqrt(math.fsum((value - low) ** 2 for value, (low, _) in parts)) / count
    above = math.sqrt(math.fsum((high - value) ** 2 for value, (_, high) in parts)) / count
    return max(0.0, mean - below), min(1.0, mean + above)


@lru_cache(maxsize=8)
def normal_quantile(level: float = LEVEL) -> float:
    """Two-sided critical value of the normal distribution."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2)


@lru_cache(maxsize=256)
def t_quantile(df: int, level: float = LEVEL) -> float:
    """Two-sided critical value of Student's t with ``df`` >= 1 degrees of freedom, to about 1e-12."""
    if df < 1:
        raise ValueError(f"{df} degrees of freedom")
    tail = (1 - level) / 2
    low, high = 0.0, 1.0
    while t_tail(high, df) > tail:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if t_tail(middle, df) > tail:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def t_tail(t: float, df: float) -> float:
    """P(T > t) for t >= 0: half the regularised incomplete beta function at df / (df + t^2)."""
    return 0.5 * incomplete_beta(df / 2, 0.5, df / (df + t * t))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22, Lentz's method)."""
    if not 0 <= x <= 1:
        raise ValueError(f"x = {x} lies outside [0, 1]")
    if x in (0, 1):
        return float(x)
    if x > (a + 1) / (a + b + 2):  # the fraction converges quickly on the other side only
        return 1.0 - incomplete_beta(b, a, 1 - x)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    )
    tiny = 1e-300
    c, d = 1.0, 1.0 / _away_from_zero(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away_from_zero(1 + term * d, tiny)
            c = _away_from_zero(1 + term / c, tiny)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            return front * value
    raise ArithmeticError(f"incomplete beta function did not converge at a={a}, b={b}, x={x}")


def _away_from_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
