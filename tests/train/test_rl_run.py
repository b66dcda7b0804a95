"""A real AEPO run on the CPU: forks, hierarchical reward and dynamic KL in verl's own processes; killed, resumed,
evaluated.

One run serves all tests: `ares-train launch` is killed with SIGKILL after its third step, whose checkpoint is not
written yet, and the same command then goes on from the second. Both logged the third step: it must be the same.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ares_train import checkpoints
from ares_train.aepo.state import AEPOState
from tests.train import rl_runs, rl_task

SETTINGS = """
aepo:
  window: {size: 2, quantile: 0.8}
  branch: {max_per_rollout: 1, max_per_prompt: 2, max_trajectories: 6, min_new_tokens: 4}
  reward: {lambda_sign: directional, shape_correct: all, min_count: 2}
  kl: {controller: {enabled: true}}
  advantage: {std_floor: 0.1}
trainer:
  total_training_steps: 4
  save_freq: 2
  eval: {datasets: smoke_text, serve: hf, run: {limit: 4, max_tokens: 8}}
"""


@dataclass(frozen=True)
class Run:
    folder: Path
    there: list[str]
    left: list[int]
    first: dict[int, dict[str, float]]
    second: dict[int, dict[str, float]]

    @property
    def steps(self) -> dict[int, dict[str, float]]:
        return {**self.first, **self.second}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("rl")
    task = rl_task.make(folder / "task")
    config = rl_runs.write_config(folder / "mine.yaml", "aepo", task, folder / "run", SETTINGS)
    metrics = folder / "run" / "metrics"
    with rl_runs.ray_folder() as ray:
        there, left = rl_runs.kill_after(config, ray, metrics / "from_step_1.jsonl", 3)
        rl_runs.run(config, ray)
    first, second = (dict(rl_runs.read(metrics / f"from_step_{step}.jsonl")) for step in (1, 3))
    return Run(folder / "run", there, left, first, second)


def test_killing_the_launcher_ends_everything(done: Run) -> None:
    assert done.left == []


def test_rewards_are_computed_in_processes_that_can_be_killed(done: Run) -> None:
    """The truths need algebra (a root, a logarithm), so each reward worker has the verifier's workers under it."""
    assert any("ares_eval.verify.worker" in line for line in done.there)


def test_the_steps_that_were_saved_are_not_repeated(done: Run) -> None:
    assert sorted(done.first) == [1, 2, 3] and sorted(done.second) == [3, 4]
    assert json.loads((done.folder / "finished.json").read_text())["step"] == 4


def test_a_resumed_step_is_the_unbroken_one(done: Run) -> None:
    """Rewards, losses and gradients to the last bit, but not what is about time and memory. The rollout server's own
    log-probs and entropies differ in theirs: which requests it takes together is a matter of time."""
    unbroken, resumed = done.first[3], done.second[3]
    assert unbroken.keys() == resumed.keys()
    differing = {
        name: (unbroken[name], resumed[name])
        for name in unbroken
        if unbroken[name] != resumed[name] and not name.startswith(("timing", "perf/", "actor/perf/", "eval/"))
    }
    of_the_server = ("rollout_corr/", "training/rollout_", "aepo/estimator/", "aepo/tau/rollout", "aepo/tau/used_mean")
    assert [name for name in differing if not name.startswith(of_the_server)] == []
    for one, other in differing.values():
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


def test_the_state_is_saved_and_taken_up(done: Run) -> None:
    states = {
        step: AEPOState.from_json((done.folder / f"global_step_{step}" / "aepo_state.json").read_text())
        for step in (2, 4)
    }
    assert [state.step for state in states.values()] == [2, 4]
    assert states[2].kappas != (1.0, 1.0, 1.0)
    # What the resumed step used is what was saved before it.
    assert done.second[3]["aepo/kl/beta/hard"] == states[2].kappas[2]
    assert done.second[4]["aepo/tau/rollout"] == states[4].tau_rollout


def test_forks_are_made_and_rows_are_ragged(done: Run) -> None:
    for step in done.steps.values():
        assert step["aepo/branch/done"] == step["aepo/branch/planned"] > 0
        assert step["aepo/branch/failed"] == 0
        assert step["aepo/rows/real"] == 32 + step["aepo/branch/done"]
        # Two mini-batches: at most one row to fill up, however many forks there are.
        assert step["aepo/rows/padding"] == step["aepo/rows/real"] % 2
        assert 0 < step["aepo/branch/prefix_token_frac"] < 1


def test_rollout_and_actor_agree_token_by_token(done: Run) -> None:
    """Weights reach the server each step, and a fork's inherited log-probs stand where they belong."""
    for step in done.steps.values():
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["aepo/estimator/corr"] > 0.9999
        assert abs(step["aepo/estimator/bias"]) < 1e-4


def test_the_reward_shapes_from_the_second_step_on(done: Run) -> None:
    steps = done.steps
    # The first batch has no target to be measured against.
    assert sum(steps[1][f"aepo/reward/lambda/{name}"] for name in ("easy", "medium", "hard")) == 0
    assert any(
        steps[step].get(f"aepo/reward/penalty_mean/{name}", 0) > 0
        for step in (2, 3, 4)
        for name in ("easy", "medium", "hard")
    )
    for step in steps.values():
        penalty = sum(step.get(f"aepo/reward/penalty_mean/{name}", 0.0) for name in ("easy", "medium", "hard"))
        assert (step["critic/rewards/mean"] < step["critic/score/mean"]) == (penalty > 0)
        assert 0 < step["critic/score/mean"] < 1, "answers are right and wrong: the verifier runs in the reward workers"


def test_the_kl_is_weighted_and_measured_by_class(done: Run) -> None:
    steps = done.steps
    assert steps[1]["actor/kl_loss"] < steps[4]["actor/kl_loss"]
    for number, step in steps.items():
        assert step["aepo/kl/weight_mean"] != 1.0
        if number > 1:
            assert step["aepo/kl/window"] > 0 and step["aepo/kl/outside"] > 0
        assert math.isfinite(step["actor/grad_norm"]) and step["actor/grad_norm"] > 0


def test_every_step_takes_as_many_optimizer_steps_as_configured(done: Run) -> None:
    """48 rows or 43: two mini-batches. verl's own padding would have made them three of 16."""
    assert {step["aepo/rows/real"] for step in done.steps.values()} != {32.0}
    assert all((step["aepo/rows/real"] + step["aepo/rows/padding"]) % 2 == 0 for step in done.steps.values())


@pytest.fixture(scope="module")
def watched(done: Run) -> Path:
    told = subprocess.run(
        [sys.executable, "-m", "ares_train.cli", "watch", str(done.folder), "--once"],
        env=rl_runs.environment(), capture_output=True, text=True, timeout=rl_runs.PATIENCE,
    )  # fmt: skip
    assert told.returncode == 0, (told.stdout[-3000:], told.stderr[-3000:])
    return done.folder / "eval"


def test_its_checkpoints_are_merged_served_and_scored(done: Run, watched: Path) -> None:
    whole = {checkpoint.step: checkpoint for checkpoint in checkpoints.checkpoints_of(done.folder)}
    assert sorted(whole) == [2, 4]
    for step, checkpoint in whole.items():
        result = json.loads((watched / f"step_{step}.json").read_text())
        assert result["status"] == "complete"
        assert result["digest"] == checkpoints.digest(checkpoint)
        assert any(name.startswith("smoke_text/") for name in result["figures"])
