"""Presets compose and are sound; settings that cannot go together are refused with their reasons."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ares_eval.config import ConfigError
from ares_train import launching
from ares_train.aepo.config import ConfigError as AEPOConfigError
from ares_train.aepo.config import WindowConfig
from ares_train.rl import compose, launch, sections
from ares_train.rl.config import bind, hints, trigger_words
from ares_train.rl.fields import AGENT_LOOP, AGENT_LOOP_MANAGER, STOCK_AGENT_LOOP

GPU = launching.Device("cuda", 8)
CPU = launching.Device("cpu", 2)
STAGED = ("aepo_3b", "aepo_7b", "grpo_3b", "grpo_7b")


def composed(preset: str, *overrides: str, device: launching.Device = GPU) -> Any:
    """A preset with settings changed after composition, which takes a second."""
    from omegaconf import OmegaConf

    config = copy.deepcopy(_composed(preset, device))
    for override in overrides:
        name, _, value = override.lstrip("+").partition("=")
        OmegaConf.update(config, name, yaml.safe_load(value), force_add=True)
    return config


@functools.cache
def _composed(preset: str, device: launching.Device) -> Any:
    return compose.compose(compose.preset(preset), [], device)


def test_the_presets_are_those_that_are_promised() -> None:
    assert set(compose.presets()) == {
        "aepo", "aepo_literal", "aepo_paper_run", "aepo_adaptive", "grpo", "grpo_length", "dapo", "smoke_cpu", *STAGED,
    }  # fmt: skip


@pytest.mark.parametrize("preset", compose.presets())
def test_a_dry_run_of_each_preset(preset: str) -> None:
    planned = launch.plan(compose.preset(preset), [], device_name="cpu" if preset == "smoke_cpu" else "cuda")
    assert [stage.name for stage, _ in planned] == (["8k", "16k"] if preset in STAGED else [""])
    shown = launch.describe(planned)
    assert "custom_reward_function" in shown and "pkg://ares_eval.verify.reward" in shown
    assert "# a step " in shown and "# TransferQueue " in shown and "memory of a" in shown
    for _, config in planned:
        assert config.trainer.v1.trainer_mode == "sync" and "stages" not in config
        forks = preset not in ("grpo", "grpo_length", "dapo", "aepo_paper_run", "grpo_3b", "grpo_7b")
        assert (config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class") == AGENT_LOOP_MANAGER) is forks


def test_what_the_presets_say_of_aepo() -> None:
    aepo = {name: bind(composed(name)) for name in ("aepo", "aepo_literal", "aepo_adaptive", "grpo", "dapo")}
    assert (aepo["aepo"].branch.mode, aepo["aepo"].reward.shape_correct) == ("extra", "none")
    assert not aepo["aepo"].lambda_is_zero and aepo["aepo_literal"].lambda_is_zero
    adaptive = aepo["aepo_adaptive"]
    assert (adaptive.branch.mode, adaptive.branch.n_base, adaptive.branch.max_trajectories) == ("budget", 4, 8)
    assert (adaptive.reward.shape_correct, adaptive.reward.target_mode) == ("easy", "group")
    assert adaptive.advantage.std_floor == 0.1
    assert (aepo["grpo"].reward.mode, aepo["grpo"].kl.mode) == ("accuracy", "uniform")
    dapo = composed("dapo")
    assert dapo.algorithm.filter_groups.enable and not dapo.actor_rollout_ref.actor.use_kl_loss
    assert dapo.actor_rollout_ref.actor.clip_ratio_high == 0.28


def test_on_the_cpu_the_device_decides_what_it_must() -> None:
    overrides = ["actor_rollout_ref.rollout.n=4", "aepo.branch.n_base=2"]
    config = compose.compose(compose.preset("aepo_7b"), overrides, CPU)
    aepo = bind(config)
    assert config.actor_rollout_ref.rollout.name == "hf_cpu" and aepo.branch.entropy_source == "exact"


REFUSED = {
    "trainer.use_v1=false": "use_v1",
    "trainer.v1.trainer_mode=colocate_async": "one version of the weights",
    "algorithm.adv_estimator=gae": "adv_estimator",
    "algorithm.use_kl_in_reward=true": "use_kl_in_reward",
    "algorithm.rollout_correction.bypass_mode=true": "exact entropies",
    "distillation.enabled=true": "distillation",
    "critic.enable=true": "critic",
    "actor_rollout_ref.actor.use_kl_loss=false": "no reference log-probs",
    "aepo.kl.mode=off": "use_kl_loss",
    "actor_rollout_ref.actor.ppo_mini_batch_size=100": "optimizer steps",
    "actor_rollout_ref.actor.use_prefix_grouper=true": "use_prefix_grouper",
    "aepo.branch.max_trajectories=6": "rollout.n",
    "aepo.branch.entropy_source=exact": "hf_cpu",
    "actor_rollout_ref.rollout.name=sglang": "server_topk",
    "actor_rollout_ref.rollout.calculate_log_probs=false": "calculate_log_probs",
    "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent": "cannot fork",
    "++actor_rollout_ref.rollout.agent.agent_loop_manager_class=my.Manager": "my.Manager",
    "actor_rollout_ref.rollout.multi_turn.enable=true": "dialogue",
    "aepo.branch.min_new_tokens=20000": "min_new_tokens",
    "aepo.response_length=100": "response_length",
    "algorithm.norm_adv_by_std_in_grpo=false": "advantage.std=none",
}


@pytest.mark.parametrize("override", REFUSED)
def test_refused_with_the_reason(override: str) -> None:
    config = composed("aepo_adaptive", override)
    with pytest.raises(AEPOConfigError) as refused:
        bind(config)
    assert REFUSED[override] in str(refused.value)


def test_every_reason_is_told_at_once() -> None:
    config = composed("aepo_adaptive", "critic.enable=true", "trainer.v1.trainer_mode=colocate_async")
    with pytest.raises(AEPOConfigError) as refused:
        bind(config)
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["actor_rollout_ref.rollout.top_p=0.99"], "top_p"),
        (["aepo.reward.target_mode=batch_mean", "aepo.reward.fixed_lambda=null"], "identically zero"),
        (["algorithm.filter_groups.enable=true"], "filter_groups"),
    ],
)
def test_hints(overrides: list[str], said: str) -> None:
    config = composed("aepo_adaptive", *overrides)
    assert any(said in hint for hint in hints(config, bind(config)))
    assert hints(composed("aepo_adaptive"), bind(composed("aepo_adaptive"))) == []


def test_what_follows_is_filled_in() -> None:
    config = composed("aepo", "++trainer.eval.datasets=smoke_text")
    bind(config)
    assert config.actor_rollout_ref.rollout.agent.default_agent_loop == AGENT_LOOP
    assert config.actor_rollout_ref.rollout.engine_kwargs.vllm.max_logprobs == 20
    assert config.trainer.checkpoint_callback_class == "ares_train.loop.callback.AresCheckpointCallback"
    assert config.aepo.response_length == config.data.max_response_length
    plain = composed("grpo")
    bind(plain)
    assert plain.trainer.checkpoint_callback_class is None
    assert "agent_loop_manager_class" not in plain.actor_rollout_ref.rollout.agent


def test_branching_off_leaves_verls_own_agent_loop() -> None:
    config = composed("aepo", "aepo.branch.mode=off")
    bind(config)
    agent = config.actor_rollout_ref.rollout.agent
    assert "agent_loop_manager_class" not in agent and agent.default_agent_loop == STOCK_AGENT_LOOP


def refused_in_a_line(file: Path, device: str = "auto") -> str:
    with pytest.raises(ConfigError) as refused:
        launch.plan(file, [], device_name=device)
    assert len(str(refused.value).splitlines()) == 1 and file.name in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("text", ["", "hello world\n", "data: {train_batch_size: 4}\n"])
def test_a_file_for_something_else_is_told_in_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert "no configuration of verl's RL trainer" in refused_in_a_line(tmp_path / "mine.yaml")


def test_a_list_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- 1\n")
    refused_in_a_line(tmp_path / "mine.yaml")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_preset_of_the_sft_trainer_is_told_whatever_the_device(device: str) -> None:
    assert "RL trainer" in refused_in_a_line(Path("configs/train/sft_3b.yaml"), device)


NOT_A_VALUE = (
    "actor_rollout_ref.actor.ppo_mini_batch_size=0",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=null",
    "actor_rollout_ref.model.path=null",
    "actor_rollout_ref.rollout.agent=null",
    "actor_rollout_ref.rollout.gpu_memory_utilization=null",
    "actor_rollout_ref.rollout.n=0",
    "actor_rollout_ref.rollout.top_p=null",
    "aepo=x",
    "critic=x",
    "data.max_response_length=null",
    "data.train_batch_size=null",
    "data.train_batch_size=true",
    "data.train_files=null",
    "data.train_files=[]",
    "data.val_files=[3]",
    "trainer=null",
    "trainer.default_local_dir=null",
    "trainer.n_gpus_per_node=0",
    "trainer.nnodes=-1",
    "trainer.save_freq=null",
    "trainer.test_freq=after_each_epoch",
    "trainer.v1=null",
)


@pytest.mark.parametrize("override", NOT_A_VALUE)
def test_a_value_that_cannot_be_is_told_in_a_line(override: str) -> None:
    config = composed("aepo_3b", override)
    with pytest.raises(ConfigError) as refused:
        sections.check(config, Path("mine.yaml"))
    lines = str(refused.value).splitlines()
    assert any(line.startswith(f"{override.partition('=')[0]}=") for line in lines)
    # response_length is resolved from data.max_response_length already.
    assert len(lines) == 1


def test_every_way_to_a_configuration_checks_its_values() -> None:
    for override in ("trainer.v1=null", "aepo=x"):
        with pytest.raises(ConfigError, match=override.partition("=")[0]):
            launch.plan(compose.preset("grpo"), [override], device_name="cuda")


def test_a_list_of_trigger_words_is_read_before_anything_starts(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("wait\nhold on\n")
    window = WindowConfig(trigger_words_file=str(words), count_mode="trigger")
    made = trigger_words(window)
    assert made is not None and made.size == 2
    assert trigger_words(WindowConfig()) is None
    words.write_text("one two three four five six seven eight nine\n")
    with pytest.raises(AEPOConfigError, match=f"trigger_words_file={words}"):
        trigger_words(window)
    with pytest.raises(AEPOConfigError, match="trigger_words_file=/nope") as refused:
        launch.plan(compose.preset("aepo"), ["aepo.window.trigger_words_file=/nope"], device_name="cuda")
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_of_ones_own_builds_on_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("defaults: [aepo_adaptive, _self_]\naepo: {window: {size: 8}}\ntrainer: {save_freq: 5}\n")
    config = compose.compose(file, ["aepo.window.quantile=0.9"], GPU)
    aepo = bind(config)
    assert (aepo.window.size, aepo.window.quantile, aepo.branch.mode) == (8, 0.9, "budget")
    assert config.trainer.save_freq == 5


def test_a_file_of_ones_own_needs_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "grpo.yaml"
    file.write_text("defaults: [aepo, _self_]\n")
    with pytest.raises(ConfigError, match="another one"):
        compose.compose(file, [], GPU)


def test_wrong_names_are_told_with_the_right_ones() -> None:
    with pytest.raises(AEPOConfigError, match="window"):
        bind(composed("aepo", "aepo.windo.size=3"))
    with pytest.raises(ConfigError, match="save_frek"):
        compose.compose(compose.preset("aepo"), ["trainer.save_frek=3"], GPU)
    with pytest.raises(ConfigError, match="aepo_adaptive"):
        compose.preset("aepo_adaptiv")


def test_the_command_shows_its_plan_and_refuses_in_lines() -> None:
    def ares(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ares_train.cli", *words], capture_output=True, text=True, timeout=120
        )

    refused = ares("aepo", "--dry-run", "--device", "cuda", "critic.enable=true", "aepo.kl.mode=off")
    assert refused.returncode == 2 and refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 2 and all(
        line.startswith("ares-train aepo: ") for line in refused.stderr.splitlines()
    )
    assert ares("grpo", "nonsense").returncode == 2
    missing = ares("launch", "--config", "configs/train/smoke_cpu.yaml", "data.train_files=/no/such.parquet")
    assert missing.returncode == 2 and "data.train_files=/no/such.parquet" in missing.stderr
    other = ares("launch", "--config", "configs/train/adacs.yaml")
    assert other.returncode == 2 and len(other.stderr.splitlines()) == 1 and "RL trainer" in other.stderr
