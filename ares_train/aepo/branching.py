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


@dataclass(frozen=True, slots=True)
class BranchPlan:
    """One fork: rollout ``parent`` of the prompt, continued after its first ``position`` tokens; ``score`` is the
    highest window mean of the window that is forked, in nats."""

    parent: int
    position: int
    score: float


def plan_branches(
    entropy: Sequence[Array],
    tau: float | None,
    branch: BranchConfig,
    window: WindowConfig,
    response_length: int,
    truncated: Sequence[bool],
) -> list[BranchPlan]:
    """Forks of one prompt's base rollouts, by falling score (then parent, position).

    ``entropy``: each rollout's (T_i,) in nats by the rollout's own estimate, NaN at tokens the model did not write.
    ``tau``: threshold by the same estimate; None or NaN plans nothing. ``response_length``: most tokens of an answer.
    ``truncated``: rollouts that were cut off; they are not forked unless ``from_truncated``.
    """
    if len(entropy) != len(truncated):
        raise ValueError(f"{len(entropy)} rollouts, but {len(truncated)} marks of truncation")
    if branch.mode == "off" or tau is None or np.isnan(tau) or not len(entropy):
        return []
    batch = ragged(list(entropy))
    means = window_means(batch, window.size)
    merged = merged_windows(batch.with_values(means.values >= tau), window.size)
    candidates = []
    for row, first, last in zip(merged.row.tolist(), merged.first.tolist(), merged.last.tolist(), strict=True):
        run = means.row(row)[first : last + 1]
        position = first if branch.position == "first" else first + int(np.argmax(run))
        fits = branch.min_prefix <= position <= response_length - branch.min_new_tokens
        if fits and (branch.from_truncated or not truncated[row]):
            candidates.append(BranchPlan(row, position, float(run.max())))
    candidates.sort(key=lambda plan: (-plan.score, plan.parent, plan.position))
    room = min(branch.max_per_prompt, max(branch.max_trajectories - len(entropy), 0))
    chosen: list[BranchPlan] = []
    used: Counter[int] = Counter()
    for plan in candidates:
        if len(chosen) < room and used[plan.parent] < branch.max_per_rollout:
            chosen.append(plan)
            used[plan.parent] += 1
    return chosen


def top_up(base: int, forks: int, branch: BranchConfig) -> int:
    """Fresh samples that fill a prompt's budget: rows are exactly ``max_trajectories`` in ``budget``, else none."""
    return max(branch.max_trajectories - base - forks, 0) if branch.mode == "budget" else 0
