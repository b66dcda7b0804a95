"""tau_high, the entropy from which a window counts as high (paper equation 3 and its variants), over dense batches.

The quantile interpolates linearly, as numpy's does. Thresholds and the values compared with them must come from the
same estimate of entropy: the exact one of the old-log-prob pass here, the engine's own in ``rollout_quantile``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ares_eval.analysis.entropy import full_windows
from ares_eval.analysis.ragged import Ragged, row_quantiles
from ares_eval.analysis.windows import window_means
from ares_train.aepo.config import WindowConfig
from ares_train.aepo.rollouts import Array, Rollouts
from ares_train.aepo.windows import by_row, chunks, spans


def tau_high(rollouts: Rollouts, config: WindowConfig) -> float:
    """The batch's threshold in nats; NaN where no row has a token (or, for ``quantile_of=window``, a full window).

    ``mean`` and ``median`` are over the rollouts' own quantiles, ``pooled`` is the quantile of all their tokens. Rows:
    base rollouts, or all with ``rows=all``, where a fork speaks for its own tokens only.
    """
    rows = rollouts.base if config.rows == "base" else np.ones(rollouts.rows, dtype=np.bool_)
    if config.reduce == "pooled":
        return _pooled(rollouts, rows, config)
    quantiles = np.full(rollouts.rows, np.nan)
    for part in chunks(rollouts.own.shape):
        mask = rollouts.own[part] & rows[part][:, None]
        values, lengths = _measured(rollouts.entropy[part], mask, config)
        quantiles[part] = row_quantiles(_of_lengths(values, lengths), config.quantile)
    return centre(quantiles, config)


def centre(quantiles: Array, config: WindowConfig) -> float:
    """One threshold of rollouts' quantiles, NaN among them left out; NaN where there is none."""
    known = quantiles[~np.isnan(quantiles)]
    if not len(known):
        return float("nan")
    return float(np.median(known) if config.reduce == "median" else np.mean(known))


def rollout_quantile(entropy: Sequence[float] | Array, config: WindowConfig) -> float:
    """A single answer's quantile, for a worker that has just sampled it; NaN where it has none.

    ``entropy``: (T,) nats, NaN at tokens that the model did not write.
    """
    values = np.asarray(entropy, dtype=np.float64)[None]
    written, lengths = _measured(values, ~np.isnan(values), config)
    return float(row_quantiles(_of_lengths(written, lengths), config.quantile)[0])


def group_tau(entropies: Sequence[Array], config: WindowConfig) -> float:
    """tau_high of one question's rollouts alone (paper algorithm 1), the threshold of the first step; NaN for none."""
    return centre(np.array([rollout_quantile(entropy, config) for entropy in entropies]), config)


def _measured(entropy: Array, mask: Array, config: WindowConfig) -> tuple[Array, Array]:
    """(values, how many each row has): what the quantile is taken of, token entropies or means of full windows."""
    tokens = spans(entropy, mask)
    if config.quantile_of == "token":
        return tokens.values, np.count_nonzero(mask, axis=1)
    full = ~np.isnan(window_means(tokens, config.size).values)
    kept = np.zeros(mask.shape, dtype=np.bool_)
    kept[mask] = full
    return full_windows(tokens, config.size).values, np.diff(by_row(full, kept).offsets)


def _of_lengths(values: Array, lengths: Array) -> Ragged:
    """``values`` cut into rows of these lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Ragged(values, offsets)


def _pooled(rollouts: Rollouts, rows: Array, config: WindowConfig) -> float:
    """The quantile of all rows' values together; kept in float32, the precision that entropies arrive in."""
    values = np.empty(int(np.count_nonzero(rollouts.own[rows])), dtype=np.float32)
    filled = 0
    for part in chunks(rollouts.own.shape):
        mask = rollouts.own[part] & rows[part][:, None]
        measured = _measured(rollouts.entropy[part], mask, config)[0]
        values[filled : filled + len(measured)] = measured
        filled += len(measured)
    values = values[:filled]
    if not len(values):
        return float("nan")
    at = config.quantile * (len(values) - 1)
    below, above = int(np.floor(at)), int(np.ceil(at))
    values.partition((below, above))
    low, high = float(values[below]), float(values[above])
    return low + (at - below) * (high - low)
