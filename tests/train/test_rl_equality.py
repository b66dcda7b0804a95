"""Everything switched off, our trainer is verl's own GRPO: the same steps as `verl.trainer.main_ppo` on the same
settings.

Both really run on the CPU. The KL loss of our run is ours, at weight one. What differs is the order of rows, and with
it the last bits of sums: hence the tolerance.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.train import rl_runs, rl_task

SETTINGS = "trainer: {total_training_steps: 3, save_freq: -1, resume_mode: disable}"

SAME = (
    "actor/pg_loss", "actor/kl_loss", "actor/grad_norm", "actor/entropy", "actor/ppo_kl", "actor/pg_clipfrac",
    "critic/score/mean", "critic/rewards/mean", "critic/advantages/mean", "critic/advantages/max", "actor/lr",
    "critic/advantages/min", "response_length/mean", "response_length/max", "prompt_length/mean", "global_seqlen/mean",
)  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    folder = tmp_path_factory.mktemp("equal")
    task = rl_task.make(folder / "task")
    # One mini-batch: which rows share one is a matter of their order, which verl leaves to chance.
    config = rl_runs.write_config(folder / "off.yaml", "grpo", task, folder / "run", SETTINGS, mini=8)
    with rl_runs.ray_folder() as ray:
        rl_runs.run(config, ray)
    stock = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert stock.pop("aepo")["reward"]["mode"] == "accuracy"
    (folder / "stock").mkdir()
    with rl_runs.ray_folder() as ray:
        stock["ray_kwargs"]["ray_init"]["_temp_dir"] = ray
        (folder / "stock" / "stock.yaml").write_text(yaml.safe_dump(stock))
        words = ["-m", "verl.trainer.main_ppo", f"--config-path={folder / 'stock'}", "--config-name=stock"]
        environment = {
            **rl_runs.environment(), "VERL_USE_EXTERNAL_MODULES": "ares_train.plugin", "CUDA_VISIBLE_DEVICES": "-1",
            "VERL_FILE_LOGGER_PATH": str(folder / "stock.jsonl"),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, *words, f"hydra.run.dir={folder / 'stock'}"],
            env=environment, capture_output=True, text=True, timeout=rl_runs.PATIENCE, cwd=Path.cwd(),
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout[-4000:], done.stderr[-4000:])
    return dict(rl_runs.read(folder / "run" / "metrics" / "from_step_1.jsonl")), dict(
        rl_runs.read(folder / "stock.jsonl")
    )


def test_losses_and_rewards_are_verls(
    both: tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]],
) -> None:
    ours, theirs = both
    assert sorted(ours) == sorted(theirs) == [1, 2, 3]
    for step in ours:
        for name in SAME:
            assert ours[step][name] == pytest.approx(theirs[step][name], rel=1e-4, abs=1e-6), (step, name)


def test_the_comparison_is_of_something(
    both: tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]],
) -> None:
    """Rewards vary, the policy moves away from the reference, and nothing of AEPO acts, though it is measured."""
    ours, theirs = both
    assert 0 < ours[1]["critic/score/mean"] < 1
    assert ours[3]["actor/kl_loss"] > ours[1]["actor/kl_loss"]
    assert len({ours[step]["actor/pg_loss"] for step in ours}) == 3
    assert ours[3]["aepo/kl/weight_mean"] == 1.0 and ours[3]["aepo/branch/done"] == 0
    assert ours[3]["aepo/hwe/frac_flagged"] > 0
    assert {(step["aepo/rows/real"], step["aepo/rows/padding"]) for step in ours.values()} == {(32.0, 0.0)}
    assert not any(name.startswith("aepo/") for name in theirs[1])
    assert ours[3]["actor/kl_coef"] == theirs[3]["actor/kl_coef"]
    # Summed token by token at weight one, our KL is verl's mean over tokens.
    assert ours[3]["aepo/kl/weighted"] == pytest.approx(theirs[3]["actor/kl_loss"], rel=1e-4)
