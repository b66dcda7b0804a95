"""Stages, resuming and the end of a run, with the training process as a stand-in."""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ares_eval.config import ConfigError
from ares_train import checkpoints, launching, memory
from ares_train.loop import queue
from ares_train.rl import compose, estimate, launch, runner, stages
from ares_train.rl.runner import metrics_file
from ares_train.rl.stages import Stage


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("staged")
    for name in ("t.parquet", "v.parquet"):
        (tmp_path / name).touch()
    file = tmp_path / "mine.yaml"
    file.write_text(
        "defaults: [smoke_cpu, _self_]\n"
        f"data: {{train_files: {tmp_path}/t.parquet, val_files: {tmp_path}/v.parquet}}\n"
        f"trainer: {{default_local_dir: {tmp_path}/run}}\n"
        "actor_rollout_ref: {model: {path: org/model}}\n"
        "stages:\n"
        "  - {name: short, overrides: [data.max_response_length=16]}\n"
        "  - {name: long, overrides: [data.max_response_length=32, aepo.branch.min_new_tokens=8]}\n"
    )
    return file


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Configurations that a process was started for; codes that the next ones end with are put in ``ends``."""
    started: list[Any] = []

    def run(words: list[str], extra: dict[str, str], log: Path, **_: Any) -> launching.Ended:
        config = compose.load(Path(words[-1]))
        started.append(config)
        folder = Path(config.trainer.default_local_dir)
        code = ends.pop(0) if ends else 0
        if code == "stop":
            (folder / runner.STOPPED).write_text("the gate failed")
            code = 0
        if not code:
            (folder / "global_step_3" / "actor").mkdir(parents=True, exist_ok=True)
            (folder / "latest_checkpointed_iteration.txt").write_text("3")
        return launching.Ended(code, "the last line")

    ends: list[Any] = []
    monkeypatch.setattr(launching, "run", run)
    monkeypatch.setattr(
        checkpoints, "checkpoints_of",
        lambda folder: [checkpoints.Checkpoint(3, folder / "global_step_3", folder / "global_step_3" / "actor")]
        if (folder / "global_step_3").is_dir() else [],
    )  # fmt: skip
    run.ends = ends  # type: ignore[attr-defined]
    return started


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    import ares_train.merge

    done: list[tuple[Path, Path]] = []
    monkeypatch.setattr(ares_train.merge, "merge", lambda source, target: done.append((source, target)))
    return done


@pytest.fixture
def run(staged: Path) -> Iterator[Path]:
    """The folder of the run, as if it had never been."""
    yield staged.parent / "run"
    shutil.rmtree(staged.parent / "run", ignore_errors=True)


@functools.cache
def planned(file: Path, overrides: tuple[str, ...]) -> list[tuple[Stage, Any]]:
    return launch.plan(file, overrides, device_name="cpu")


def go(file: Path, *overrides: str) -> tuple[int, list[str]]:
    said: list[str] = []
    return launch.run(copy.deepcopy(planned(file, overrides)), said.append), said


def test_a_stage_starts_from_the_weights_of_the_one_before(
    staged: Path, trained: list[Any], merged: list[tuple[Path, Path]], run: Path
) -> None:
    code, _ = go(staged, "trainer.total_training_steps=2")
    assert code == 0
    short, long = trained
    assert short.actor_rollout_ref.model.path == "org/model"
    assert short.trainer.default_local_dir == str(run / "short")
    assert (short.data.max_response_length, long.data.max_response_length) == (16, 32)
    assert (short.aepo.branch.min_new_tokens, long.aepo.branch.min_new_tokens) == (4, 8)
    assert short.trainer.total_training_steps == long.trainer.total_training_steps == 2
    start = run / "long" / "start"
    assert long.actor_rollout_ref.model.path == str(start)
    assert merged == [(run / "short" / "global_step_3" / "actor", start)]


def test_a_finished_stage_is_not_run_again(
    staged: Path, trained: list[Any], merged: list[tuple[Path, Path]], run: Path
) -> None:
    launching.run.ends.extend([0, 9])  # type: ignore[attr-defined]
    code, said = go(staged)
    assert code == 9 and "the last line" in said[-1]
    assert len(trained) == 2
    code, said = go(staged)
    assert code == 0
    assert [Path(config.trainer.default_local_dir).name for config in trained] == ["short", "long", "long"]
    assert any("is finished" in line for line in said)
    # With other settings there is more to do.
    go(staged, "trainer.total_training_steps=2")
    assert len(trained) == 5


def test_a_stop_on_request_has_a_code_of_its_own(
    staged: Path, trained: list[Any], merged: list[tuple[Path, Path]], run: Path
) -> None:
    launching.run.ends.append("stop")  # type: ignore[attr-defined]
    code, said = go(staged)
    assert code == launch.STOPPED and "the gate failed" in said[-1]
    assert len(trained) == 1
    # The next start is a new one: what stopped the last is not held against it.
    assert go(staged)[0] == 0
    assert not (run / "short" / runner.STOPPED).exists()


def test_a_stage_needs_a_checkpoint_to_hand_on(staged: Path) -> None:
    with pytest.raises(ConfigError, match="save_freq"):
        launch.plan(staged, ["trainer.save_freq=-1"], device_name="cpu")


@pytest.mark.parametrize(
    "entry",
    ["{overrides: []}", "{name: ../x, overrides: []}", "{name: a, overrides: [nonsense]}", "{name: start}",
     "{name: a, more: 1}", "plain"],
)  # fmt: skip
def test_wrong_stages_are_refused(entry: str) -> None:
    from omegaconf import OmegaConf

    with pytest.raises(ConfigError, match="stages"):
        stages.stages_of(OmegaConf.create(f"stages: [{entry}]"))


def test_two_stages_of_one_name_are_refused() -> None:
    from omegaconf import OmegaConf

    with pytest.raises(ConfigError, match="one name"):
        stages.stages_of(OmegaConf.create("stages: [{name: a}, {name: a}]"))
    assert stages.stages_of(OmegaConf.create("{}")) == [Stage("")]


def test_a_cluster_gets_the_environment_and_no_resources(staged: Path) -> None:
    ((_, config), *_) = launch.plan(staged, [], device_name="cpu", ray_address="10.0.0.1:6379")
    start = config.ray_kwargs.ray_init
    assert start.address == "10.0.0.1:6379" and "num_gpus" not in start and "num_cpus" not in start
    assert start.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES == "ares_train.plugin"
    assert start.runtime_env.env_vars.VERL_PLATFORM == "cpu"


def test_each_start_has_a_metrics_file_of_its_own(tmp_path: Path) -> None:
    """verl empties the file that it is given."""
    first, again = metrics_file(tmp_path, 0), metrics_file(tmp_path, 4)
    assert first != again and again.name == "from_step_5.jsonl" and first.parent.is_dir()


def test_a_stop_that_is_still_asked_for_is_seen_before_anything_starts(
    staged: Path, trained: list[Any], merged: list[tuple[Path, Path]], run: Path
) -> None:
    stop = run / "short" / queue.STOP
    stop.parent.mkdir(parents=True)
    stop.write_text("{}")
    code, said = go(staged)
    assert code == launch.STOPPED and trained == []
    assert len(said) == 1 and str(stop) in said[0] and "remove it to go on" in said[0]
    stop.unlink()
    assert go(staged)[0] == 0


def test_wrong_kinds_of_stages_are_refused() -> None:
    from omegaconf import OmegaConf

    for told in ("plain", "{name: a}", "3"):
        with pytest.raises(ConfigError, match="must be a list"):
            stages.stages_of(OmegaConf.create(f"stages: {told}"))


# ---------------------------------------------------------------- GPUs and memory


@functools.cache
def on_this_machine(address: str | None) -> list[tuple[Stage, Any]]:
    return launch.plan(compose.preset("grpo"), [], device_name="cuda", ray_address=address)


@pytest.mark.parametrize(
    ("here", "words", "address", "said"),
    [
        (launching.Device("cuda", 2), [], None, "n_gpus_per_node=8 .* has 2 GPU"),
        (launching.Device("cpu", 4), [], None, "has 0 GPU"),
        (launching.Device("cuda", 8), ["trainer.nnodes=2"], None, "nnodes=2"),
        (launching.Device("cuda", 8), [], None, None),
        (launching.Device("cuda", 2), ["trainer.n_gpus_per_node=2"], None, None),
        (launching.Device("cuda", 2), [], "10.0.0.1:6379", None),
    ],
)
def test_more_gpus_than_there_are_are_refused_and_a_dry_run_says_so(
    here: launching.Device, words: list[str], address: str | None, said: str | None,
    tmp_path: Path, trained: list[Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(launching, "find_device", lambda: here)
    from omegaconf import OmegaConf

    (tmp_path / "t.parquet").touch()
    made = copy.deepcopy(on_this_machine(address))
    files = [f"data.{name}={tmp_path}/t.parquet" for name in ("train_files", "val_files")]
    for word in [*files, f"trainer.default_local_dir={tmp_path}/run", "actor_rollout_ref.model.path=org/model"]:
        OmegaConf.update(made[0][1], *word.split("="))
    for word in words:
        OmegaConf.update(made[0][1], word.split("=")[0], int(word.split("=")[1]))
    warned = [line for line in launch.describe(made).splitlines() if line.startswith("# warning: ")]
    if said is None:
        assert warned == [] and launch.run(made, lambda line: None) == 0 and len(trained) == 1
    else:
        assert len(warned) == 1 and re.search(said, warned[0])
        with pytest.raises(ConfigError, match=said):
            launch.run(made, lambda line: None)
        assert trained == []


@functools.cache
def _three_billion() -> Any:
    return compose.compose(compose.preset("aepo_3b"), [], launching.Device("cuda", 8))


def on_gpus(*overrides: str) -> Any:
    from omegaconf import OmegaConf

    config = copy.deepcopy(_three_billion())
    for word in overrides:
        name, _, value = word.partition("=")
        OmegaConf.update(config, name, yaml.safe_load(value))
    return config


def test_the_models_size_comes_from_its_folder(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from tests.models import tiny_text

    tiny_text.build(tmp_path / "model")
    config = on_gpus(f"actor_rollout_ref.model.path={tmp_path}/model")
    whole = load_file(tmp_path / "model" / "model.safetensors")
    told = json.loads((tmp_path / "model" / "config.json").read_text())
    for weights_there in (True, False):
        size = estimate.size_of(config)
        assert size is not None and not size.pictures
        assert size.model.parameters == sum(tensor.numel() for tensor in whole.values()), weights_there
        assert (size.model.layers, size.model.hidden, size.model.vocabulary) == (
            told["num_hidden_layers"], told["hidden_size"], told["vocab_size"],
        )  # fmt: skip
        (tmp_path / "model" / "model.safetensors").unlink(missing_ok=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model_type": "qwen2", "hidden_size": "x"}'])
def test_a_folder_without_a_model_is_told_in_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ConfigError, match="no model configuration") as refused:
        estimate.lines(on_gpus(f"actor_rollout_ref.model.path={tmp_path}"))
    assert len(str(refused.value).splitlines()) == 1


def test_broken_weights_are_no_matter_of_the_estimate(tmp_path: Path) -> None:
    from tests.models import tiny_text

    tiny_text.build(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    assert any("M parameters" in line for line in estimate.lines(on_gpus(f"actor_rollout_ref.model.path={tmp_path}")))


def test_a_folder_below_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.models import tiny_text

    tiny_text.build(tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = on_gpus()
    config.actor_rollout_ref.model.path = "~/model"
    size = estimate.size_of(config)
    assert size is not None and size.model.parameters < 10**7
    assert launch._offline(config)


def test_memory_follows_the_rules_of_supervised_training_and_adds_the_reference() -> None:
    size = estimate.size_of(on_gpus())
    assert size is not None and size.pictures
    alone = memory.training(size.model, ranks=8, tokens=32768, model_dtype="fp32", frozen_vision=False)
    both = memory.training(
        size.model, ranks=8, tokens=32768, model_dtype="fp32", frozen_vision=False, reference_dtype="fp32"
    )
    assert both.total - alone.total == both.reference == 4 * size.model.parameters // 8
    assert "reference model" in str(both) and "reference model" not in str(alone)
    for words, expected in (
        ((), both),
        (("aepo.kl.mode=off", "actor_rollout_ref.actor.use_kl_loss=false"), alone),
        (("actor_rollout_ref.ref.fsdp_config.param_offload=true",), alone),
    ):
        assert any(str(expected) in line for line in estimate.lines(on_gpus(*words))), words


def test_a_size_of_numbers_is_near_that_of_the_model(tmp_path: Path) -> None:
    from tests.models import tiny_text

    real = memory.size_of(str(tiny_text.build(tmp_path)))
    told = memory.size_by(real.parameters, real.layers, real.hidden, real.vocabulary)
    assert (told.parameters, told.layers, told.hidden, told.vocabulary) == (
        real.parameters, real.layers, real.hidden, real.vocabulary,
    )  # fmt: skip
    assert told.block == pytest.approx(real.block, rel=0.5)
    assert told.outside + told.layers * told.block <= told.parameters


def test_why_memory_is_unknown(tmp_path: Path) -> None:
    config = compose.compose(compose.preset("grpo"), [], launching.Device("cuda", 8))
    assert config.actor_rollout_ref.model.path == estimate.UNNAMED
    assert "memory of a GPU   unknown: no model is named; set actor_rollout_ref.model.path" in estimate.lines(config)
    config.actor_rollout_ref.model.path = "org/model"
    assert any("org/model is not on this machine" in line for line in estimate.lines(config))
    config.trainer.device = "cpu"
    assert any(line.startswith("memory of an actor unknown: org/model") for line in estimate.lines(config))
    assert not any("GPU" in line for line in estimate.lines(config))


def test_a_run_without_a_model_is_told_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").touch()
    files = [f"data.{name}={tmp_path}/t.parquet" for name in ("train_files", "val_files")]
    made = launch.plan(compose.preset("smoke_cpu"), [*files, f"trainer.default_local_dir={tmp_path}/run"])
    with pytest.raises(ConfigError, match=r"set actor_rollout_ref\.model\.path"):
        launch.run(made, lambda line: None)
