"""verl's actor (TrainingWorker, FSDP2, ppo_loss) on the CPU platform, in one child process: two ranks are not needed
to see that the right log-probabilities rise, that the reference model loads, and that weights reach the rollout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import tiny_text

SCRIPT = Path(__file__).with_name("verl_cpu_actor.py")


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tiny_text.build(tmp_path_factory.mktemp("actor"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)],
        env={
            **os.environ,
            "VERL_PLATFORM": "cpu",
            "VERL_USE_EXTERNAL_MODULES": "ares_train.plugin",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_it_runs_on_our_platform_and_engine(said):
    assert said["device"] == "cpu"
    assert said["engine"] == "CPULanguageModel"


def test_rewarded_answers_become_likelier_and_the_others_do_not(said):
    assert said["rewarded"] > 0.2
    assert said["unrewarded"] < -0.2


def test_the_reference_model_is_the_untouched_checkpoint(said):
    assert said["reference_difference"] < 1e-5


def test_weights_reach_the_rollout_model_and_only_whole(said):
    assert said["before_sync"] > 1e-3
    assert said["after_sync"] < 1e-4
    assert "1 missing (model.norm.weight)" in said["refused"]
    assert "1 unexpected (extra)" in said["refused"]
    assert "1 of another shape (model.layers.0.input_layernorm.weight)" in said["refused"]


def test_fsdp1_is_refused_with_the_mend(said):
    assert said["fsdp1"] == "strategy=fsdp does not run on the CPU: set strategy=fsdp2"
