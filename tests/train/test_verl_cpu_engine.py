"""verl's actor on the CPU platform, in one process each: the right log-probabilities rise, the reference model loads,
weights reach the rollout whole or not at all, pictures are seen alike by both, a frozen vision tower stays as it is.
"""

from __future__ import annotations

import pytest

from tests.models import tiny_qwen_vl, tiny_text
from tests.train.verl_actor import said_by


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    return said_by("verl_cpu_actor.py", str(tiny_text.build(tmp_path_factory.mktemp("actor"))))


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return said_by("verl_cpu_seeing_actor.py", str(tiny_qwen_vl.build(tmp_path_factory.mktemp("seeing"))))


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


def test_what_cannot_run_is_refused_with_the_mend(said):
    assert said["fsdp1"] == "strategy=fsdp does not run on the CPU: set strategy=fsdp2"
    assert said["no_tower"].startswith("freeze_vision_tower is set, but Qwen2ForCausalLM has no vision tower")


def test_a_frozen_vision_tower_stays_and_the_language_model_learns(seen):
    frozen = seen["frozen"]
    assert frozen["tower"] > 40
    assert frozen["tower_changed"] == 0
    # The output head is the embedding, under two names.
    assert frozen["rest_changed"] == frozen["rest"]
    assert frozen["optimizer"] == frozen["rest"] - 1
    assert not frozen["in_config"]


def test_without_the_key_the_tower_is_trained_too(seen):
    free = seen["free"]
    assert free["tower_changed"] > 0.9 * free["tower"]
    assert free["optimizer"] == free["tower"] + free["rest"] - 1


def test_actor_and_rollout_see_pictures_alike(seen):
    assert seen["rollout_difference"] < 1e-4
