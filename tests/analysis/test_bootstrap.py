"""Intervals: coverage in simulation, and the numbers that need no resampling against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ares_eval.analysis import bootstrap
from ares_eval.analysis.bootstrap import Estimated

RUNS = 1200
"""Simulated studies; the standard error of a coverage of 95 % is then 0.6 points."""


def study(rng: np.random.Generator, questions: int = 80, draws: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(difficulty, length, cluster): skewed lengths, log-normal between and within questions, E[length | x] linear."""
    x = np.repeat(rng.integers(0, 5, size=questions) / 4, draws)
    cluster = np.repeat(np.arange(questions), draws)
    between = np.repeat(rng.lognormal(0, 0.4, size=questions), draws) / math.exp(0.08)
    within = rng.lognormal(0, 0.5, size=questions * draws) / math.exp(0.125)
    return x, (300 + 800 * x) * between * within, cluster


def coverage(name: str) -> float:
    rng = np.random.default_rng(20251122)
    hits = 0
    for _ in range(RUNS):
        x, y, cluster = study(rng)
        if name == "slope":
            found, truth = bootstrap.slope(x, y, cluster, resamples=300), 800.0
        elif name == "mean":
            found, truth = bootstrap.mean(y, cluster, resamples=300), 700.0
        else:
            kept = (x == 0) | (x == 1)
            if not (x[kept] == 0).any() or not (x[kept] == 1).any():
                continue
            found = bootstrap.ratio_of_means(y[kept], x[kept] == 1, cluster[kept], resamples=300)
            truth = 1100 / 300
        assert found is not None and found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    return hits / RUNS


@pytest.mark.parametrize("name", ["slope", "mean", "ratio"])
def test_intervals_cover_95_percent(name: str) -> None:
    assert 0.93 <= coverage(name) <= 0.97


def test_rank_correlation_interval_covers_95_percent() -> None:
    """Length follows difficulty in rank; the truth is the correlation of a very large sample of the same kind."""
    rng = np.random.default_rng(7)
    x, y, cluster = study(rng, questions=60_000, draws=4)
    truth = bootstrap.spearman(x, y, np.zeros(len(x)), resamples=100)
    assert truth is not None
    hits = 0
    runs = 600
    for _ in range(runs):
        x, y, cluster = study(rng)
        found = bootstrap.spearman(x, y, cluster, resamples=200)
        assert found is not None and found.low is not None and found.high is not None
        hits += found.low <= truth.value <= found.high
    assert 0.93 <= hits / runs <= 0.97


def test_intervals_are_those_of_questions_not_of_draws() -> None:
    """Repeating every draw adds draws but no information."""
    _, y, cluster = study(np.random.default_rng(0))
    once = bootstrap.mean(y, cluster)
    thrice = bootstrap.mean(np.repeat(y, 3), np.repeat(cluster, 3))
    assert once is not None and thrice is not None
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))
    assert (once.n, once.clusters, thrice.n, thrice.clusters) == (320, 80, 960, 80)


def test_slope_and_rank_correlation_are_the_textbook_ones() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 6, size=200).astype(float)
    y = np.round(2 * x + rng.normal(0, 3, size=200))
    cluster = np.arange(200)
    slope = bootstrap.slope(x, y, cluster)
    assert slope is not None
    assert slope.value == pytest.approx(np.polyfit(x, y, 1)[0])

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array([(values < v).sum() + ((values == v).sum() + 1) / 2 for v in values])

    rank = bootstrap.spearman(x, y, cluster)
    assert rank is not None
    assert rank.value == pytest.approx(np.corrcoef(ranks(x), ranks(y))[0, 1])


def test_the_same_seed_gives_the_same_interval() -> None:
    x, y, cluster = study(np.random.default_rng(5))
    assert bootstrap.slope(x, y, cluster) == bootstrap.slope(x, y, cluster)
    order = np.random.default_rng(1).permutation(len(x))
    shuffled = bootstrap.slope(x[order], y[order], cluster[order])
    straight = bootstrap.slope(x, y, cluster)
    assert shuffled is not None and straight is not None
    assert (shuffled.low, shuffled.high) == pytest.approx((straight.low, straight.high))


def test_what_cannot_be_estimated_is_none_and_few_questions_give_no_interval() -> None:
    empty = np.zeros(0)
    assert bootstrap.mean(empty, empty) is None
    assert bootstrap.mean(np.array([math.nan]), np.zeros(1)) is None
    assert bootstrap.slope(np.ones(5), np.arange(5.0), np.arange(5)) is None
    assert bootstrap.spearman(np.arange(5.0), np.ones(5), np.arange(5)) is None
    assert bootstrap.share(empty, empty) is None
    assert bootstrap.mean(np.array([1.0, 3.0]), np.array([0, 1])) == Estimated(2.0, None, None, 2, 2)


def test_a_slope_that_two_questions_decide_has_no_interval() -> None:
    x = np.array([1.0] * 58 + [0.0] * 2)
    y = np.random.default_rng(0).normal(200, 20, size=60)
    found = bootstrap.slope(x, y, np.arange(60))
    assert found is not None and found.low is None and found.high is None


def test_a_share_is_wilsons_and_stays_in_range() -> None:
    found = bootstrap.share(np.zeros(40), np.arange(40))
    assert found is not None and found.low == 0.0 and 0 < (found.high or 0) < 0.12


def test_a_mean_of_counts_is_never_negative() -> None:
    values = np.zeros(40)
    values[:2] = (1, 30)
    found = bootstrap.mean(values, np.arange(40))
    assert found is not None and found.low is not None and found.low >= 0
