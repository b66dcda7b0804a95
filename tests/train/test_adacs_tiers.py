"""Shares of tiers and who is drawn: by brute force, and by what must not change a selection."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_train.adacs import tiers

counts = st.lists(st.integers(0, 12), min_size=1, max_size=9)


def poured(available: list[int], total: int) -> list[int]:
    """One row at a time into the lowest level that has room."""
    shares = [0] * len(available)
    for _ in range(min(total, sum(available))):
        room = [i for i in range(len(shares)) if shares[i] < available[i]]
        shares[min(room, key=lambda i: (shares[i], i))] += 1
    return shares


@settings(deadline=None)
@given(counts, st.integers(0, 80))
def test_fill_is_pouring_row_by_row(available: list[int], total: int) -> None:
    assert tiers.fill(available, total) == poured(available, total)


def test_fill_by_hand() -> None:
    assert tiers.fill([10] * 9, 18) == [2] * 9
    assert tiers.fill([10] * 9, 20) == [3, 3, 2, 2, 2, 2, 2, 2, 2]
    assert tiers.fill([1, 0, 100, 100], 51) == [1, 0, 25, 25]
    assert tiers.fill([1, 2], 50) == [1, 2]


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 300))
def test_apportioned_shares_are_within_one_of_proportion(weights: list[int], total: int) -> None:
    shares = tiers.apportion(weights, total)
    total = min(total, sum(weights))
    assert sum(shares) == total
    for share, weight in zip(shares, weights, strict=True):
        assert 0 <= share <= weight
        assert sum(weights) == 0 or abs(share - total * weight / sum(weights)) < 1


def pool(chance: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    return chance.integers(0, 9, count), chance.integers(0, 3, count), [f"q{i:05}" for i in range(count)]


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 90), st.sampled_from(["global", "source"]), st.integers(0, 5))
def test_choice_is_uniform_and_depends_on_no_order(count: int, size: int, per: str, seed: int) -> None:
    tier, source, qids = pool(np.random.default_rng(seed), count)
    rank = tiers.ranks(qids, seed, "questions")
    taken = tiers.choose(tier, source, rank, size, per)
    assert taken.sum() == min(size, count)
    groups = [np.ones(count, dtype=bool)] if per == "global" else [source == code for code in np.unique(source)]
    for group in groups:
        available = np.bincount(tier[group], minlength=9).tolist()
        assert np.bincount(tier[group & taken], minlength=9).tolist() == poured(available, int((group & taken).sum()))
    order = np.random.default_rng(seed + 1).permutation(count)
    again = tiers.choose(tier[order], source[order], rank[order], size, per)
    assert (again == taken[order]).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.sampled_from(["global", "source"]), st.integers(0, 5))
def test_without_a_size_every_tier_that_is_there_gives_what_the_smallest_has(count: int, per: str, seed: int) -> None:
    tier, source, qids = pool(np.random.default_rng(seed), count)
    taken = tiers.choose(tier, source, tiers.ranks(qids, seed, "questions"), None, per)
    for group in [np.ones(count, dtype=bool)] if per == "global" else [source == code for code in np.unique(source)]:
        available = np.bincount(tier[group], minlength=9)
        smallest = available[available > 0].min()
        assert np.bincount(tier[group & taken], minlength=9).tolist() == np.where(available, smallest, 0).tolist()


def test_a_larger_selection_holds_the_smaller_one_and_seeds_differ() -> None:
    tier, source, qids = pool(np.random.default_rng(0), 900)
    chosen = {
        (seed, size): tiers.choose(tier, source, tiers.ranks(qids, seed, "q"), size, "global")
        for seed, size in ((0, 90), (0, 270), (1, 90))
    }
    assert (chosen[0, 270] | ~chosen[0, 90]).all()
    assert (chosen[0, 90] != chosen[1, 90]).any()


def test_ranks_are_uniform_and_differ_by_purpose() -> None:
    qids = [str(i) for i in range(4000)]
    first, second = (tiers.ranks(qids, 0, purpose).astype(np.float64) / 2**64 for purpose in ("a", "b"))
    assert abs(first.mean() - 0.5) < 0.02 and abs(first.std() - 12**-0.5) < 0.02
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06
    assert tiers.ranks([], 0, "a").shape == (0,)
