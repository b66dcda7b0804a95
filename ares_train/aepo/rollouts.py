"""The rollouts of one training step, as AEPO sees them: dense arrays of B rows and T response positions.

Only real rows: a trainer that pads its batch to a multiple leaves the padding rows out before it builds Rollouts, or
they would count as wrong answers in means, bins and variances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Rollouts:
    """B rollouts; ``rollouts(...)`` makes and checks one.

    ``entropy`` f32[B, T]: nats, of the distribution each token was sampled from. ``mask`` bool[B, T]: tokens that the
    model wrote (neither padding nor a tool's words); a fork's inherited prefix is in it. ``own`` bool[B, T]: ``mask``
    without that prefix. ``correct`` f32[B]: 1 right, 0 wrong. ``question`` i64[B]: equal values answer one question.
    ``base`` bool[B]: sampled from the prompt alone, not a fork (fresh samples that fill a budget are base rows).
    ``parent`` i64[B]: row of this batch that a fork continues, -1 for base rows; ``fork_at`` i64[B]: tokens it
    inherited. ``truncated`` bool[B]: cut off at the length limit. ``trigger`` bool[B, T] or None: tokens of trigger
    words. ``scores`` f32[B] or None: the stock rewards, ``correct`` where None. ``rollout_quantile`` f64[B] or None:
    the quantile of each rollout's entropies by the estimator that branching uses, NaN where it was not measured.
    """

    entropy: Array
    mask: Array
    own: Array
    correct: Array
    question: Array
    base: Array
    parent: Array
    fork_at: Array
    truncated: Array
    trigger: Array | None = None
    scores: Array | None = None
    rollout_quantile: Array | None = None

    @property
    def rows(self) -> int:
        """B."""
        return len(self.correct)

    def lengths(self) -> Array:
        """i64[B]: tokens of each answer, an inherited prefix included."""
        return np.asarray(np.count_nonzero(self.mask, axis=1))


def rollouts(
    entropy: Array,
    mask: Array,
    correct: Array,
    question: Array,
    *,
    parent: Array | None = None,
    fork_at: Array | None = None,
    truncated: Array | None = None,
    trigger: Array | None = None,
    scores: Array | None = None,
    rollout_quantile: Array | None = None,
) -> Rollouts:
    """Rollouts from arrays, in the types named there; ``own`` and ``base`` follow from ``parent`` and ``fork_at``.

    ValueError where shapes disagree, ``correct`` is other than 0 and 1, a parent is no base row of the same question,
    or a fork inherits nothing.
    """
    entropy = np.asarray(entropy, dtype=np.float32)
    if entropy.ndim != 2:
        raise ValueError(f"entropy must have two dimensions (rows, tokens), not {entropy.ndim}")
    rows = len(entropy)
    mask = np.asarray(mask, dtype=np.bool_)
    parent = np.full(rows, -1, dtype=np.int64) if parent is None else np.asarray(parent, dtype=np.int64)
    fork_at = np.zeros(rows, dtype=np.int64) if fork_at is None else np.asarray(fork_at, dtype=np.int64)
    base = parent < 0
    own = mask
    if not base.all() and mask.shape == entropy.shape:
        own = mask.copy()
        for row in np.flatnonzero(~base).tolist():
            own[row, : fork_at[row]] = False
    made = Rollouts(
        entropy=entropy,
        mask=mask,
        own=own,
        correct=np.asarray(correct, dtype=np.float32),
        question=np.asarray(question, dtype=np.int64),
        base=base,
        parent=parent,
        fork_at=fork_at,
        truncated=np.zeros(rows, dtype=np.bool_) if truncated is None else np.asarray(truncated, dtype=np.bool_),
        trigger=None if trigger is None else np.asarray(trigger, dtype=np.bool_),
        scores=None if scores is None else np.asarray(scores, dtype=np.float32),
        rollout_quantile=None if rollout_quantile is None else np.asarray(rollout_quantile, dtype=np.float64),
    )
    _check(made)
    return made


def _check(made: Rollouts) -> None:
    """ValueError for what ``rollouts`` promises to refuse."""
    rows, tokens = made.entropy.shape
    for name in ("mask", "trigger"):
        value = getattr(made, name)
        if value is not None and value.shape != (rows, tokens):
            raise ValueError(f"{name} has shape {value.shape}, entropy {(rows, tokens)}")
    for name in ("correct", "question", "parent", "fork_at", "truncated", "scores", "rollout_quantile"):
        value = getattr(made, name)
        if value is not None and value.shape != (rows,):
            raise ValueError(f"{name} has shape {value.shape}, not ({rows},)")
    if not np.isin(made.correct, (0.0, 1.0)).all():
        raise ValueError("correct must be 0 or 1 in every row; a score of another kind goes into scores")
    if made.scores is not None and not np.isfinite(made.scores).all():
        raise ValueError("a stock reward (scores) is not finite")
    forks = np.flatnonzero(~made.base)
    parents = made.parent[forks]
    if (parents >= rows).any():
        raise ValueError(f"a fork's parent lies beyond the {rows} rows of the batch")
    if not made.base[parents].all() or (made.question[parents] != made.question[forks]).any():
        raise ValueError("a fork's parent must be a base row of the same question")
    if (made.fork_at[forks] < 1).any() or (made.fork_at[forks] > tokens).any() or made.fork_at[made.base].any():
        raise ValueError(f"a fork inherits 1 to {tokens} tokens, a base row none")
