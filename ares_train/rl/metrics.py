"""What the trainer logs besides ares_train.aepo.metrics: the groups' forks, the rollout-time estimator, the KL by
class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ares_train.aepo.branching import SKIPPED
from ares_train.aepo.difficulty import BINS
from ares_train.rl.fields import KL_CLASSES, RECORD
from ares_train.rl.rows import Batch

KL_PREFIX = "actor/ares_kl/"
"""verl's names of what the loss sums (ares_train.rl.loss)."""


def branch_metrics(tags: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Forks planned, failed and replaced by fresh samples, windows passed over by reason, and the seconds that planning
    and growing took a question, from the groups' tags; share of the forks' prompts that was in the server's cache."""
    groups = [tag[RECORD] for tag in tags if RECORD in tag and not tag.get("is_padding", False)]
    if not groups:
        return {}
    logged = {f"aepo/branch/{name}": float(sum(g[name] for g in groups)) for name in ("planned", "failed", "fresh")}
    for reason in SKIPPED:
        logged[f"aepo/branch/skipped_{reason}"] = float(sum(group[f"skipped_{reason}"] for group in groups))
    for part in ("plan", "grow"):
        logged[f"timing_s/aepo_{part}"] = float(np.mean([group[f"{part}_s"] for group in groups]))
    told = [record for record in records if record and not record["base"] and record["cached"] is not None]
    if told:
        cached, asked = (sum(record[name] for record in told) for name in ("cached", "asked"))
        logged["aepo/branch/cached_token_frac"] = cached / max(asked, 1)
    used = [group["tau"] for group in groups if group["tau"] is not None]
    if used:
        logged["aepo/tau/used_mean"] = float(np.mean(used))
    return logged


def estimator_metrics(batch: Batch) -> dict[str, float]:
    """How the rollout-time entropy fits the actor's exact one, over the answers that kept theirs: Pearson's
    correlation, mean difference (estimate minus exact, nats) and number of tokens."""
    pairs = []
    for number, record in enumerate(batch.records):
        estimate = record.get("entropy") if record else None
        if estimate is not None and len(estimate):
            exact = batch.rollouts.entropy[number, : len(estimate)]
            pairs.append((np.asarray(estimate, dtype=np.float64), exact.astype(np.float64)))
    if not pairs:
        return {}
    guessed = np.concatenate([pair[0] for pair in pairs])
    exact = np.concatenate([pair[1] for pair in pairs])
    logged = {
        "aepo/estimator/bias": float(np.mean(guessed - exact)),
        "aepo/estimator/tokens": float(len(exact)),
    }
    if len(exact) > 1 and guessed.std() > 0 and exact.std() > 0:
        logged["aepo/estimator/corr"] = float(np.corrcoef(guessed, exact)[0, 1])
    return logged


def kl_by_class(actor: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Take the loss's sums out of the actor's metrics: (KL f64[3, 2] in nats, tokens f64[3, 2]), bins by (outside,
    inside windows), per mini-batch. Zeros where verl's own loss ran."""
    kl = [float(actor.pop(f"{KL_PREFIX}kl_{index}", 0.0)) for index in range(1, KL_CLASSES + 1)]
    tokens = [float(actor.pop(f"{KL_PREFIX}tokens_{index}", 0.0)) for index in range(1, KL_CLASSES + 1)]
    return np.array(kl).reshape(3, 2), np.array(tokens).reshape(3, 2)


def weighted_kl(actor: dict[str, Any]) -> float:
    """Take the weighted KL out of the actor's metrics: summed over the trained tokens, nats, per mini-batch."""
    return float(actor.pop(f"{KL_PREFIX}weighted", 0.0))


def kl_metrics(kl: np.ndarray, tokens: np.ndarray, weighted: float) -> dict[str, float]:
    """Mean KL per token: ``weighted`` by the tokens' weights, else without: outside and inside windows, and of each bin
    outside windows."""
    logged = {}
    if tokens.sum():
        logged["aepo/kl/weighted"] = float(weighted / tokens.sum())
    for column, name in enumerate(("outside", "window")):
        if tokens[:, column].sum():
            logged[f"aepo/kl/{name}"] = float(kl[:, column].sum() / tokens[:, column].sum())
    for d, name in enumerate(BINS):
        if tokens[d, 0]:
            logged[f"aepo/kl/outside/{name}"] = float(kl[d, 0] / tokens[d, 0])
    return logged
