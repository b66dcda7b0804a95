"""AEPO on questions with pictures: a tiny Qwen2.5-VL takes a step with forks on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train import rl_runs, rl_task

SETTINGS = """
aepo: {branch: {from_truncated: true, min_new_tokens: 2}}
trainer: {total_training_steps: 1, save_freq: -1}
"""


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder: Path = tmp_path_factory.mktemp("pictures")
    task = rl_task.make_pictures(folder / "task")
    config = rl_runs.write_config(
        folder / "pictures.yaml", "smoke_cpu", task, folder / "run", SETTINGS, prompt=96, response=12
    )
    with rl_runs.ray_folder() as ray:
        rl_runs.run(config, ray)
    return dict(rl_runs.read(folder / "run" / "metrics" / "from_step_1.jsonl"))[1]


def test_pictures_are_seen_alike_while_rolling_out_and_training(step: dict[str, float]) -> None:
    """Base answers and forks: a fork's prompt has the picture, too, and its prefix as text."""
    assert step["training/rollout_probs_diff_max"] < 1e-5
    assert step["aepo/estimator/corr"] > 0.9999


def test_a_picture_costs_prompt_tokens(step: dict[str, float]) -> None:
    # 56 x 56 pixels are four tokens, 84 x 56 six.
    assert step["prompt_length/max"] - step["prompt_length/min"] == 2


def test_the_budget_is_filled_with_forks(step: dict[str, float]) -> None:
    assert step["aepo/rows/real"] == 32 and step["aepo/branch/done"] > 0
    assert step["aepo/branch/done"] + step["aepo/branch/fresh"] == 16
