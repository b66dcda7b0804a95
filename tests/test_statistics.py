"""Intervals cover what they claim to (by simulation, fixed seeds) and agree with textbook values and formulas."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_eval.analysis.statistics import (
    Estimate,
    from_sums,
    incomplete_beta,
    interval_of_mean,
    normal_quantile,
    proportion,
    t_quantile,
    t_tail,
    wilson,
)


@pytest.mark.parametrize(
    ("df", "value"),
    [(1, 12.706205), (2, 4.302653), (5, 2.570582), (29, 2.045230), (100, 1.983972), (100_000, 1.959988)],
)
def test_t_quantiles_are_the_printed_ones(df: int, value: float) -> None:
    assert t_quantile(df) == pytest.approx(value, abs=2e-6)


def test_t_tail_against_integration_of_the_density() -> None:
    for df in (1, 3, 10, 40):
        scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
        for t in (0.1, 1.0, 2.5):
            steps = 4000  # Simpson's rule from 0 to t
            h = t / steps
            ys = [scale * (1 + (i * h) ** 2 / df) ** (-(df + 1) / 2) for i in range(steps + 1)]
            area = h / 3 * (ys[0] + ys[-1] + 4 * sum(ys[1:-1:2]) + 2 * sum(ys[2:-1:2]))
            assert t_tail(t, df) == pytest.approx(0.5 - area, abs=1e-10)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_incomplete_beta_is_a_binomial_tail(a: int, b: int, x: float) -> None:
    n = a + b - 1
    tail = math.fsum(math.comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(a, n + 1))
    assert incomplete_beta(a, b, x) == pytest.approx(tail, abs=1e-10)


@given(st.integers(1, 500), st.data())
def test_wilson_solves_its_equation(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    lo, hi = wilson(successes, n)
    p, z = successes / n, normal_quantile()
    assert 0 <= lo <= p <= hi <= 1
    assert hi - lo > 0
    for bound in (lo, hi):
        if 0 < bound < 1:
            assert abs(p - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), abs=1e-9)


def test_single_values_give_the_plain_standard_error() -> None:
    values = [True] * 37 + [False] * 63
    estimate = proportion([[value] for value in values])
    assert estimate == Estimate(0.37, estimate.stderr, wilson(37, 100), "wilson", 100)
    assert estimate.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(100))


def test_clusters_that_repeat_one_verdict_count_once() -> None:
    solved = [True] * 12 + [False] * 18
    once = proportion([[value] for value in solved])
    sixteen_times = proportion({f"q{i}": [value] * 16 for i, value in enumerate(solved)})
    assert sixteen_times.mean == once.mean
    assert sixteen_times.stderr == pytest.approx(once.stderr)
    assert sixteen_times.interval is not None
    assert sixteen_times.interval == pytest.approx(once.interval, abs=0.02)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=2, max_size=30), st.randoms())
def test_order_changes_no_bit(clusters: list[list[bool]], rng: random.Random) -> None:
    before = proportion(clusters)
    shuffled = [rng.sample(values, len(values)) for values in clusters]
    rng.shuffle(shuffled)
    assert proportion(shuffled) == before
    assert before.interval is not None
    lo, hi = before.interval
    assert 0 <= lo <= before.mean + 1e-12
    assert before.mean - 1e-12 <= hi <= 1
    assert lo < hi


def test_one_cluster_has_no_spread_and_nothing_has_no_mean() -> None:
    assert from_sums([(3, 4)]) == Estimate(0.75, None, None, "wilson-clustered", 1)
    assert from_sums([(1, 1)]).interval == wilson(1, 1)
    for empty in ([], [[]]):
        with pytest.raises(ValueError, match="nothing"):
            proportion(empty)
    with pytest.raises(ValueError, match="trials"):
        wilson(1, 0)


def coverage(questions: int, draws: int, alpha: float, beta: float, runs: int) -> float:
    """Share of simulated runs whose interval holds the truth; a question's chance to be solved is Beta(alpha, beta)."""
    rng = random.Random(20)
    truth = alpha / (alpha + beta)
    hits = 0
    for _ in range(runs):
        chances = [rng.betavariate(alpha, beta) for _ in range(questions)]
        sums = [(sum(rng.random() < chance for _ in range(draws)), draws) for chance in chances]
        interval = from_sums(sums).interval
        assert interval is not None
        hits += interval[0] <= truth <= interval[1]
    return hits / runs


@pytest.mark.parametrize(
    ("questions", "draws", "alpha", "beta"),
    [(200, 1, 2, 1), (60, 1, 0.5, 4.5), (30, 16, 0.3, 0.7), (30, 16, 2, 8), (100, 4, 0.5, 0.5), (120, 4, 0.5, 2)],
)
def test_intervals_cover_95_percent(questions: int, draws: int, alpha: float, beta: float) -> None:
    assert 0.93 <= coverage(questions, draws, alpha, beta, runs=1500) <= 0.975


def test_mean_over_tasks_covers_even_where_tasks_lie_at_the_ends() -> None:
    """Tasks of different sizes, one nearly never solved: its standard error of 0 would claim certainty."""
    rng = random.Random(8)
    tasks = [(150, 0.7), (60, 0.4), (30, 0.01)]
    truth = sum(chance for _, chance in tasks) / 3
    hits, runs = 0, 1500
    for _ in range(runs):
        estimates = [from_sums([(int(rng.random() < chance), 1) for _ in range(n)]) for n, chance in tasks]
        low, high = interval_of_mean([(e.mean, e.interval) for e in estimates if e.interval is not None])
        hits += low <= truth <= high
    assert 0.93 <= hits / runs <= 0.975
    low, high = interval_of_mean([(0.0, wilson(0, 30)), (0.0, wilson(0, 30))])
    assert low == 0 < high < wilson(0, 30)[1]


def test_errors_that_ignore_clusters_would_not_cover() -> None:
    """The reason for clustering: 16 draws of a question are not 16 questions."""
    rng = random.Random(3)
    hits, runs = 0, 400
    for _ in range(runs):
        right = sum(
            sum(rng.random() < chance for _ in range(16)) for chance in (rng.betavariate(0.3, 0.7) for _ in range(30))
        )
        lo, hi = wilson(right, 480)
        hits += lo <= 0.3 <= hi
    assert hits / runs < 0.6
