"""ares_train.aepo: difficulty, targets and lambda, the rewards, advantages and the filter, by hand-made cases."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_train.aepo import released
from ares_train.aepo.advantage import group_advantage, kept_questions
from ares_train.aepo.config import (
    AdvantageConfig,
    AEPOConfig,
    DifficultyConfig,
    FilterConfig,
    OverlongConfig,
    RewardConfig,
)
from ares_train.aepo.difficulty import bin_groups
from ares_train.aepo.reward import hierarchical_penalty, length_reward, overlong_penalty
from ares_train.aepo.rollouts import Rollouts, rollouts
from ares_train.aepo.target import BinStatistics, lambdas, statistics


def answers(correct: list[int], question: list[int], parent: list[int] | None = None) -> Rollouts:
    """Rows of which only correctness and descent matter."""
    shape = (len(correct), 4)
    fork_at = None if parent is None else [int(p >= 0) for p in parent]
    return rollouts(np.zeros(shape), np.ones(shape, dtype=bool), correct, question, parent=parent, fork_at=fork_at)


# ---------------------------------------------------------------- difficulty


@pytest.mark.parametrize(
    ("right", "expected"), [(k, 2) for k in range(3)] + [(k, 1) for k in (3, 4, 5)] + [(k, 0) for k in (6, 7, 8)]
)
def test_bins_are_the_papers_six_and_three_of_eight(right: int, expected: int) -> None:
    bins = bin_groups(answers([1] * right + [0] * (8 - right), [5] * 8), DifficultyConfig())
    assert bins.dtype == np.int8 and bins.tolist() == [expected] * 8


@given(st.integers(2, 60), st.data())
def test_thirds_are_exact_for_every_group_size(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    bins = bin_groups(answers([1] * k + [0] * (n - k), [0] * n), DifficultyConfig())
    assert bins[0] == (0 if 3 * k >= 2 * n else 2 if 3 * k < n else 1)


def test_forks_do_not_vote_and_few_rollouts_make_a_question_medium() -> None:
    batch = answers([1, 1, 0, 0, 0, 0, 1], [3, 3, 3, 3, 3, 1, 0], [-1, -1, 0, 0, 0, -1, -1])
    assert bin_groups(batch, DifficultyConfig()).tolist() == [0] * 5 + [1, 1]
    assert bin_groups(batch, DifficultyConfig(min_valid=1)).tolist() == [0] * 5 + [2, 0]
    assert bin_groups(batch, DifficultyConfig(min_valid=3)).tolist() == [1] * 7


# ---------------------------------------------------------------- lambda and the hierarchical reward


def stats_of(mean: float, var: float = 2.0, count: int = 100) -> BinStatistics:
    """The same for all bins."""
    return BinStatistics(np.full(3, count), np.full(3, mean), np.full(3, var))


def test_lambda_by_sign() -> None:
    target = np.full(3, 4.0)
    printed, directional = RewardConfig(eps=1e-12), RewardConfig(eps=1e-12, lambda_sign="directional")
    np.testing.assert_allclose(lambdas(stats_of(5.0), target, printed), [0.5, 0.5, 0.5])
    np.testing.assert_allclose(lambdas(stats_of(3.0), target, printed), [0.0, 0.0, 0.0])
    np.testing.assert_allclose(lambdas(stats_of(5.0), target, directional), [0.5, 0.5, 0.0])
    np.testing.assert_allclose(lambdas(stats_of(3.0), target, directional), [0.0, 0.5, 0.5])


def test_lambda_is_guarded() -> None:
    target = np.array([4.0, np.nan, 4.0])
    assert lambdas(stats_of(9.0), target, RewardConfig(lam_max=0.7)).tolist() == [0.7, 0.0, 0.7]
    assert lambdas(stats_of(9.0, count=7), target, RewardConfig()).tolist() == [0.0, 0.0, 0.0]
    assert lambdas(stats_of(9.0, var=0.0), target, RewardConfig(lam_max=1e12))[0] == pytest.approx(5e6)
    assert lambdas(stats_of(9.0, var=0.0), target, RewardConfig(lam_max=1e12, var_floor=5.0))[0] == pytest.approx(1.0)
    assert lambdas(stats_of(9.0, count=1), target, RewardConfig(fixed_lambda=3.0)).tolist() == [3.0, 0.0, 3.0]
    assert lambdas(stats_of(np.nan, count=0), target, RewardConfig(fixed_lambda=3.0)).tolist() == [0.0, 0.0, 0.0]


def test_statistics_are_population_moments() -> None:
    stats = statistics(np.array([1, 3, 8, 8]), np.array([0, 0, 2, 2], dtype=np.int8))
    assert stats.count.tolist() == [2, 0, 2]
    np.testing.assert_array_equal(stats.mean, [2.0, np.nan, 8.0])
    np.testing.assert_array_equal(stats.var, [1.0, np.nan, 0.0])


@pytest.mark.parametrize(
    ("shape_correct", "expected"),
    [
        # rows: easy over, easy under, medium over, medium under, hard over, hard under
        ("none", {0: [0.2, 0, 0.2, 0.2, 0, 0.2], 1: [0, 0, 0, 0, 0, 0]}),
        ("easy", {0: [0.2, 0, 0.2, 0.2, 0, 0.2], 1: [0.2, 0, 0, 0, 0, 0]}),
        ("all", {0: [0.2, 0, 0.2, 0.2, 0, 0.2], 1: [0.2, 0, 0, 0, 0, 0.2]}),
    ],
)
def test_which_answers_a_penalty_touches(shape_correct: Any, expected: dict[int, list[float]]) -> None:
    config = RewardConfig(shape_correct=shape_correct)
    for correct, taken in expected.items():
        penalty = hierarchical_penalty(
            np.full(6, float(correct)),
            np.array([6, 2] * 3),
            np.array([0, 0, 1, 1, 2, 2]),
            np.full(6, 4.0),
            np.full(3, 0.1),
            config,
        )
        np.testing.assert_allclose(penalty, taken)


def test_penalties_are_capped_and_none_without_a_target() -> None:
    penalty = hierarchical_penalty(
        np.zeros(2), np.array([1000, 1000]), np.zeros(2, dtype=int), np.array([4.0, np.nan]), np.ones(3), RewardConfig()
    )
    assert penalty.tolist() == [0.5, 0.0]


def test_length_and_overlong() -> None:
    config = AEPOConfig.from_dict({"response_length": 100, "reward": {"mode": "length", "length_coef": 0.2}})
    np.testing.assert_allclose(
        length_reward(np.array([1.0, 1.0, 0.0]), np.array([50, 100, 50]), config), [0.9, 0.8, 0.0]
    )
    penalty = overlong_penalty(np.array([10, 80, 90, 100]), 100, OverlongConfig(buffer=20, factor=0.5))
    np.testing.assert_allclose(penalty, [0, 0, 0.25, 0.5])
    assert not overlong_penalty(np.array([100]), 100, OverlongConfig()).any()


# ---------------------------------------------------------------- the released reward


def released_one(correct: int, d: int, n: int, target: float, alpha: float) -> float:
    """The addition to one answer's accuracy."""
    return float(
        released.entropy_reward(
            np.array([correct]), np.array([n]), np.array([d]), np.array([target]), np.full(3, alpha)
        )[0]
    )


@pytest.mark.parametrize(
    ("correct", "d", "n", "target", "alpha", "printed", "full"),
    [
        (1, 0, 51, 28, 0.5, "-0.50", "-0.500"),
        (0, 1, 84, 55, 0.475, "+0.38", "+0.379"),
        (0, 1, 24, 55, 0.475, "+0.19", "+0.190"),
        (1, 0, 20, 28, 0.5, "+0.00", "+0.000"),
    ],
)
def test_released_reward_gives_the_papers_case_study(
    correct: int, d: int, n: int, target: float, alpha: float, printed: str, full: str
) -> None:
    value = released_one(correct, d, n, target, alpha) + 0.0
    assert f"{value:+.2f}" == printed
    assert f"{value:+.3f}" == full


def test_released_reward_has_the_described_floors_and_ceilings() -> None:
    """At alpha 0.5: bonuses from 0.15, 0.2 and 0.3 on; hard and right from 0.3 (once above -margin) to 0.6."""
    for d, floor in enumerate((0.15, 0.2, 0.3)):
        lowest = min(released_one(0, d, n, 30, 0.5) for n in range(0, 200))
        assert lowest == pytest.approx(floor)
    assert released_one(1, 2, 500, 30, 0.5) == pytest.approx(0.6)
    assert min(released_one(1, 2, n, 30, 0.5) for n in range(20, 200)) == pytest.approx(0.3)
    assert -0.1 <= released_one(1, 2, 0, 30, 0.5) < 0
    # The code's ordering bug, "easy, target 0": a right answer with a few windows has 0.5, a wrong one about 0.3.
    assert 1 + released_one(1, 0, 5, 0, 0.5) == 0.5
    assert released_one(0, 0, 12, 0, 0.5) == pytest.approx(0.3, abs=0.01)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 2), st.floats(0, 200), st.floats(*released.ALPHA_RANGE))
def test_released_reward_keeps_right_above_wrong(n: int, m: int, d: int, target: float, alpha: float) -> None:
    assert 1 + released_one(1, d, n, target, alpha) > released_one(0, d, m, target, alpha)


def test_released_targets_are_rounded_means_of_questions_and_alpha_walks_by_the_rounding() -> None:
    n_he, bins = np.array([1, 2, 9, 4, 4, 4]), np.array([0, 0, 0, 2, 2, 2])
    targets, means = released.rounded_targets(n_he, bins, np.array([0, 0, 1, 2, 2, 2]))
    np.testing.assert_array_equal(means, [5.25, np.nan, 4.0])
    np.testing.assert_array_equal(targets, [5.0, np.nan, 4.0])
    assert released.walked((0.5, 0.5, 0.5), means, targets) == pytest.approx((0.5125, 0.5, 0.5))
    assert released.walked((0.5, 0.5, 0.5), np.array([1.5, 1.5, 1.5]), np.array([2.0, 2.0, 2.0]))[1] == pytest.approx(
        0.475
    )
    assert released.walked((0.55, 0.5, 0.05), np.array([1.4, 1.0, 1.4]), np.ones(3)) == (0.55, 0.5, 0.05)


# ---------------------------------------------------------------- advantages


def test_deviation_erases_the_size_of_penalties_and_the_floor_brings_it_back() -> None:
    """An all-wrong group with penalties (0, -1, 0, -2) s: aepo-like signals of any size become full-size advantages."""
    batch = answers([0, 0, 0, 0], [0] * 4)
    shape = np.array([0.0, -1.0, 0.0, -2.0])
    plain, floored = AdvantageConfig(), AdvantageConfig(std_floor=0.1)
    for scale in (1e-1, 1e-3):
        np.testing.assert_allclose(group_advantage(scale * shape, batch, plain), [0.78, -0.26, 0.78, -1.31], atol=0.01)
    np.testing.assert_allclose(group_advantage(1e-5 * shape, batch, plain), [0.71, -0.24, 0.71, -1.18], atol=0.01)
    np.testing.assert_allclose(
        group_advantage(1e-3 * shape, batch, floored), [0.0075, -0.0025, 0.0075, -0.0125], rtol=1e-4
    )
    by_accuracy = AdvantageConfig(std="accuracy", std_floor=0.1)
    np.testing.assert_allclose(group_advantage(1e-1 * shape, batch, by_accuracy), [0.75, -0.25, 0.75, -1.25], rtol=1e-4)
    only_centred = AdvantageConfig(std="none")
    np.testing.assert_allclose(group_advantage(1e-3 * shape, batch, only_centred), 1e-3 * (shape + 0.75))


def test_who_is_compared_with_whom() -> None:
    """Two base rows and two forks of the first; centred only, so that means show."""
    batch = answers([1, 0, 1, 1], [0] * 4, [-1, -1, 0, 0])
    reward = np.array([1.0, 0.0, 0.5, 0.9])
    config = AdvantageConfig(std="none")
    np.testing.assert_allclose(group_advantage(reward, batch, config), reward - 0.6)
    base = dataclasses.replace(config, group="base_baseline")
    np.testing.assert_allclose(group_advantage(reward, batch, base), reward - 0.5)
    siblings = dataclasses.replace(config, group="siblings")
    np.testing.assert_allclose(group_advantage(reward, batch, siblings), [0.5, -0.5, 0.5 - 0.8, 0.9 - 0.8])


def test_a_lone_row_keeps_its_reward() -> None:
    batch = answers([1, 0], [0, 1])
    np.testing.assert_allclose(group_advantage(np.array([0.7, -0.2]), batch, AdvantageConfig()), [0.7, -0.2], rtol=1e-5)


def test_filter_by_accuracy_keeps_what_a_filter_by_reward_drops() -> None:
    """One right answer of eight, the rest penalised: the mean reward falls to 0, and with it hard questions go."""
    batch = answers([1] + [0] * 7 + [1] * 8 + [0] * 8, [0] * 8 + [1] * 8 + [2] * 8)
    reward = batch.correct - 0.2 * (batch.correct == 0)
    assert kept_questions(reward, batch, FilterConfig(metric="accuracy")).tolist() == [True] * 8 + [False] * 16
    assert not kept_questions(reward, batch, FilterConfig(metric="reward")).any()
    assert kept_questions(reward, batch, FilterConfig()).all()
