"""Token entropy as it comes out of traces: which estimate, in which unit, and the thresholds made from it.

Entropies are in nats. A trace holds bounds of the full distribution's entropy (see inference/logprobs.py): ``low`` and
``high``. ``one_bucket`` is the estimate of the released training code, the top k plus one bucket for the missing mass;
``exact`` exists where a scorer went over the recorded tokens afterwards. A threshold and the values compared with it
must come from the same estimate, or the comparison means nothing.

tau_high has several definitions in the paper and its code; each has a name in THRESHOLDS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ares_eval.analysis.ragged import Ragged, row_quantiles
from ares_eval.analysis.windows import has_window, window_means

if TYPE_CHECKING:
    import numpy as np

    from ares_eval.types import TokenTrace

ESTIMATES = ("low", "high", "one_bucket", "exact")
"""Names of the estimates of a token's entropy."""

EXACT = "exact"
"""``TokenTrace.estimator`` of a trace whose entropies come from whole distributions; low and high are equal there."""

PERCENTILE = 95.0
"""The paper's: the top 5 % of a reply's tokens are high."""


class NoEstimate(ValueError):
    """A trace cannot give the estimate that was asked for; the message says why."""


def estimate(trace: TokenTrace, name: str) -> np.ndarray:
    """(T,) entropy of each token of ``trace`` by the estimate called ``name``, float64, nats.

    NoEstimate where the trace does not hold it (``high`` and ``one_bucket`` need the vocabulary's size), ValueError for
    another name.
    """
    import numpy as np

    if name not in ESTIMATES:
        raise ValueError(f"no estimate {name!r}; there are {', '.join(ESTIMATES)}")
    if name == "exact" and trace.estimator != EXACT:
        raise NoEstimate("entropies are bounds from the top log-probs; `ares-eval entropy` makes exact ones")
    low: np.ndarray = np.asarray(trace.entropy_low, dtype=np.float64)
    if name in ("low", "exact") or trace.estimator == EXACT:
        return low
    high: np.ndarray = np.asarray(trace.entropy_high, dtype=np.float64)
    if trace.vocabulary is None or np.isnan(high).any():
        raise NoEstimate("the vocabulary's size is not recorded (--vocabulary-size), so nothing bounds the tail")
    if name == "high":
        return np.asarray(high)
    # The upper bound spreads the tail r over V - k tokens, which adds r log(V - k) to the one bucket's entropy. Where
    # the sampled token was known besides the top k, that log is off by 1 / V.
    spread = np.asarray(trace.tail, dtype=np.float64) * np.log(max(trace.vocabulary - trace.top, 1))
    return np.asarray(np.maximum(high - spread, 0.0))


def one_bucket(probabilities: np.ndarray) -> np.ndarray:
    """(T,) entropy of the known ``probabilities`` (T, K; NaN: none) and one bucket for the rest, as the released code
    has it: -sum p log p - r log r. It is a lower bound of the full entropy, short by r times the tail's own entropy."""
    import numpy as np

    p = np.where(np.isnan(probabilities), 0.0, probabilities)
    p = np.concatenate([p, np.clip(1.0 - p.sum(axis=1, keepdims=True), 0.0, 1.0)], axis=1)
    terms: np.ndarray = p * np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(-terms.sum(axis=1))


# ---------------------------------------------------------------- thresholds

THRESHOLDS = {
    "paper": "mean over replies of the percentile of token entropy (equation 3, section 3.2.1)",
    "pooled": "percentile of all tokens of all replies together (appendix H)",
    "per_question": "mean over the replies to one question of the percentile of token entropy (algorithm 1)",
    "window_quantile": "mean over replies of the percentile of window means",
    "released": "median over replies of the percentile of the means of the w tokens after each position",
}
"""tau_high by name. The released code also smooths its threshold over training steps and pads the last positions; one
run has no steps, and padding is left out."""


def tau_high(
    entropy: Ragged, *, w: int, percentile: float = PERCENTILE, definition: str = "paper", question: np.ndarray
) -> np.ndarray:
    """(B,) the threshold that holds for each reply, in nats; NaN where there is none.

    ``question`` (B,): replies with equal values answer the same question (used by ``per_question`` only).
    ``percentile``: 0 to 100. ValueError for an unknown ``definition``, see THRESHOLDS.
    """
    import numpy as np

    if definition == "pooled":
        check_threshold(definition, percentile)
        values = entropy.values
        return np.full(entropy.rows, np.quantile(values, percentile / 100) if len(values) else np.nan)
    quantiles = reply_quantiles(entropy, w=w, percentile=percentile, definition=definition)
    return tau_of_quantiles(quantiles, definition, question)


def check_threshold(definition: str, percentile: float) -> None:
    """ValueError where there is no such threshold."""
    if definition not in THRESHOLDS:
        raise ValueError(f"no threshold {definition!r}; there are {', '.join(THRESHOLDS)}")
    if not 0 <= percentile <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {percentile}")


def reply_quantiles(entropy: Ragged, *, w: int, percentile: float, definition: str) -> np.ndarray:
    """(B,) each reply's own quantile, the first half of every threshold but ``pooled``; NaN where it has none.

    So a run of any size is read batch by batch; ``tau_of_quantiles`` puts the quantiles of all of them together.
    """
    check_threshold(definition, percentile)
    if definition == "window_quantile":
        entropy = full_windows(entropy, w)
    elif definition == "released":
        entropy = full_windows(following(entropy), w)
    return row_quantiles(entropy, percentile / 100)


def tau_of_quantiles(quantiles: np.ndarray, definition: str, question: np.ndarray) -> np.ndarray:
    """(B,) the threshold of each reply from the quantiles of all replies, see ``tau_high``."""
    import numpy as np

    known = ~np.isnan(quantiles)
    if definition == "per_question":
        _, group = np.unique(question, return_inverse=True)
        size = int(group.max(initial=-1)) + 1
        sums = np.bincount(group[known], weights=quantiles[known], minlength=size)
        counts = np.bincount(group[known], minlength=size)
        means = np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)
        return np.asarray(means[group])
    centre = np.median if definition == "released" else np.mean
    return np.full(len(quantiles), centre(quantiles[known]) if known.any() else np.nan)


def full_windows(entropy: Ragged, w: int) -> Ragged:
    """The means of the full windows alone: rows are shorter by w - 1."""
    import numpy as np

    means = window_means(entropy, w)
    kept = has_window(entropy, w)
    offsets = np.zeros_like(entropy.offsets)
    np.cumsum(np.maximum(entropy.lengths - w + 1, 0), out=offsets[1:])
    return Ragged(means.values[kept], offsets)


def following(entropy: Ragged) -> Ragged:
    """Rows without their first token: window t of it is window t + 1 of the whole."""
    import numpy as np

    lengths = entropy.lengths
    kept = np.ones(len(entropy.values), dtype=np.bool_)
    kept[entropy.offsets[:-1][lengths > 0]] = False
    offsets = np.zeros_like(entropy.offsets)
    np.cumsum(np.maximum(lengths - 1, 0), out=offsets[1:])
    return Ragged(entropy.values[kept], offsets)
