"""Rows cut into a constant number of mini-batches: what holds for every number of rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ares_train.rl.batches import multiple, order, spread


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.data())
def test_padding_is_spread_and_nothing_else_moves(ranks: int, mini: int, share: int, data: st.DataObject) -> None:
    size = mini * share
    padding = [data.draw(st.booleans()) for _ in range(ranks * size)]
    made = spread(padding, ranks, mini)
    assert sorted(made) == list(range(ranks * size))
    for rank in range(ranks):
        rows = made[rank * size : (rank + 1) * size]
        assert all(rank * size <= row < (rank + 1) * size for row in rows), "a row stays on its rank"
        real = [row for row in rows if not padding[row]]
        assert real == sorted(real), "real rows keep their order"
        counts = [sum(not padding[row] for row in rows[m * share : (m + 1) * share]) for m in range(mini)]
        assert max(counts) - min(counts) <= 1
        if len(real) >= mini:
            assert min(counts) >= 1, "no mini-batch of padding rows alone"


def test_without_padding_rows_nothing_moves() -> None:
    assert spread([False] * 12, 2, 3) == list(range(12))


def test_the_multiple_does_not_grow_with_the_rows() -> None:
    """verl's is mini_batch * n (here 32); a fork more must not be an optimizer step more."""
    assert multiple(1, 2, None, (None, None)) == 2
    assert multiple(8, 4, None, (None, None)) == 32
    assert multiple(1, 2, 4, (8, None)) == 8
    assert multiple(2, 3, 4, (5, None)) == 120


def test_rows_are_ordered_by_prompt_session_and_index_as_numbers() -> None:
    keys = ["00000001p000001_10_0", "00000001p000000_2_0", "00000001p000001_9_1", "00000001p000001_9_0"]
    assert [keys[place] for place in order(keys)] == [keys[1], keys[3], keys[2], keys[0]]
