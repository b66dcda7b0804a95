"""Does thinking follow difficulty? Curves over difficulty, slopes, rank correlations, AdaCS's target, and the paper's
entropy-difficulty interaction.

All intervals resample questions. A curve's points are the rungs of the difficulty ladder (a label, or a pass rate) and
the three tiers. Slopes are per unit of difficulty, 0 the easiest rung and 1 the hardest, so a slope of 800 means that
the hardest questions get 800 tokens more than the easiest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.analysis import bootstrap
from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.difficulty import TIERS, Difficulty

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Point:
    """One rung or tier: what the model did there. HWE is None where no log-probs are recorded."""

    name: str
    difficulty: float
    draws: int
    questions: int
    accuracy: Estimated | None
    length: Estimated | None
    median_length: float | None
    hwe: Estimated | None
    hwe_density: Estimated | None
    confirmed_windows: Estimated | None


@dataclass(frozen=True, slots=True)
class Target:
    """AdaCS's target length at one pass rate p, L(p) = (1 - p) L(0) + p L(1) (equation 4), and the median found there.

    ``relative`` is (median - target) / target.
    """

    pass_rate: float
    target: float
    median: float
    relative: float
    draws: int


@dataclass(frozen=True, slots=True)
class TargetFit:
    """``deviation``: mean over draws of |length - L(p)| / L(p); ``monotone``: whether L(0) > L(1), as AdaCS assumes."""

    length_at_0: float
    length_at_1: float
    monotone: bool
    points: tuple[Target, ...]
    deviation: Estimated


@dataclass(frozen=True, slots=True)
class TierHwe:
    """The interaction in one tier (paper figure 4b). ``threshold``: the tier's median HWE count, which splits its
    replies into those above and those at or below (the paper gives no number for its own)."""

    tier: str
    threshold: float
    accuracy_below: Estimated | None
    accuracy_above: Estimated | None
    difference: Estimated | None
    hwe_right: Estimated | None
    hwe_wrong: Estimated | None
    length_right: Estimated | None
    length_wrong: Estimated | None


@dataclass(frozen=True, slots=True)
class Regression:
    """Least squares of length on HWE count: E[L] = intercept + slope N_HE (paper appendix J), and its R squared."""

    intercept: float
    slope: Estimated
    r_squared: float


@dataclass(frozen=True, slots=True)
class Adaptivity:
    """How length and HWE follow difficulty. ``length_ratio``: mean length of the hard tier over that of the easy."""

    unit: str
    rungs: tuple[Point, ...]
    tiers: tuple[Point, ...]
    length_slope: Estimated | None
    length_correlation: Estimated | None
    length_ratio: Estimated | None
    hwe_slope: Estimated | None
    hwe_correlation: Estimated | None
    accuracy_slope: Estimated | None
    target: TargetFit | None
    interaction: tuple[TierHwe, ...]


def adaptivity(
    difficulty: Difficulty,
    length: np.ndarray,
    right: np.ndarray,
    cluster: np.ndarray,
    question: np.ndarray,
    *,
    unit: str = "tokens",
    hwe: np.ndarray | None = None,
    density: np.ndarray | None = None,
    confirmed: np.ndarray | None = None,
    resamples: int = bootstrap.RESAMPLES,
) -> Adaptivity:
    """All figures of M draws; arrays (M,), lengths and HWE counts NaN where unknown, None where nothing is recorded."""
    import numpy as np

    hits = right.astype(np.float64)

    def average(values: np.ndarray | None, kept: np.ndarray) -> Estimated | None:
        return None if values is None else bootstrap.mean(values[kept], cluster[kept], resamples=resamples)

    def point(name: str, kept: np.ndarray) -> Point:
        known = length[kept & ~np.isnan(length)]
        return Point(
            name=name,
            difficulty=float(difficulty.value[kept].mean()),
            draws=int(kept.sum()),
            questions=len(np.unique(question[kept])),
            accuracy=bootstrap.share(hits[kept], cluster[kept]),
            length=average(length, kept),
            median_length=float(np.median(known)) if len(known) else None,
            hwe=average(hwe, kept),
            hwe_density=average(density, kept),
            confirmed_windows=average(confirmed, kept),
        )

    def points(names: tuple[str, ...], index: np.ndarray) -> tuple[Point, ...]:
        kept = [(name, index == i) for i, name in enumerate(names)]
        return tuple(point(name, mask) for name, mask in kept if mask.any())

    x = difficulty.value
    slope = None if hwe is None else bootstrap.slope(x, hwe, cluster, resamples=resamples)
    correlation = None if hwe is None else bootstrap.spearman(x, hwe, cluster, resamples=resamples)
    interaction = () if hwe is None else tier_hwe(difficulty, length, hwe, hits, cluster, resamples)
    return Adaptivity(
        unit=unit,
        rungs=points(difficulty.rungs, difficulty.rung),
        tiers=points(TIERS, difficulty.tier),
        length_slope=bootstrap.slope(x, length, cluster, resamples=resamples),
        length_correlation=bootstrap.spearman(x, length, cluster, resamples=resamples),
        length_ratio=tier_ratio(length, difficulty.tier, cluster, resamples=resamples),
        hwe_slope=slope,
        hwe_correlation=correlation,
        accuracy_slope=bootstrap.slope(x, hits, cluster, resamples=resamples),
        target=target_fit(difficulty.pass_rate, length, cluster, resamples=resamples),
        interaction=interaction,
    )


def tier_ratio(
    length: np.ndarray, tier: np.ndarray, cluster: np.ndarray, *, resamples: int = bootstrap.RESAMPLES
) -> Estimated | None:
    """Mean length of hard draws over that of easy ones; None where a tier is empty."""
    import numpy as np

    known = ~np.isnan(length)
    easy, hard = known & (tier == 0), known & (tier == 2)
    if not easy.any() or not hard.any() or not length[easy].sum() > 0:
        return None
    kept = easy | hard
    return bootstrap.ratio_of_means(length[kept], hard[kept], cluster[kept], resamples=resamples)


def target_fit(
    pass_rate: np.ndarray, length: np.ndarray, cluster: np.ndarray, *, resamples: int = bootstrap.RESAMPLES
) -> TargetFit | None:
    """Deviation from L(p). None without pass rates, or where none of them is 0 or none is 1: then L(0) or L(1) is
    unknown, and what is not known is not extrapolated."""
    import numpy as np

    known = ~(np.isnan(pass_rate) | np.isnan(length))
    p, lengths = pass_rate[known], length[known]
    if not (p == 0).any() or not (p == 1).any():
        return None
    at_0, at_1 = float(np.median(lengths[p == 0])), float(np.median(lengths[p == 1]))
    target = target_length(p, at_0, at_1)
    if not (target > 0).all():
        return None
    points = []
    for rate in np.unique(p).tolist():
        here = p == rate
        wanted = float(target[here][0])
        median = float(np.median(lengths[here]))
        points.append(Target(rate, wanted, median, (median - wanted) / wanted, int(here.sum())))
    deviation = bootstrap.mean(np.abs(lengths - target) / target, cluster[known], resamples=resamples)
    return None if deviation is None else TargetFit(at_0, at_1, at_0 > at_1, tuple(points), deviation)


def target_length(pass_rate: np.ndarray, at_0: float, at_1: float) -> np.ndarray:
    """AdaCS's L(p) = (1 - p) L(0) + p L(1) (paper equation 4)."""
    return (1 - pass_rate) * at_0 + pass_rate * at_1


def tier_hwe(
    difficulty: Difficulty,
    length: np.ndarray,
    hwe: np.ndarray,
    hits: np.ndarray,
    cluster: np.ndarray,
    resamples: int = bootstrap.RESAMPLES,
) -> tuple[TierHwe, ...]:
    """Accuracy above and below the HWE threshold, and HWE and length of right and wrong replies, tier by tier."""
    import numpy as np

    found = []
    for i, name in enumerate(TIERS):
        here = (difficulty.tier == i) & ~np.isnan(hwe)
        if not here.any():
            continue
        threshold = float(np.median(hwe[here]))

        def average(values: np.ndarray, kept: np.ndarray) -> Estimated | None:
            return bootstrap.mean(values[kept], cluster[kept], resamples=resamples)

        above, right = hwe > threshold, hits == 1
        found.append(
            TierHwe(
                tier=name,
                threshold=threshold,
                accuracy_below=bootstrap.share(hits[here & ~above], cluster[here & ~above]),
                accuracy_above=bootstrap.share(hits[here & above], cluster[here & above]),
                difference=bootstrap.difference(hits[here], above[here], cluster[here], resamples=resamples),
                hwe_right=average(hwe, here & right),
                hwe_wrong=average(hwe, here & ~right),
                length_right=average(length, here & right),
                length_wrong=average(length, here & ~right),
            )
        )
    return tuple(found)


def regression(
    length: np.ndarray, hwe: np.ndarray, cluster: np.ndarray, *, resamples: int = bootstrap.RESAMPLES
) -> Regression | None:
    """Length on HWE count, both (M,); None where the count does not vary."""
    import numpy as np

    slope = bootstrap.slope(hwe, length, cluster, resamples=resamples)
    if slope is None:
        return None
    known = ~(np.isnan(length) | np.isnan(hwe))
    x, y = hwe[known], length[known]
    spread = float(((y - y.mean()) ** 2).sum())
    residual = float(((y - y.mean() - slope.value * (x - x.mean())) ** 2).sum())
    r_squared = 1 - residual / spread if spread > 0 else 0.0
    return Regression(float(y.mean() - slope.value * x.mean()), slope, r_squared)
