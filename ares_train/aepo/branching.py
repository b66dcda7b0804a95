"""Which rollouts of a prompt are forked, and where: at windows of high entropy, one fork a window (paper 3.2.1).

Pure and deterministic: the same entropies give the same plans, whatever the order in which answers came in. The paper
gives no numbers, so every cap is a setting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ares_eval.analysis.ragged import ragged
from ares_eval.analysis.windows import merged_windows, window_means
from ares_train.aepo.config import BranchConfig, WindowConfig
from ares_train.aepo.rollouts import Array

SKIPPED = ("prefix", "new_tokens", "truncated", "caps")
"""Why a high window is not forked: before ``min_prefix``, too few tokens left for ``min_new_tokens``, in a rollout that
was cut off, beyond the caps. A window counts under the first that holds."""


@dataclass(frozen=True, slots=True)
class BranchPlan:
    """One fork: rollout ``parent`` of the prompt, continued after its first ``position`` tokens; ``score`` is the
    highest window mean of the window that is forked, in nats."""

    parent: int
    position: int
    score: float


@dataclass(frozen=True, slots=True)
class Planned:
    """Forks of one prompt, by falling score (then parent, position), and how many high windows are not forked, by
    reason (all of SKIPPED)."""

    plans: list[BranchPlan]
    skipped: dict[str, int]


def plan_branches(
    entropy: Sequence[Array],
    tau: float | None,
    branch: BranchConfig,
    window: WindowConfig,
    response_length: int,
    truncated: Sequence[bool],
) -> Planned:
    """Forks of one prompt's base rollouts, and what was passed over.

    ``entropy``: each rollout's (T_i,) in nats by the rollout's own estimate, NaN at tokens the model did not write.
    ``tau``: threshold by the same estimate; None or NaN plans nothing. ``response_length``: most tokens of an answer.
    ``truncated``: rollouts that were cut off; they are not forked unless ``from_truncated``.
    """
    if len(entropy) != len(truncated):
        raise ValueError(f"{len(entropy)} rollouts, but {len(truncated)} marks of truncation")
    if branch.mode == "off" or tau is None or np.isnan(tau) or not len(entropy):
        return Planned([], dict.fromkeys(SKIPPED, 0))
    batch = ragged(list(entropy))
    means = window_means(batch, window.size)
    merged = merged_windows(batch.with_values(means.values >= tau), window.size)
    skipped = dict.fromkeys(SKIPPED, 0)
    candidates = []
    for row, first, last in zip(merged.row.tolist(), merged.first.tolist(), merged.last.tolist(), strict=True):
        run = means.row(row)[first : last + 1]
        position = first if branch.position == "first" else first + int(np.argmax(run))
        if position < branch.min_prefix:
            skipped["prefix"] += 1
        elif position > response_length - branch.min_new_tokens:
            skipped["new_tokens"] += 1
        elif truncated[row] and not branch.from_truncated:
            skipped["truncated"] += 1
        else:
            candidates.append(BranchPlan(row, position, float(run.max())))
    candidates.sort(key=lambda plan: (-plan.score, plan.parent, plan.position))
    room = min(branch.max_per_prompt, max(branch.max_trajectories - len(entropy), 0))
    chosen: list[BranchPlan] = []
    used: Counter[int] = Counter()
    for plan in candidates:
        if len(chosen) < room and used[plan.parent] < branch.max_per_rollout:
            chosen.append(plan)
            used[plan.parent] += 1
    skipped["caps"] = len(candidates) - len(chosen)
    return Planned(chosen, skipped)


def top_up(base: int, forks: int, branch: BranchConfig) -> int:
    """Fresh samples that fill a prompt's budget: rows are exactly ``max_trajectories`` in ``budget``, else none."""
    return max(branch.max_trajectories - base - forks, 0) if branch.mode == "budget" else 0
