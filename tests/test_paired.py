"""Paired statistics against brute force, textbook values, and simulation of coverage and of false alarms."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.analysis import paired
from ares_eval.analysis.paired import Cluster, Difference, Normal, Sides


def singles(gains: int, losses: int, same: int) -> list[Cluster]:
    return [Cluster(1, 1, 1)] * gains + [Cluster(-1, 1, 1)] * losses + [Cluster(0, 0, 1)] * same


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_counts_the_outcomes_that_are_as_lopsided(gains: int, losses: int) -> None:
    n = gains + losses
    as_far = sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(gains - losses))
    assert paired.mcnemar(gains, losses) == pytest.approx(as_far / 2**n)


def test_mcnemar_of_the_textbook() -> None:
    assert paired.mcnemar(1, 9) == pytest.approx(0.021484375)
    assert paired.mcnemar(0, 0) == 1


sums = st.lists(st.integers(-6, 6), max_size=9)


@settings(deadline=None)
@given(sums, st.booleans())
def test_permutation_is_the_share_of_exchanges(values: list[int], one_sided: bool) -> None:
    total = sum(values)
    exchanged = [
        sum(v * s for v, s in zip(values, signs, strict=True))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    as_far = sum(t >= total if one_sided else abs(t) >= abs(total) for t in exchanged)
    assert paired.permutation([float(v) for v in values], one_sided=one_sided) == pytest.approx(as_far / len(exchanged))


def test_permutation_of_many_clusters_nears_mcnemar_and_forgets_their_order() -> None:
    values = [1.0] * 30 + [-1.0] * 14
    p = paired.permutation(values)
    assert p == pytest.approx(paired.mcnemar(30, 14), abs=0.004)
    assert paired.permutation(values[::-1]) == p


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(values: list[float]) -> None:
    adjusted = paired.holm(values)
    for alpha in (0.01, 0.05, 0.2, 0.6):
        order = sorted(range(len(values)), key=lambda i: values[i])
        rejected = set()
        for rank, i in enumerate(order):
            if values[i] > alpha / (len(values) - rank):
                break
            rejected.add(i)
        for i in range(len(values)):
            clear = abs(values[i] * (len(values) - order.index(i)) - alpha) > 1e-9
            if clear:
                assert (adjusted[i] <= alpha) == (i in rejected)


def test_holm_of_the_paper() -> None:
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_difference_of_single_pairs() -> None:
    found = paired.difference(singles(12, 5, 83))
    assert found.mean == pytest.approx(0.07)
    assert (found.gains, found.losses) == pytest.approx((0.12, 0.05))
    assert found.effective == pytest.approx(100)
    # Bonett and Price: (12 + 1) and (5 + 1) of 102.
    variance = (19 / 102 - (7 / 102) ** 2) / 102
    assert found.normal.centre == pytest.approx(7 / 102)
    assert found.normal.error == pytest.approx(math.sqrt(variance))
    low, high = found.interval()
    assert low < 0 < found.mean < high


def test_draws_that_repeat_one_outcome_carry_nothing_new() -> None:
    once = paired.difference(singles(12, 5, 83))
    eight = paired.difference([Cluster(8 * c.total, 8 * c.squares, 8 * c.pairs) for c in singles(12, 5, 83)])
    assert eight.mean == once.mean
    assert eight.effective == pytest.approx(once.effective, rel=0.02)
    assert eight.interval() == pytest.approx(once.interval(), abs=0.002)


def test_nothing_that_varies_counts_each_question_once() -> None:
    found = paired.difference([Cluster(0, 0, 16)] * 30)
    assert found.effective == 30
    low, high = found.interval()
    assert low == pytest.approx(-high) and 0.05 < high < 0.15


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 200), st.floats(0.005, 0.3))
def test_evidence_for_one_side_is_none_for_the_other(gains: int, losses: int, same: int, margin: float) -> None:
    found = paired.difference(singles(gains, losses, same))
    mirrored = paired.difference(singles(losses, gains, same))
    assert found.above(-margin) == pytest.approx(mirrored.below(margin), abs=1e-9)
    assert found.above(-margin) + found.below(-margin) >= 1 - 1e-9


def _size(n: int, gain: float, loss: float, margin: float, p: Callable[[Difference], float], alpha: float) -> float:
    """Exact chance that a test at ``alpha`` rejects, over all outcomes of n pairs."""
    total = 0.0
    same = 1 - gain - loss
    for g in range(n + 1):
        for lo in range(n + 1 - g):
            rest = n - g - lo
            if (gain == 0 and g) or (loss == 0 and lo):
                continue
            log = math.lgamma(n + 1) - math.lgamma(g + 1) - math.lgamma(lo + 1) - math.lgamma(rest + 1)
            log += rest * math.log(same) + (g * math.log(gain) if g else 0) + (lo * math.log(loss) if lo else 0)
            if log > -20 and p(Difference((g - lo) / n, g / n, lo / n, float(n), n, n)) <= alpha:
                total += math.exp(log)
    return total


@pytest.mark.parametrize(("n", "flips"), [(30, 0.1), (60, 0.1), (123, 0.1), (123, 0.02)])
@pytest.mark.parametrize("margin", [0.0, 0.02, 0.1])
def test_the_tests_against_a_bound_keep_their_level(n: int, flips: float, margin: float) -> None:
    """Exactly at the bound, neither side is claimed more often than 5 % (5.5 % for the discreteness of few flips)."""
    if margin > flips:
        pytest.skip("no such pair of runs exists")
    gain, loss = (flips - margin) / 2, (flips + margin) / 2
    assert _size(n, gain, loss, margin, lambda d: d.below(-margin), 0.05) <= 0.055
    assert _size(n, gain, loss, margin, lambda d: d.above(-margin), 0.05) <= 0.055


def _two_runs(rng: np.random.Generator, questions: int, draws: int, drop: float) -> list[Cluster]:
    chance = rng.beta(1.6, 1.0, questions)
    worse = np.clip(chance - drop, 0, 1)
    d = (rng.random((questions, draws)) < worse[:, None]).astype(int)
    d -= (rng.random((questions, draws)) < chance[:, None]).astype(int)
    return [Cluster(float(row.sum()), float((row * row).sum()), draws) for row in d]


@pytest.mark.parametrize(("questions", "draws"), [(60, 1), (300, 1), (30, 16), (100, 4)])
def test_intervals_of_a_difference_cover_95_percent(questions: int, draws: int) -> None:
    rng = np.random.default_rng(11)
    x = np.linspace(0, 1, 20001)
    density = x**0.6
    density /= density.sum()
    true = float(((np.clip(x - 0.08, 0, 1) - x) * density).sum())
    runs = 1500
    hit = 0
    for _ in range(runs):
        low, high = paired.difference(_two_runs(rng, questions, draws, 0.08)).interval()
        hit += low <= true <= high
    assert 0.93 <= hit / runs <= 0.97


@pytest.mark.parametrize("questions", [60, 300])
def test_intervals_of_a_ratio_cover_95_percent(questions: int) -> None:
    rng = np.random.default_rng(5)
    runs, hit, true = 1500, 0, math.log(1.3)
    for _ in range(runs):
        centre = rng.normal(6, 0.6, questions)
        a = np.exp(centre + rng.normal(0, 0.4, questions))
        b = 1.3 * np.exp(centre + rng.normal(0, 0.4, questions))
        log = paired.log_ratio([Sides(x, y, 1) for x, y in zip(a.tolist(), b.tolist(), strict=True)])
        assert log is not None
        low, high = log.interval()
        hit += low <= true <= high
    assert 0.93 <= hit / runs <= 0.97


def test_p_values_of_equal_runs_are_uniform_enough() -> None:
    rng = np.random.default_rng(3)
    small = sum(paired.permutation([c.total for c in _two_runs(rng, 40, 4, 0.0)]) <= 0.05 for _ in range(300))
    assert small / 300 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


def test_the_detectable_effect_is_detected_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    effect = paired.difference(_two_runs(rng, 400, 1, 0.0)).normal.detectable(0.05, 0.8)
    found = 0
    for _ in range(500):
        d = _two_runs(rng, 400, 1, 0.0)
        right = [i for i, c in enumerate(d) if c.total >= 0]
        drop = rng.random(len(right)) < effect * len(d) / len(right)
        d = [c for i, c in enumerate(d) if i not in set(right)] + [
            Cluster(d[i].total - 1, (d[i].total - 1) ** 2, 1) if gone else d[i]
            for i, gone in zip(right, drop, strict=True)
        ]
        d = [c if c.total >= -1 else Cluster(-1, 1, 1) for c in d]
        low, high = paired.difference(d).interval()
        found += high < 0 or low > 0
    assert 0.72 <= found / 500 <= 0.92


def test_more_questions_and_draws_that_would_do() -> None:
    rng = np.random.default_rng(2)
    clusters = _two_runs(rng, 200, 4, 0.0)
    normal = paired.difference(clusters).normal
    needed = paired.needed_clusters(normal, 200, 0.02, 0.05, 0.8)
    assert needed == pytest.approx(200 * ((1.645 + 0.842) * normal.error / 0.02) ** 2, rel=0.01)
    draws = paired.needed_draws(clusters, 0.02, 0.05, 0.8)
    assert draws is not None and draws > 4
    # The draws differ by luck alone, so questions x draws is what counts.
    assert draws * 200 == pytest.approx(needed * 4, rel=0.25)
    assert paired.needed_draws(singles(5, 5, 90), 0.02, 0.05, 0.8) is None
    fixed = [Cluster(c.total * 4, c.squares * 4, 4) for c in singles(20, 20, 60)]
    assert paired.needed_draws(fixed, 0.01, 0.05, 0.8) is None  # no number of draws helps: they always agree


def test_a_mean_over_tasks() -> None:
    parts = [Normal(0.1, 0.03, 20), Normal(-0.02, 0.04, 50)]
    whole = paired.average(parts)
    assert whole.centre == pytest.approx(0.04)
    assert whole.error == pytest.approx(0.025)
    assert 20 < whole.df < 70


def test_a_ratio_of_runs_that_hardly_differ_is_not_claimed() -> None:
    """Four of 100 replies grew by the same length: the t test alone would call it certain."""
    part = [Sides(20, 20, 1)] * 96 + [Sides(20, 26, 1)] * 4
    log = paired.log_ratio(part)
    assert log is not None and log.above(0) < 0.05
    assert paired.ratio_above([part], 1.0, log) == pytest.approx(1 / 16)
    assert paired.ratio_below([part], 1.0, log) == pytest.approx(1.0)
    same = [Sides(20, 20, 1)] * 100
    equal = paired.log_ratio(same)
    assert equal is not None and equal.above(0) == 1 and equal.below(0) == 1
    assert paired.log_ratio([Sides(3, 0, 1)] * 5) is None
    assert paired.ratio_below([[Sides(3, 0, 1)] * 5], 1.0, None) == pytest.approx(1 / 32)


def test_order_of_clusters_changes_nothing() -> None:
    clusters = _two_runs(np.random.default_rng(1), 80, 3, 0.1)
    shuffled = clusters[:]
    random.Random(4).shuffle(shuffled)
    assert paired.difference(clusters) == paired.difference(shuffled)
