"""The chosen response: by brute force, ties, and independence of order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_train.adacs import nearest, tiers

candidate = st.tuples(st.integers(0, 5), st.integers(0, 20))
"""Question and length; draws are numbered within a question."""


def arrays(found: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seen: dict[int, int] = {}
    draws = []
    for question, _ in found:
        draws.append(seen.get(question, 0))
        seen[question] = draws[-1] + 1
    return (
        np.array([q for q, _ in found], dtype=np.int64),
        np.array([x for _, x in found], dtype=np.int64),
        np.array(draws, dtype=np.int64),
    )


@settings(deadline=None)
@given(
    st.lists(candidate, max_size=30),
    st.lists(st.integers(0, 40).map(lambda x: x / 2), min_size=6, max_size=6),
    st.randoms(use_true_random=False),
)
def test_nearest_is_that_of_brute_force_in_any_order(found, targets, random) -> None:  # type: ignore[no-untyped-def]
    question, length, draw = arrays(found)
    target = np.array(targets)
    rows = nearest.nearest(question, length, draw, target)
    want = []
    for q in sorted(set(question.tolist())):
        inside = [i for i in range(len(question)) if question[i] == q]
        want.append(min(inside, key=lambda i: (abs(length[i] - target[q]), length[i], draw[i])))
    assert rows.tolist() == want
    order = list(range(len(question)))
    random.shuffle(order)
    again = nearest.nearest(question[order], length[order], draw[order], target)
    assert [order[i] for i in again] == want


def test_of_equally_near_ones_the_shorter_then_the_lower_draw() -> None:
    question, draw = np.zeros(4, dtype=np.int64), np.array([3, 1, 2, 0])
    assert nearest.nearest(question, np.array([12, 8, 8, 20]), draw, np.array([10.0])).tolist() == [1]


@settings(deadline=None)
@given(st.lists(candidate, max_size=30), st.integers(0, 3), st.randoms(use_true_random=False))
def test_random_candidates_are_one_a_question_in_any_order(found, seed, random) -> None:  # type: ignore[no-untyped-def]
    question, _, draw = arrays(found)
    rank = tiers.ranks([str(i) for i in range(6)], seed, "candidate")
    rows = nearest.at_random(question, draw, rank)
    assert question[rows].tolist() == sorted(set(question.tolist()))
    order = list(range(len(question)))
    random.shuffle(order)
    again = nearest.at_random(question[order], draw[order], rank)
    assert [order[i] for i in again] == rows.tolist()


def test_random_candidates_are_equally_likely() -> None:
    count, draws = 6000, 3
    question, draw = np.repeat(np.arange(count), draws), np.tile(np.arange(draws), count)
    rank = tiers.ranks([str(i) for i in range(count)], 0, "candidate")
    picked = np.bincount(draw[nearest.at_random(question, draw, rank)], minlength=draws)
    assert (np.abs(picked / count - 1 / 3) < 0.03).all()
