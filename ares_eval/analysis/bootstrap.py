"""Intervals for means, shares, ratios, slopes and rank correlations over clustered draws, mostly by the bootstrap.

Questions are resampled, never draws: draws of one question are not independent. Means and slopes use the symmetric
bootstrap-t (Hall 1988): each resample's estimate is divided by its own cluster-robust standard error, which keeps 95 %
coverage for the skewed lengths of replies where the percentile bootstrap falls short. Rank correlation uses the spread
of resampled values on Fisher's z scale, re-ranked within each resample. All is vectorised over resamples and clusters,
seeded, and independent of the order of the draws within a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 1000
"""Enough for a second digit of a 95 % limit."""

FEWEST_CLUSTERS = 8
"""With fewer questions a bootstrap interval is noise, and none is given."""

FEWEST_VARYING = 4.0
"""Effective number of questions over which x varies, below which a slope gets no interval: resampling cannot show the
spread of what one or two questions decide."""

FARTHEST = 3.0
"""A limit lies at most this many times as far out as Student's t would put it: a few questions whose resamples nearly
agree make pivots without bound."""

_BLOCK = 2_000_000
"""Weights (resamples x clusters) held at once: 16 MB."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """A number with its 95 % interval; ``low`` and ``high`` are None where too few questions carry it.

    ``n``: draws, ``clusters``: questions behind it.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    clusters: int


def mean(values: np.ndarray, cluster: np.ndarray, **options: int) -> Estimated | None:
    """Mean of the known values (N,); every draw weighs the same. None where nothing is known."""
    import numpy as np

    known = ~np.isnan(values)
    return ratio(values[known], np.ones(int(known.sum())), cluster[known], **options)


def ratio(
    numerator: np.ndarray,
    denominator: np.ndarray,
    cluster: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimated | None:
    """Sum of ``numerator`` over sum of ``denominator`` >= 0, both (N,); None where the denominators add up to 0."""
    import numpy as np

    index, count = _clusters(cluster)
    s = np.bincount(index, weights=numerator, minlength=count)
    n = np.bincount(index, weights=denominator, minlength=count)
    if not n.sum() > 0:
        return None
    value = float(s.sum() / n.sum())
    if count < FEWEST_CLUSTERS:
        return Estimated(value, None, None, len(numerator), count)
    spread = s - value * n
    error = float(np.sqrt((spread * spread).sum() * count / (count - 1)) / n.sum())
    if error <= 1e-12 * max(abs(value), 1e-300):
        return Estimated(value, value, value, len(numerator), count)
    moments = np.stack([s, n, s * s, s * n, n * n], axis=1)
    pivots = []
    for weights in _weights(count, resamples, seed):
        ws, wn, wss, wsn, wnn = (weights @ moments).T
        with np.errstate(divide="ignore", invalid="ignore"):
            r = ws / wn
            e = np.sqrt(np.maximum(wss - 2 * r * wsn + r * r * wnn, 0) * count / (count - 1)) / wn
            pivots.append((r - value) / e)
    low, high = _bootstrap_t(value, error, np.concatenate(pivots), count)
    if numerator.min() >= 0:
        low = max(low, 0.0)
    return Estimated(value, low, high, len(numerator), count)


def share(values: np.ndarray, cluster: np.ndarray) -> Estimated | None:
    """Mean of values in [0, 1] (N,), booleans among them, with the interval that accuracies have (statistics.py):
    Wilson's, clustered by question, which needs no resampling and never leaves the range."""
    import numpy as np

    from ares_eval.analysis.statistics import from_sums

    if not len(values):
        return None
    index, count = _clusters(cluster)
    sums = np.bincount(index, weights=values, minlength=count).tolist()
    found = from_sums(list(zip(sums, np.bincount(index, minlength=count).tolist(), strict=True)))
    low, high = found.interval or (None, None)
    return Estimated(found.mean, low, high, len(values), count)


def slope(
    x: np.ndarray, y: np.ndarray, cluster: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimated | None:
    """Least-squares slope of y on x over the draws where both are known; None where x does not vary."""
    import numpy as np

    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if not len(x) or np.ptp(x) == 0:
        return None
    index, count = _clusters(cluster[known])
    # Centred and scaled, so that sums of squares lose no digits.
    shift, unit = float(x.mean()), float(x.std())
    rise, size = float(y.mean()), float(y.std()) or 1.0
    u, v = (x - shift) / unit, (y - rise) / size
    columns = np.stack([np.ones_like(u), u, v, u * u, u * v], axis=1)
    sums = np.stack([np.bincount(index, weights=column, minlength=count) for column in columns.T], axis=1)
    ones = np.ones((1, count))
    value, error = (float(part[0]) for part in _slopes(sums, ones))
    scale = float(size / unit)
    if count < FEWEST_CLUSTERS or _varying(u, index, count) < FEWEST_VARYING:
        return Estimated(value * scale, None, None, len(x), count)
    if error <= 1e-12:
        return Estimated(value * scale, value * scale, value * scale, len(x), count)
    pivots = []
    for weights in _weights(count, resamples, seed):
        with np.errstate(divide="ignore", invalid="ignore"):
            b, e = _slopes(sums, weights)
            pivots.append((b - value) / e)
    error = max(error, _jackknife_error(sums, value))
    low, high = _bootstrap_t(value, error, np.concatenate(pivots), count)
    return Estimated(value * scale, low * scale, high * scale, len(x), count)


def spearman(
    x: np.ndarray, y: np.ndarray, cluster: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimated | None:
    """Rank correlation (mid-ranks for ties) over the draws where both are known; None where either does not vary."""
    import numpy as np

    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if not len(x) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    index, count = _clusters(cluster[known])
    levels_x, levels_y = (np.unique(values, return_inverse=True)[1] for values in (x, y))
    value = float(_rank_correlations(levels_x, levels_y, np.ones((1, len(x))))[0])
    varying = min(_varying(levels.astype(np.float64), index, count) for levels in (levels_x, levels_y))
    if count < FEWEST_CLUSTERS or varying < FEWEST_VARYING or abs(value) > 1 - 1e-12:
        return Estimated(value, None, None, len(x), count)
    found = []
    for weights in _weights(count, resamples, seed, width=len(x)):
        found.append(_rank_correlations(levels_x, levels_y, weights[:, index]))
    values = np.concatenate(found)
    z = np.arctanh(np.clip(values[np.isfinite(values)], -1 + 1e-9, 1 - 1e-9))
    if len(z) < resamples // 2:
        return Estimated(value, None, None, len(x), count)
    from ares_eval.analysis.statistics import t_quantile

    half = t_quantile(count - 1) * float(z.std(ddof=1))
    centre = float(np.arctanh(value))
    return Estimated(value, float(np.tanh(centre - half)), float(np.tanh(centre + half)), len(x), count)


def difference(
    values: np.ndarray, first: np.ndarray, cluster: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimated | None:
    """Mean where ``first`` (N,) bool holds minus mean where it does not: the slope on an indicator."""
    import numpy as np

    return slope(first.astype(np.float64), values, cluster, resamples=resamples, seed=seed)


def ratio_of_means(
    values: np.ndarray, first: np.ndarray, cluster: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimated | None:
    """Mean of ``values`` > 0 where ``first`` (N,) bool holds, over their mean elsewhere, on the log scale; None where
    either side is empty or its mean is not positive."""
    import numpy as np

    index, count = _clusters(cluster)
    chosen = first.astype(np.float64)
    columns = np.stack([values * chosen, chosen, values * (1 - chosen), 1 - chosen], axis=1)
    sums = np.stack([np.bincount(index, weights=column, minlength=count) for column in columns.T], axis=1)
    point, error = (float(part[0]) for part in _log_ratios(sums, np.ones((1, count))))
    if not np.isfinite(point):
        return None
    if count < FEWEST_CLUSTERS:
        return Estimated(float(np.exp(point)), None, None, len(values), count)
    if error <= 1e-12:
        return Estimated(float(np.exp(point)), float(np.exp(point)), float(np.exp(point)), len(values), count)
    pivots = []
    for weights in _weights(count, resamples, seed):
        found, errors = _log_ratios(sums, weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            pivots.append((found - point) / errors)
    low, high = _bootstrap_t(point, error, np.concatenate(pivots), count)
    return Estimated(float(np.exp(point)), float(np.exp(low)), float(np.exp(high)), len(values), count)


# ---------------------------------------------------------------- inside


def _log_ratios(sums: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(b,) log of the ratio of two means and its linearised standard error, of each row of ``weights`` (b, G).

    ``sums`` (G, 4): each cluster's sum and number on the first side, then on the other.
    """
    import numpy as np

    count = sums.shape[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        s1, n1, s2, n2 = (weights @ sums).T
        log = np.log((s1 / n1) / (s2 / n2))
        g1, m1, g2, m2 = (column[None, :] for column in sums.T)
        influence = g1 / s1[:, None] - m1 / n1[:, None] - g2 / s2[:, None] + m2 / n2[:, None]
        error = np.sqrt((weights * influence**2).sum(axis=1) * count / max(count - 1, 1))
    return log, error


def _clusters(cluster: np.ndarray) -> tuple[np.ndarray, int]:
    import numpy as np

    found, index = np.unique(cluster, return_inverse=True)
    return index, len(found)


def _varying(x: np.ndarray, index: np.ndarray, count: int) -> float:
    """Effective number of clusters that make up the variance of x: 1 over the sum of their squared shares."""
    import numpy as np

    squares = np.bincount(index, weights=(x - x.mean()) ** 2, minlength=count)
    return float(squares.sum() ** 2 / (squares * squares).sum())


def _weights(count: int, resamples: int, seed: int, width: int | None = None) -> Iterator[np.ndarray]:
    """Blocks (b, count) of how often each cluster is drawn, ``resamples`` rows in all, the same for the same seed."""
    rows = max(1, _BLOCK // max(count, width or 0, 1))
    for start in range(0, resamples, rows):
        yield _block(count, min(rows, resamples - start), seed, start)


@lru_cache(maxsize=4)
def _block(count: int, rows: int, seed: int, start: int) -> np.ndarray:
    import numpy as np

    chance = np.random.default_rng([seed, count, start])
    picks = chance.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
    block: np.ndarray = np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
    block.setflags(write=False)
    return block


def _slopes(sums: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(b,) slopes and their cluster-robust standard errors, of each row of ``weights`` (b, G).

    ``sums`` (G, 5): each cluster's n, sum x, sum y, sum xx, sum xy.
    """
    import numpy as np

    count = sums.shape[0]
    n, sx, sy, sxx, sxy = (weights @ sums).T
    mx, my = sx / n, sy / n
    vxx = sxx - n * mx * mx
    b = (sxy - n * mx * my) / vxx
    gn, gx, gy, gxx, gxy = (column[None, :] for column in sums.T)
    mx, my, at = mx[:, None], my[:, None], b[:, None]
    scores = gxy - my * gx - mx * gy + mx * my * gn - at * (gxx - 2 * mx * gx + mx * mx * gn)
    error = np.sqrt((weights * scores * scores).sum(axis=1) * count / (count - 1)) / vxx if count > 1 else 0 * b
    return b, error


def _bootstrap_t(value: float, error: float, pivots: np.ndarray, clusters: int) -> tuple[float, float]:
    """The symmetric interval: ``error`` times the 95 % quantile of the pivots' size, on both sides."""
    import numpy as np

    from ares_eval.analysis.statistics import t_quantile

    student = t_quantile(clusters - 1)
    # A resample whose clusters all agree has no error of its own: its pivot is unknown, not infinite.
    known = np.abs(pivots[np.isfinite(pivots)])
    reach = min(float(np.quantile(known, 0.95)), FARTHEST * student) if 2 * len(known) >= len(pivots) else student
    return value - reach * error, value + reach * error


def _jackknife_error(sums: np.ndarray, value: float) -> float:
    """Standard error of a slope from leaving out each cluster in turn (CR3), which does not fall short where a few
    clusters hold much of the variance of x. ``sums`` as for ``_slopes``."""
    import numpy as np

    count = len(sums)
    n, sx, sy, sxx, sxy = (sums.sum(axis=0) - sums).T
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (sxy - sx * sy / n) / (sxx - sx * sx / n)
    return float(np.sqrt((count - 1) / count * np.nansum((without - value) ** 2)))


def _rank_correlations(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(b,) rank correlation of each row of ``weights`` (b, N); x and y (N,) are dense levels 0, 1, ..."""
    import numpy as np

    total = weights.sum(axis=1, keepdims=True)
    centred = [_mid_ranks(levels, weights) - (total + 1) / 2 for levels in (x, y)]
    with np.errstate(divide="ignore", invalid="ignore"):
        above = (weights * centred[0] * centred[1]).sum(axis=1)
        below = np.sqrt((weights * centred[0] ** 2).sum(axis=1) * (weights * centred[1] ** 2).sum(axis=1))
        return np.asarray(above / below)


def _mid_ranks(levels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(b, N) rank of each value when value i stands weights[., i] times; ties share the mean of their ranks."""
    import numpy as np

    order = np.argsort(levels, kind="stable")
    starts = np.flatnonzero(np.diff(levels[order], prepend=-1))
    sizes = np.add.reduceat(weights[:, order], starts, axis=1)
    ends = np.cumsum(sizes, axis=1)
    return np.asarray((ends - (sizes - 1) / 2)[:, levels])
