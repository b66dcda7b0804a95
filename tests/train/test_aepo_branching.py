"""ares_train.aepo.branching: what every plan must keep, and an enumeration of short rollouts."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from ares_train.aepo.branching import SKIPPED, BranchPlan, plan_branches, top_up
from ares_train.aepo.config import BranchConfig, WindowConfig
from tests.train import aepo_reference as oracle


def prompts(seed: int, count: int) -> Iterator[tuple[list[np.ndarray], list[bool], BranchConfig, WindowConfig, float]]:
    """Prompts' base rollouts with configurations; entropies on a grid, so that there are ties."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = int(rng.integers(1, 5))
        branch = BranchConfig(
            mode=("extra", "budget")[rng.integers(2)],
            max_per_rollout=int(rng.integers(1, 4)),
            max_per_prompt=int(rng.integers(1, 7)),
            max_trajectories=int(rng.integers(1, 13)),
            min_prefix=int(rng.integers(1, 4)),
            min_new_tokens=int(rng.integers(1, 6)),
            position=("first", "peak")[rng.integers(2)],
            from_truncated=bool(rng.integers(2)),
        )
        entropies = [rng.integers(0, 5, rng.integers(0, 13)).astype(np.float64) for _ in range(rows)]
        truncated = (rng.random(rows) < 0.2).tolist()
        yield (
            entropies,
            truncated,
            branch,
            WindowConfig(size=int(rng.integers(1, 4))),
            float(rng.choice([1.0, 2.0, 2.5])),
        )


@pytest.mark.parametrize("seed", range(4))
def test_plans_are_the_best_windows_that_the_caps_admit(seed: int) -> None:
    several = 0
    for entropies, truncated, branch, window, tau in prompts(seed, 100):
        limit = 12
        plans = plan_branches(entropies, tau, branch, window, limit, truncated).plans
        assert plans == expected_plans(entropies, truncated, branch, window, tau, limit)
        assert plans == plan_branches(entropies, tau, branch, window, limit, truncated).plans
        several += len({plan.parent for plan in plans}) > 1
        fresh = top_up(len(entropies), len(plans), branch)
        if branch.mode == "budget" and len(entropies) <= branch.max_trajectories:
            assert len(entropies) + len(plans) + fresh == branch.max_trajectories
        elif branch.mode == "extra":
            assert fresh == 0
    assert several > 10  # or the order between rollouts would go untested


def expected_plans(
    entropies: list[np.ndarray],
    truncated: list[bool],
    branch: BranchConfig,
    window: WindowConfig,
    tau: float,
    limit: int,
) -> list[BranchPlan]:
    """By loops: every window that fits, best first, until a cap is reached."""
    candidates = []
    for row, entropy in enumerate(entropies):
        means = oracle.window_means(entropy[None], np.ones((1, len(entropy)), dtype=bool), window.size)[0]
        flagged = [mean is not None and mean >= tau for mean in means]
        for first, last, _ in oracle.runs(flagged, [True] * len(entropy), window.size):
            run = [mean for mean in means[first : last + 1] if mean is not None]
            position = first if branch.position == "first" else first + run.index(max(run))
            room = position >= branch.min_prefix and limit - position >= branch.min_new_tokens
            if room and (branch.from_truncated or not truncated[row]):
                candidates.append((-max(run), row, position))
    expected: list[BranchPlan] = []
    for score, row, position in sorted(candidates):
        if sum(plan.parent == row for plan in expected) == branch.max_per_rollout:
            continue
        if len(expected) == branch.max_per_prompt or len(expected) + len(entropies) >= branch.max_trajectories:
            break
        expected.append(BranchPlan(row, position, -score))
    return expected


def test_one_fork_a_window_for_every_pattern_of_twelve() -> None:
    branch = BranchConfig(mode="extra", max_per_rollout=99, max_per_prompt=99, max_trajectories=99, min_new_tokens=1)
    for pattern in itertools.islice(itertools.product([0.0, 1.0], repeat=12), 0, None, 3):
        plans = plan_branches([np.array(pattern)], 1.0, branch, WindowConfig(size=2), 12, [False]).plans
        begun = [t for t in range(1, 11) if pattern[t] and pattern[t + 1] and not pattern[t - 1]]
        assert sorted(plan.position for plan in plans) == begun
        assert max(Counter(plan.position for plan in plans).values(), default=1) == 1


def test_nothing_is_planned_without_a_threshold_or_with_branching_off() -> None:
    high = [np.full(20, 5.0)]
    on = BranchConfig(mode="extra", min_new_tokens=1)
    late = [np.concatenate([np.zeros(5), np.full(15, 5.0)])]
    assert plan_branches(late, 1.0, on, WindowConfig(), 20, [False]).plans == [BranchPlan(0, 2, 5.0)]
    assert plan_branches(high, None, on, WindowConfig(), 20, [False]).plans == []
    assert plan_branches(high, math.nan, on, WindowConfig(), 20, [False]).plans == []
    assert plan_branches([], 1.0, on, WindowConfig(), 20, []).plans == []
    assert plan_branches(late, 1.0, BranchConfig(), WindowConfig(), 20, [False]).plans == []
    with pytest.raises(ValueError, match="marks of truncation"):
        plan_branches(high, 1.0, on, WindowConfig(), 20, [])


@pytest.mark.parametrize("position", ["first", "peak"])
@pytest.mark.parametrize("from_truncated", [False, True])
def test_windows_that_are_not_forked_are_counted_by_reason(position: str, from_truncated: bool) -> None:
    """Single high tokens at w = 1 in two rollouts, the second of them cut off; two forks in all."""
    branch = BranchConfig(
        mode="extra", max_per_rollout=2, max_per_prompt=3, max_trajectories=99, min_prefix=2, min_new_tokens=3,
        position=position, from_truncated=from_truncated,  # type: ignore[arg-type]
    )  # fmt: skip
    entropy = np.zeros(12)
    entropy[[1, 3, 5, 7, 11]] = 2.0
    planned = plan_branches([entropy, entropy], 1.0, branch, WindowConfig(size=1), 12, [False, True])
    assert tuple(planned.skipped) == SKIPPED
    # A cut-off rollout's windows at 1 and 11 cannot be forked either way.
    forks = len(planned.plans)
    assert (forks, planned.skipped) == (
        (3, {"prefix": 2, "new_tokens": 2, "truncated": 0, "caps": 3})
        if from_truncated
        else (2, {"prefix": 2, "new_tokens": 2, "truncated": 3, "caps": 1})
    )
    nothing = plan_branches([entropy], math.nan, branch, WindowConfig(size=1), 12, [False])
    assert nothing.plans == [] and not any(nothing.skipped.values())


@pytest.mark.parametrize("seed", range(2))
def test_every_high_window_is_forked_or_counted(seed: int) -> None:
    for entropies, truncated, branch, window, tau in prompts(seed, 100):
        planned = plan_branches(entropies, tau, branch, window, 12, truncated)
        assert planned.plans == plan_branches(entropies, tau, branch, window, 12, truncated).plans
        windows = 0
        for entropy in entropies:
            means = oracle.window_means(entropy[None], np.ones((1, len(entropy)), dtype=bool), window.size)[0]
            flagged = [mean is not None and mean >= tau for mean in means]
            windows += len(list(oracle.runs(flagged, [True] * len(entropy), window.size)))
        assert windows == len(planned.plans) + sum(planned.skipped.values())


def test_a_window_does_not_reach_over_what_the_model_did_not_write() -> None:
    entropy = np.array([0.0, 9.0, np.nan, 9.0, 9.0, 0.0])
    branch = BranchConfig(mode="extra", min_new_tokens=1)
    plans = plan_branches([entropy], 9.0, branch, WindowConfig(size=2), 12, [False]).plans
    assert plans == [BranchPlan(0, 3, 9.0)]
