"""How a step's rows are cut into mini-batches when their number varies: pure arithmetic over row numbers.

Forks make batches ragged. verl pads rows up to a multiple of ``ppo_mini_batch_size * n`` and takes one optimizer step
for each such slice, so that one fork more would be one optimizer step more, on one real row. Here the *number* of
mini-batches is what is constant: rows are padded only to the ranks, mini-batches and micro-batches, and padding rows
are spread so that no mini-batch consists of them. With as many rows as verl expects, everything is as verl has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def order(keys: Sequence[str]) -> list[int]:
    """Places of ``keys`` (``uid_session_index``) by uid, session and index: rows arrive in the order they finished
    in."""

    def place(number: int) -> tuple[str, int, int]:
        uid, session, index = keys[number].rsplit("_", 2)
        return uid, int(session), int(index)

    return sorted(range(len(keys)), key=place)


def multiple(ranks: int, mini_batches: int, micro_batch: int | None, inference: Sequence[int | None]) -> int:
    """What the number of rows must be a multiple of.

    ``micro_batch``: rows of a training micro-batch on one rank, ``inference``: those of the log-prob passes; None where
    verl packs micro-batches by tokens.
    """
    per_rank = mini_batches * (micro_batch or 1)
    return ranks * math.lcm(per_rank, *(rows for rows in inference if rows))


def spread(padding: Sequence[bool], ranks: int, mini_batches: int) -> list[int]:
    """A new order of rows with the padding rows dealt evenly to the mini-batches of each rank.

    ``padding`` [N] tells padding rows; rank r has the r-th of ``ranks`` equal slices, mini-batch m the m-th part of
    each. Real rows stay in their rank and in their order. Without padding rows the order is unchanged.
    """
    size = len(padding) // ranks
    share = size // mini_batches
    made: list[int] = []
    for rank in range(ranks):
        rows = range(rank * size, (rank + 1) * size)
        real = [row for row in rows if not padding[row]]
        empty = [row for row in rows if padding[row]]
        for batch in range(mini_batches):
            # What is left of the real rows, divided by the mini-batches that are left.
            count = min(share, -(-len(real) // (mini_batches - batch)))
            made += real[:count] + empty[: share - count]
            real, empty = real[count:], empty[share - count :]
    return made
