"""Ragged batches: the token values of many replies in one flat array, with the offsets of each reply.

Everything that looks at tokens works on a Ragged, so a batch costs a few passes over flat arrays and no Python loop
over tokens. Rows may be empty. Nothing here reads files or knows records; training code may use it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Ragged:
    """B rows in one array. ``values`` (N,): row b is ``values[offsets[b]:offsets[b + 1]]``; ``offsets`` (B + 1,)."""

    values: np.ndarray
    offsets: np.ndarray

    @property
    def rows(self) -> int:
        """B."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(B,) number of values in each row."""
        import numpy as np

        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        """The values of one row, a view."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def owners(self) -> np.ndarray:
        """(N,) the row that each value lies in."""
        import numpy as np

        return np.repeat(np.arange(self.rows), self.lengths)

    def positions(self) -> np.ndarray:
        """(N,) the place of each value in its row, from 0."""
        import numpy as np

        places: np.ndarray = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.lengths)
        return places

    def with_values(self, values: np.ndarray) -> Ragged:
        """Other values over the same rows; ValueError where their number differs."""
        if len(values) != len(self.values):
            raise ValueError(f"{len(values)} values for rows that hold {len(self.values)}")
        return Ragged(values, self.offsets)


def ragged(rows: Sequence[np.ndarray | Sequence[float]]) -> Ragged:
    """A Ragged of float64 from a list of rows."""
    import numpy as np

    arrays = [np.asarray(row, dtype=np.float64) for row in rows]
    offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    return Ragged(np.concatenate(arrays) if arrays else np.zeros(0), offsets)


def row_sums(batch: Ragged) -> np.ndarray:
    """(B,) sum of each row; 0 for an empty one. Booleans are counted."""
    import numpy as np

    values = batch.values.astype(np.int64) if batch.values.dtype == np.bool_ else batch.values
    sums = np.zeros(batch.rows, dtype=values.dtype)
    filled = batch.lengths > 0
    if filled.any():
        # Offsets of filled rows alone: reduceat would give an empty row the value that follows it.
        sums[filled] = np.add.reduceat(values, batch.offsets[:-1][filled])
    return sums


def first_true(batch: Ragged) -> np.ndarray:
    """(B,) place of the first true value of each row; -1 where there is none."""
    import numpy as np

    found = np.full(batch.rows, -1, dtype=np.int64)
    hits = np.flatnonzero(batch.values)
    owners = np.searchsorted(batch.offsets, hits, side="right") - 1
    # Assigned backwards, so that the first hit of a row is the one that stays.
    found[owners[::-1]] = (hits - batch.offsets[owners])[::-1]
    return found


def row_quantiles(batch: Ragged, q: float) -> np.ndarray:
    """(B,) the q-quantile of each row, interpolated linearly as numpy does; NaN for an empty row.

    Rows of like length (within a factor of 2) are sorted together as one padded matrix, so the cost is that of sorting
    and the memory at most twice the batch.
    """
    import numpy as np

    if not 0 <= q <= 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    lengths = batch.lengths
    result = np.full(batch.rows, np.nan)
    sizes = np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    for size in np.unique(sizes[lengths > 0]).tolist():
        chosen = np.flatnonzero((sizes == size) & (lengths > 0))
        n = lengths[chosen]
        columns = np.arange(int(n.max()))
        inside = columns < n[:, None]
        padded = np.full(inside.shape, np.inf)
        padded[inside] = batch.values[(batch.offsets[chosen][:, None] + columns)[inside]]
        padded.sort(axis=1)
        at = q * (n - 1)
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, n - 1)
        rows = np.arange(len(chosen))
        low, high = padded[rows, below], padded[rows, above]
        result[chosen] = low + (at - below) * (high - low)
    return result
