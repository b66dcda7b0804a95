"""The formulas of ares_eval.metrics against brute force: enumeration of subsets, of tie-breaks, of assignments."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_eval import metrics


def test_pass_at_k_is_the_share_of_subsets_with_a_right_draw() -> None:
    for n in range(1, 9):
        for c in range(n + 1):
            draws = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(range(n), k))
                share = sum(any(draws[i] for i in subset) for subset in subsets) / len(subsets)
                assert metrics.pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_pass_at_1_is_avg_and_pass_at_n_is_any(correct: list[bool]) -> None:
    n, c = len(correct), sum(correct)
    assert metrics.pass_at_k(n, c, 1) == pytest.approx(metrics.avg_at_k(correct))
    assert metrics.pass_at_k(n, c, n) == float(any(correct))
    values = [metrics.pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert values == sorted(values)


def test_pass_at_k_of_large_counts_stays_exact() -> None:
    assert metrics.pass_at_k(1000, 1, 500) == pytest.approx(0.5)
    assert 0 < metrics.pass_at_k(10_000, 1, 1) == pytest.approx(1e-4)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_pass_at_k_refuses_what_is_undefined(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="draws"):
        metrics.pass_at_k(n, c, k)


answers = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=9)


@given(answers, st.sampled_from(["1", "2", "3"]), st.randoms(use_true_random=False))
def test_maj_at_k_is_the_expected_value_of_a_random_tie_break(
    given_answers: list[str | None], reference: str, rng: random.Random
) -> None:
    correct = [answer == reference for answer in given_answers]
    votes = [answer for answer in given_answers if answer is not None]
    most = max((votes.count(answer) for answer in votes), default=0)
    outcomes = [float(answer == reference) for answer in sorted(set(votes)) if votes.count(answer) == most]
    expected = sum(outcomes) / len(outcomes) if outcomes else 0.0
    assert metrics.maj_at_k(given_answers, correct) == pytest.approx(expected)

    pairs = list(zip(given_answers, correct, strict=True))
    rng.shuffle(pairs)
    assert metrics.maj_at_k([a for a, _ in pairs], [c for _, c in pairs]) == metrics.maj_at_k(given_answers, correct)


def test_maj_at_k_by_hand() -> None:
    assert metrics.maj_at_k(["7", "7", "8"], [True, True, False]) == 1.0
    assert metrics.maj_at_k(["7", "8", "8"], [True, False, False]) == 0.0
    assert metrics.maj_at_k(["7", "8", None], [True, False, False]) == 0.5
    assert metrics.maj_at_k([None, None, "7"], [False, False, True]) == 1.0
    assert metrics.maj_at_k([None], [False]) == 0.0
    with pytest.raises(ValueError, match="undefined"):
        metrics.maj_at_k([], [])
    with pytest.raises(ValueError, match="undefined"):
        metrics.maj_at_k(["1"], [True, False])


@given(st.dictionaries(st.text(max_size=3), st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=8))
def test_worst_case_never_exceeds_average_case(groups: dict[str, list[bool]]) -> None:
    solved = [name for name, variants in groups.items() if variants.count(True) == len(variants)]
    assert metrics.worst_case(groups) == len(solved) / len(groups)
    assert metrics.worst_case(groups) <= metrics.average_case(groups) + 1e-12


def test_cases_refuse_empty_groups() -> None:
    for groups in ({}, {"q": []}):
        with pytest.raises(ValueError):
            metrics.worst_case(groups)
        with pytest.raises(ValueError):
            metrics.average_case(groups)


def test_powers_of_two() -> None:
    assert metrics.powers_of_two(1) == [1]
    assert metrics.powers_of_two(16) == [1, 2, 4, 8, 16]
    assert metrics.powers_of_two(24) == [1, 2, 4, 8, 16]
