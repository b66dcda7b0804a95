"""Stages, resuming and the end of a run, with the training process as a stand-in."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ares_eval.config import ConfigError
from ares_train import checkpoints, launching
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


def test_the_models_size_comes_from_its_folder(tmp_path: Path) -> None:
    from omegaconf import OmegaConf
    from safetensors.torch import load_file

    from tests.models import tiny_text

    tiny_text.build(tmp_path / "model")
    config = OmegaConf.create({"actor_rollout_ref": {"model": {"path": str(tmp_path / "model")}}})
    size = estimate.size_of(config)
    assert size is not None
    whole = load_file(tmp_path / "model" / "model.safetensors")
    assert size.parameters == sum(tensor.numel() for tensor in whole.values())
    told = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (size.layers, size.width, size.vocabulary) == (
        told["num_hidden_layers"], told["hidden_size"], told["vocab_size"],
    )  # fmt: skip
