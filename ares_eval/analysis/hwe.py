"""High-window-entropy (HWE) positions: where the mean entropy of the next w tokens reaches tau_high.

The default counts positions t with Hbar_{t:w} >= tau_high (paper algorithm 1: ">=", full windows only). Runs of such
positions merge into one window; a window is *confirmed* where a trigger word (words.py) stands in it or right before
it, which is the only meaning of "validated" that paper and code make concrete. Two further definitions go by name:
``token`` counts single trigger tokens at or above tau (appendix H), ``released`` counts trigger tokens whose
*following* w tokens reach tau, as the released code does (it looks at the most probable token; a trace holds the
sampled one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.analysis.ragged import Ragged, first_true, row_sums
from ares_eval.analysis.windows import Windows, covered, merged_windows, window_means

if TYPE_CHECKING:
    import numpy as np

COUNTS = ("window", "token", "released")
"""Names of the definitions of an HWE position."""

DEFAULT_WINDOW = 4
"""Tokens; the released code's window, and the low end of the paper's recommendation of 4 to 8."""


@dataclass(frozen=True, slots=True)
class Hwe:
    """HWE of B replies; arrays of shape (B,) but for ``flagged`` (ragged, N bools) and ``merged``.

    ``positions``: N_HE, the number of flagged positions. ``windows``: merged windows. ``confirmed_windows`` and
    ``confirmed_positions``: those with a trigger word; None where no words were given. ``first``: place of the first
    flagged position, -1 for none. ``covered``: tokens inside a window. ``tokens``: length T of each reply.
    """

    flagged: Ragged
    merged: Windows
    tokens: np.ndarray
    positions: np.ndarray
    windows: np.ndarray
    covered: np.ndarray
    first: np.ndarray
    confirmed_windows: np.ndarray | None
    confirmed_positions: np.ndarray | None

    @property
    def density(self) -> np.ndarray:
        """(B,) flagged positions per token; NaN for an empty reply."""
        import numpy as np

        shares = np.full(len(self.tokens), np.nan)
        np.divide(self.positions, self.tokens, out=shares, where=self.tokens > 0)
        return shares


def flag(entropy: Ragged, tau: np.ndarray, *, w: int, count: str = "window", triggers: Ragged | None = None) -> Ragged:
    """(N,) bool: the HWE positions of each reply, by the definition called ``count``.

    ``tau`` (B,) in nats, from the same estimate of entropy; NaN flags nothing. ``triggers`` (N,) bool marks tokens of
    trigger words, needed by ``token`` and ``released``: ValueError without it, and for another name.
    """
    import numpy as np

    if count not in COUNTS:
        raise ValueError(f"no HWE count {count!r}; there are {', '.join(COUNTS)}")
    limit = np.repeat(np.asarray(tau, dtype=np.float64), entropy.lengths)
    if count == "window":
        return entropy.with_values(window_means(entropy, w).values >= limit)
    if triggers is None:
        raise ValueError(f"the HWE count {count!r} needs trigger words")
    if count == "token":
        return entropy.with_values((entropy.values >= limit) & triggers.values)
    means = np.full(len(entropy.values), np.nan)
    means[:-1] = window_means(entropy, w).values[1:]
    last = entropy.offsets[1:][entropy.lengths > 0] - 1
    means[last] = np.nan  # what follows a reply's last token is another reply
    return entropy.with_values((means >= limit) & triggers.values)


def hwe(
    entropy: Ragged, tau: np.ndarray, *, w: int = DEFAULT_WINDOW, count: str = "window", triggers: Ragged | None = None
) -> Hwe:
    """All HWE numbers of a batch; arguments as for ``flag``."""
    import numpy as np

    flagged = flag(entropy, tau, w=w, count=count, triggers=triggers)
    span = w if count == "window" else 1
    merged = merged_windows(flagged, span)
    rows = entropy.rows
    confirmed_windows = confirmed_positions = None
    if triggers is not None:
        confirmed = confirmed_by(merged, triggers)
        confirmed_windows = np.bincount(merged.row[confirmed], minlength=rows)
        sizes = (merged.last - merged.first + 1)[confirmed]
        confirmed_positions = np.bincount(merged.row[confirmed], weights=sizes, minlength=rows).astype(np.int64)
    return Hwe(
        flagged=flagged,
        merged=merged,
        tokens=entropy.lengths,
        positions=row_sums(flagged),
        windows=np.bincount(merged.row, minlength=rows),
        covered=row_sums(covered(flagged, span)),
        first=first_true(flagged),
        confirmed_windows=confirmed_windows,
        confirmed_positions=confirmed_positions,
    )


def confirmed_by(merged: Windows, triggers: Ragged) -> np.ndarray:
    """(M,) bool: whether a token of a trigger word stands in each merged window or right before its first token."""
    import numpy as np

    base = triggers.offsets[merged.row]
    before = np.concatenate([[0], np.cumsum(triggers.values, dtype=np.int64)])
    found: np.ndarray = before[base + merged.stop] > before[base + np.maximum(merged.first - 1, 0)]
    return found
