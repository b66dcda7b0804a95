"""Tiers, rungs and cross-fitting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ares_eval.analysis.columns import draws_of
from ares_eval.analysis.difficulty import (
    TIERS,
    NoDifficulty,
    from_levels,
    from_own_pass_rate,
    from_reference,
    pass_counts,
    pooled,
    tier_of_pass_rate,
)
from tests.analysis.synthetic import Reply, record_of


def test_tiers_of_eight_draws_are_the_papers() -> None:
    """Appendix G: easy 6 or more, medium 3 to 5, hard 2 or fewer."""
    tiers = [TIERS[tier_of_pass_rate(k, 8)] for k in range(9)]
    assert tiers == ["hard"] * 3 + ["medium"] * 3 + ["easy"] * 3


def test_tiers_at_the_fractions_themselves() -> None:
    assert [TIERS[tier_of_pass_rate(k, 3)] for k in range(4)] == ["hard", "medium", "easy", "easy"]
    assert TIERS[tier_of_pass_rate(3, 4)] == "easy"


def test_numbered_levels() -> None:
    found = from_levels(["Level 5", "Level 1", None, "Level 3", "Level 2", "Level 4"])
    assert found.rungs == ("Level 1", "Level 2", "Level 3", "Level 4", "Level 5")
    assert found.rung.tolist() == [4, 0, -1, 2, 1, 3]
    np.testing.assert_array_equal(found.value, [1.0, 0.0, np.nan, 0.5, 0.25, 0.75])
    assert found.tier.tolist() == [2, 0, -1, 1, 0, 2]


def test_levels_10_comes_after_9() -> None:
    assert from_levels(["10", "9", "1"]).rungs == ("1", "9", "10")


def test_named_levels_keep_their_tier_whichever_occur() -> None:
    found = from_levels(["medium", "Easy", "medium"])
    assert found.rungs == ("Easy", "medium")
    assert found.tier.tolist() == [1, 0, 1]
    assert found.value.tolist() == [0.5, 0.0, 0.5]


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ([None, None], "no difficulty labels"),
        (["3", "3"], "the label '3'"),
        (["algebra", "geometry"], "no known order"),
    ],
)
def test_labels_that_order_nothing(levels: list[str | None], reason: str) -> None:
    with pytest.raises(NoDifficulty, match=reason):
        from_levels(levels)


QUESTION = np.array([0, 0, 0, 0, 1, 1, 1, 1])
DRAW = np.array([0, 1, 2, 3, 0, 1, 2, 3])
RIGHT = np.array([True, True, False, True, False, False, False, True])


def test_leave_one_out_rates_a_draw_by_the_others() -> None:
    found = from_own_pass_rate(QUESTION, DRAW, RIGHT, "leave_one_out")
    assert found.pass_rate == pytest.approx([2 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 1 / 3, 1 / 3, 0])
    assert found.rungs == ("3/3", "2/3", "1/3", "0/3")
    assert found.value == pytest.approx(1 - found.pass_rate)
    assert [TIERS[t] for t in found.tier] == ["easy"] * 4 + ["medium"] * 3 + ["hard"]


def test_split_half_rates_even_draws_by_odd_ones() -> None:
    found = from_own_pass_rate(QUESTION, DRAW, RIGHT, "split_half")
    assert found.pass_rate.tolist() == [1.0, 0.5, 1.0, 0.5, 0.5, 0.0, 0.5, 0.0]


def test_same_draws_is_k_of_n_and_says_that_it_is_biased() -> None:
    found = from_own_pass_rate(QUESTION, DRAW, RIGHT, "same_draws")
    assert found.pass_rate.tolist() == [0.75] * 4 + [0.25] * 4
    assert "biased" in found.note


def test_cross_fitting_removes_the_bias_of_shared_draws() -> None:
    """All questions are equally hard and right replies are short: length must not seem to follow difficulty."""
    rng = np.random.default_rng(1)
    question = np.repeat(np.arange(3000), 4)
    draw = np.tile(np.arange(4), 3000)
    right = rng.random(12_000) < 0.5
    length = np.where(right, 100.0, 200.0)
    slopes = {}
    for way in ("same_draws", "leave_one_out", "split_half"):
        value = from_own_pass_rate(question, draw, right, way).value
        slopes[way] = np.polyfit(value, length, 1)[0]
    assert slopes["same_draws"] == pytest.approx(100, abs=5)
    assert abs(slopes["leave_one_out"]) < 6
    assert abs(slopes["split_half"]) < 6


def test_own_pass_rates_need_two_draws() -> None:
    with pytest.raises(NoDifficulty, match="--samples"):
        from_own_pass_rate(np.array([0, 1]), np.zeros(2, dtype=int), np.ones(2, dtype=bool))


def test_another_run_decides() -> None:
    mine = draws_of([record_of(Reply("a")), record_of(Reply("b")), record_of(Reply("c"))])
    other = draws_of(
        [record_of(Reply("a", draw=i, right=True)) for i in range(4)]
        + [record_of(Reply("b", draw=i, right=i == 0)) for i in range(4)]
    )
    found = from_reference(mine, mine.of_task("planted"), pass_counts(other), "other")
    assert found.kind == "run:other"
    np.testing.assert_array_equal(found.pass_rate, [1.0, 0.25, np.nan])
    assert found.tier.tolist() == [0, 2, -1]
    with pytest.raises(NoDifficulty, match="none of these questions"):
        from_reference(mine, mine.of_task("planted"), {}, "other")


def test_pooling_keeps_values_and_says_when_kinds_differ(tmp_path: Path) -> None:
    levels = from_levels(["1", "2"])
    rates = from_own_pass_rate(QUESTION, DRAW, RIGHT)
    both = pooled([(np.array([0, 1]), levels), (np.arange(2, 10), rates)], 10)
    assert both.kind == "mixed" and both.rungs == ()
    assert both.value[:2].tolist() == [0.0, 1.0]
    assert both.tier[2:].tolist() == rates.tier.tolist()
