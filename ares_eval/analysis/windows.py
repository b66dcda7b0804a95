"""Sliding windows over token entropy, and the runs of positions whose window is high.

The window of position t is t .. t + w - 1 (paper equation 2): it looks forward and contains t. Only full windows count;
the last w - 1 positions of a reply have none. Sums of up to 64 float32 entropies are exact in float64 for all practical
values, so a mean does not depend on the order of summation and ``mean >= threshold`` is reproducible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.analysis.ragged import Ragged

if TYPE_CHECKING:
    import numpy as np

LARGEST = 64
"""The longest window, in tokens; the paper studies 1 to 32 and recommends 4 to 8."""


def window_means(entropy: Ragged, w: int) -> Ragged:
    """Mean of tokens t .. t + w - 1 at each position t, in the entropy's unit; NaN where the window is not full.

    ValueError for a window outside 1 .. 64.
    """
    import numpy as np

    check_window(w)
    values = entropy.values.astype(np.float64, copy=False)
    if w == 1:
        return entropy.with_values(values)
    means = _window_sums(values, w)
    means /= w
    means[~has_window(entropy, w)] = np.nan
    return entropy.with_values(means)


def has_window(batch: Ragged, w: int) -> np.ndarray:
    """(N,) bool: whether a full window of w tokens begins at each position."""
    import numpy as np

    full = np.zeros(len(batch.values) + 1, dtype=np.int8)
    lengths = batch.lengths
    starts = batch.offsets[:-1][lengths >= w]
    full[starts] = 1
    ends = batch.offsets[1:][lengths >= w] - w + 1
    # A row's end may be the next row's start where w is 1: there the two marks cancel, as they must.
    np.subtract.at(full, ends, 1)
    return np.cumsum(full[:-1], dtype=np.int8).view(np.bool_)


def check_window(w: int) -> None:
    """ValueError where ``w`` is no length of a window."""
    if not 1 <= w <= LARGEST:
        raise ValueError(f"a window has 1 to {LARGEST} tokens, not {w}")


def _window_sums(values: np.ndarray, w: int) -> np.ndarray:
    """Sum of values[t : t + w] at every t, over the flat array, by doubling: log2(w) additions instead of w."""
    import numpy as np

    total: np.ndarray | None = None
    power, doubled, shift = 1, values, 0
    rest = w
    while rest:
        if rest & 1:
            if total is None:
                total = doubled.copy()
            else:
                total[: max(len(total) - shift, 0)] += doubled[shift:]
            shift += power
        rest >>= 1
        if rest:
            following = doubled.copy()
            following[:-power] += doubled[power:]
            doubled, power = following, 2 * power
    return np.zeros(0) if total is None else total


@dataclass(frozen=True, slots=True)
class Windows:
    """Merged windows of a batch, M in all, in order. All arrays have shape (M,).

    ``row``: the reply. ``first``, ``last``: first and last flagged position, within the reply. The window covers the
    tokens ``first`` .. ``last + w - 1``; ``stop`` is the position after its last token.
    """

    row: np.ndarray
    first: np.ndarray
    last: np.ndarray
    stop: np.ndarray


def merged_windows(flagged: Ragged, w: int) -> Windows:
    """Maximal runs of flagged positions, each with the tokens that its windows cover; cut at the reply's end."""
    import numpy as np

    owners = flagged.owners()
    marked = flagged.values.astype(np.bool_, copy=False)
    before = np.zeros_like(marked)
    before[1:] = marked[:-1] & (owners[1:] == owners[:-1])
    after = np.zeros_like(marked)
    after[:-1] = marked[1:] & (owners[1:] == owners[:-1])
    starts = np.flatnonzero(marked & ~before)
    ends = np.flatnonzero(marked & ~after)
    row = owners[starts]
    base = flagged.offsets[row]
    last = ends - base
    return Windows(row, starts - base, last, np.minimum(last + w, flagged.lengths[row]))


def covered(flagged: Ragged, w: int) -> Ragged:
    """(N,) bool: tokens that lie in the window of a flagged position."""
    import numpy as np

    windows = merged_windows(flagged, w)
    base = flagged.offsets[windows.row]
    marks = np.zeros(len(flagged.values) + 1, dtype=np.int64)
    np.add.at(marks, base + windows.first, 1)
    np.add.at(marks, base + windows.stop, -1)
    return flagged.with_values(np.cumsum(marks[:-1]) > 0)
