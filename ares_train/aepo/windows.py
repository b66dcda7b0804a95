"""Windows of entropy over dense batches: means, flags, and the valid windows of paper equation 10.

Hbar_{t:w} is the mean of tokens t .. t + w - 1 (paper equation 2). Only full windows count, and a window lies inside
one span of generated tokens: what a tool or a user said in between breaks it. The arithmetic is ares_eval.analysis's,
over the spans of a few rows at a time, so that a batch of 4,096 x 16,384 tokens needs little more memory than its
results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ares_eval.analysis.hwe import confirmed_by
from ares_eval.analysis.ragged import Ragged, row_sums
from ares_eval.analysis.windows import Windows, covered, merged_windows, window_means
from ares_train.aepo.config import WindowConfig
from ares_train.aepo.rollouts import Array, Rollouts

CHUNK_TOKENS = 1 << 20
"""Positions looked at together: some ten arrays of them in float64 are 80 MB, and larger ones are no faster."""


@dataclass(frozen=True, slots=True)
class Flags:
    """Where entropy is high in B rollouts of T positions.

    ``flagged`` bool[B, T]: starts of windows whose mean reaches tau_high. ``valid`` bool[B, T]: W_valid, tokens.
    i64[B] each: ``n_he``, the count that the reward uses; ``starts``, flagged positions; ``covered``, tokens inside
    flagged windows; ``windows``, merged windows.
    """

    flagged: Array
    valid: Array
    n_he: Array
    starts: Array
    covered: Array
    windows: Array


def chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows that hold about CHUNK_TOKENS positions each."""
    rows, tokens = shape
    step = max(1, CHUNK_TOKENS // max(tokens, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def spans(values: Array, mask: Array) -> Ragged:
    """The generated tokens of some rows in order, as a Ragged whose rows are the spans of ``mask``; float64.

    A span is a maximal run of generated tokens in one row.
    """
    begins = mask.copy()
    begins[:, 1:] &= ~mask[:, :-1]
    starts = np.flatnonzero(begins[mask])
    inside = values[mask]
    if inside.dtype != np.bool_:
        inside = inside.astype(np.float64)
    return Ragged(inside, np.append(starts, len(inside)))


def by_row(values: Array, mask: Array) -> Ragged:
    """The same tokens as ``spans``, one row of the Ragged for each row of ``mask``; ``values`` is flat already."""
    offsets = np.zeros(len(mask) + 1, dtype=np.int64)
    np.cumsum(np.count_nonzero(mask, axis=1), out=offsets[1:])
    return Ragged(values, offsets)


def window_mean(entropy: Array, mask: Array, w: int) -> tuple[Array, Array]:
    """(Hbar f64[B, T], full bool[B, T]): the mean of tokens t .. t + w - 1, and where all of them lie in one span of
    ``mask``; Hbar is 0 elsewhere. ValueError for a window outside 1 .. 64."""
    means = np.zeros(entropy.shape, dtype=np.float64)
    full = np.zeros(entropy.shape, dtype=np.bool_)
    for part in chunks(entropy.shape):
        tokens = window_means(spans(entropy[part], mask[part]), w).values
        known = ~np.isnan(tokens)
        full[part][mask[part]] = known
        means[part][mask[part]] = np.where(known, tokens, 0.0)
    return means, full


def flags(rollouts: Rollouts, tau: float, config: WindowConfig) -> Flags:
    """Everything that the threshold ``tau`` (nats; NaN flags nothing) makes of the batch.

    Counts are over the whole answer, a fork's inherited prefix included: it is the trajectory's exploration. ValueError
    where a ``trigger`` mode is asked for and the rollouts have no trigger marks.
    """
    if rollouts.trigger is None and "trigger" in (config.count_mode, config.valid_mode):
        raise ValueError("window.count_mode or valid_mode is trigger, but the rollouts carry no trigger-word marks")
    shape = rollouts.mask.shape
    flagged, valid = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    counts = {name: np.zeros(rollouts.rows, dtype=np.int64) for name in ("n_he", "starts", "covered", "windows")}
    forked = fork_points(rollouts) if config.valid_mode == "branched" else None
    for part in chunks(shape):
        mask = rollouts.mask[part]
        entropy = spans(rollouts.entropy[part], mask)
        if not np.isfinite(entropy.values).all():
            raise ValueError(f"an entropy of a generated token is not finite (rows {part.start} to {part.stop - 1})")
        high = entropy.with_values(window_means(entropy, config.size).values >= tau)
        merged = merged_windows(high, config.size)
        inside = covered(high, config.size)
        trigger = None if rollouts.trigger is None else entropy.with_values(rollouts.trigger[part][mask])
        flagged[part][mask] = high.values
        if config.valid_mode == "window":
            valid[part][mask] = inside.values
        elif config.valid_mode == "confirmed":
            own = high.with_values(high.values & (entropy.values >= tau))
            valid[part][mask] = covered(own, config.size).values
        else:
            marks = trigger if config.valid_mode == "trigger" else entropy.with_values(_within(forked, part, mask))
            assert marks is not None
            chosen = confirmed_by(merged, marks) if config.valid_mode == "trigger" else _holding(merged, marks)
            valid[part][mask] = _tokens_of(merged, chosen, entropy)
        counts["starts"][part] = row_sums(by_row(high.values, mask))
        counts["covered"][part] = row_sums(by_row(inside.values, mask))
        counts["windows"][part] = row_sums(by_row(_firsts(merged, entropy), mask))
        if config.count_mode == "token":
            counts["n_he"][part] = row_sums(by_row(entropy.values >= tau, mask))
        elif config.count_mode == "trigger" and trigger is not None:
            counts["n_he"][part] = row_sums(by_row((entropy.values >= tau) & trigger.values, mask))
        else:
            counts["n_he"][part] = counts[config.count_mode][part]
    return Flags(flagged, valid, **counts)


def fork_points(rollouts: Rollouts) -> tuple[Array, Array]:
    """(rows, positions) of the tokens at which a fork was made: once in its parent, once in the fork itself."""
    forks = np.flatnonzero(~rollouts.base)
    at = rollouts.fork_at[forks]
    return np.concatenate([rollouts.parent[forks], forks]), np.concatenate([at, at])


def _within(points: tuple[Array, Array] | None, part: slice, mask: Array) -> Array:
    """Marks of ``points`` (whole batch) on the generated tokens of the rows ``part``."""
    marks = np.zeros(mask.shape, dtype=np.bool_)
    if points is not None:
        rows, at = points
        here = (rows >= part.start) & (rows < part.stop) & (at < mask.shape[1])
        marks[rows[here] - part.start, at[here]] = True
    return np.asarray(marks[mask])


def _holding(merged: Windows, marks: Ragged) -> Array:
    """(M,) bool: whether a marked token stands in each merged window."""
    before = np.concatenate([[0], np.cumsum(marks.values, dtype=np.int64)])
    base = marks.offsets[merged.row]
    return np.asarray(before[base + merged.stop] > before[base + merged.first])


def _tokens_of(merged: Windows, chosen: Array, batch: Ragged) -> Array:
    """(N,) bool: tokens inside the chosen merged windows. Windows of one span may overlap by w - 1 tokens."""
    edges = np.zeros(len(batch.values) + 1, dtype=np.int64)
    base = batch.offsets[merged.row[chosen]]
    np.add.at(edges, base + merged.first[chosen], 1)
    np.add.at(edges, base + merged.stop[chosen], -1)
    return np.asarray(np.cumsum(edges[:-1]) > 0)


def _firsts(merged: Windows, batch: Ragged) -> Array:
    """(N,) bool: the first position of every merged window."""
    marks = np.zeros(len(batch.values), dtype=np.bool_)
    marks[batch.offsets[merged.row] + merged.first] = True
    return marks
