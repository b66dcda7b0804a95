"""Settings that verl's SFT trainer would fail on, or quietly do otherwise than meant, are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from ares_eval.config import ConfigError
from ares_train import launching, memory, sft, verl_config
from ares_train.sft_checks import check

PRESETS = Path(__file__).parents[2] / "configs" / "train"
MESSAGE = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def write_rows(file: Path, count: int, *, pictures: bool = False, column: str = "messages") -> Path:
    rows = [{column: [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]} for _ in range(count)]
    fields = [(column, MESSAGE)]
    if pictures:
        fields.append(("images", pa.list_(pa.struct([("image", pa.string())]))))
        rows = [{**row, "images": [{"image": "x.png"}] if number % 2 else []} for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), file)
    return file


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of models (their configuration is all that is read) and files of rows."""
    folder = tmp_path_factory.mktemp("sft")
    for name, config in (("text", {"model_type": "qwen2"}), ("seeing", {"model_type": "x", "vision_config": {}})):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    write_rows(folder / "train.parquet", 100)
    write_rows(folder / "few.parquet", 10)
    write_rows(folder / "pictures.parquet", 100, pictures=True)
    write_rows(folder / "other.parquet", 100, column="conversation")
    (folder / "no.parquet").write_text("this is no parquet")
    return folder


@pytest.fixture(scope="module")
def base(places):
    words = [f"model.path={places}/text", f"data.train_files={places}/train.parquet"]
    return verl_config.compose(PRESETS / "sft_smoke_cpu.yaml", words)


def changed(base, places, tmp_path, **changes):
    """The smoke preset with ``changes``; ``__`` stands for a dot and PLACES for the fixture's folder."""
    OmegaConf.set_struct(base, False)
    config = base.copy()
    config.trainer.default_local_dir = str(tmp_path)
    for key, value in changes.items():
        value = value.replace("PLACES", str(places)) if isinstance(value, str) else value
        OmegaConf.update(config, key.replace("__", "."), value, merge=False)
    return config


def test_the_schedule_of_a_run_that_can_be(base, places, tmp_path):
    schedule = check(changed(base, places, tmp_path), 1)
    assert (schedule.rows, schedule.steps_an_epoch, schedule.steps, schedule.done) == (100, 6, 6, 0)
    assert not schedule.pictures
    assert not schedule.finished


@pytest.mark.parametrize(
    ("epochs", "ranks", "batch", "limit", "steps"),
    [(1, 1, 16, -1, 6), (3, 1, 16, -1, 18), (2, 2, 16, -1, 12), (1, 3, 12, -1, 8), (1, 1, 16, 40, 2)],
)
def test_steps_are_counted_as_verl_counts_them(base, places, tmp_path, epochs, ranks, batch, limit, steps):
    config = changed(
        base, places, tmp_path, trainer__total_epochs=epochs, trainer__total_training_steps=None,
        data__train_batch_size=batch, data__train_max_samples=limit, data__micro_batch_size_per_gpu=4,
    )  # fmt: skip
    assert check(config, ranks).steps == steps
    # As torch's sampler and loader do: each rank gets whole shares of the rows, and whole batches of those.
    import torch
    from torch.utils.data import DataLoader, DistributedSampler

    rows = list(range(min(100, limit) if limit > 0 else 100))
    sampler = DistributedSampler(rows, num_replicas=ranks, rank=0, drop_last=True)
    loader = DataLoader(torch.tensor(rows), batch_size=batch // ranks, sampler=sampler, drop_last=True)
    assert len(loader) * epochs == steps


def test_pictures_are_seen_in_the_files(base, places, tmp_path):
    config = changed(base, places, tmp_path, data__train_files="PLACES/pictures.parquet", model__path="PLACES/seeing")
    assert check(config, 1).pictures


@pytest.mark.parametrize(
    ("changes", "processes", "told"),
    [
        ({"model__path": None}, 1, "model.path is not set"),
        ({"model__path": "PLACES/nowhere"}, 1, "there is no such folder"),
        ({"model__path": "PLACES/broken"}, 1, "no readable config.json"),
        ({"data__train_files": None}, 1, "data.train_files is not set"),
        ({"data__train_files": "PLACES/gone.parquet"}, 1, "gone.parquet is not there"),
        ({"data__train_files": "PLACES/no.parquet"}, 1, "no.parquet cannot be read"),
        ({"data__train_files": "PLACES/other.parquet"}, 1, "has no column messages, but conversation"),
        ({"data__train_files": "PLACES/few.parquet"}, 1, "is more than the 10 rows"),
        ({"data__train_files": "PLACES/pictures.parquet"}, 1, "is a model of text"),
        ({"trainer__test_freq": 2}, 1, "trainer.test_freq=2 without data.val_files"),
        ({"trainer__test_freq": "after_each_epoch"}, 1, "test_freq=after_each_epoch without data.val_files"),
        ({"trainer__test_freq": 0}, 1, "trainer.test_freq=0 must be"),
        ({"trainer__save_freq": 0}, 1, "trainer.save_freq=0 must be"),
        ({"trainer__save_freq": "daily"}, 1, "trainer.save_freq=daily must be"),
        ({"data__val_files": "PLACES/few.parquet"}, 1, "data.val_files have 10 rows, less than"),
        ({"trainer__total_training_steps": 7}, 1, "1 epochs of 6 steps are 6, and the last one would not be saved"),
        ({"data__train_batch_size": 15}, 2, "must be a multiple of the 2 ranks"),
        ({"data__micro_batch_size_per_gpu": 5}, 1, "must divide the 16 rows a rank"),
        ({"data__use_dynamic_bsz": True, "data__max_token_len_per_gpu": 100}, 1, "holds no row of data.max_length=256"),
        ({"engine__ulysses_sequence_parallel_size": 2}, 1, "must divide the number of processes, 1"),
        ({"trainer__nnodes": 2}, 1, "on this machine only"),
        ({"data__pad_mode": "right"}, 1, "takes no_padding only"),
        ({"data__truncation": "left"}, 1, "cuts the right end"),
        ({"model__override_config": {"freeze_vision_tower": True}}, 1, "has no vision tower"),
    ],
)
def test_what_cannot_work_is_refused_with_the_mend(base, places, tmp_path, changes, processes, told):
    with pytest.raises(ConfigError) as refused:
        check(changed(base, places, tmp_path, **changes), processes)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data__truncation": "right"}, "data.truncation must be error for rows with pictures"),
        ({"data__custom_cls": {"path": None, "name": None}}, "set data.custom_cls={path: 'pkg://ares_train.sft_rows'"),
        (
            {"model__override_config": {"freeze_vision_tower": True}, "engine__strategy": "fsdp"},
            "freeze_vision_tower needs engine.strategy=fsdp2",
        ),
    ],
)
def test_what_cannot_work_with_pictures_is_refused(base, places, tmp_path, changes, told):
    seeing = {"data__train_files": "PLACES/pictures.parquet", "model__path": "PLACES/seeing"}
    with pytest.raises(ConfigError) as refused:
        check(changed(base, places, tmp_path, **seeing, **changes), 1)
    assert told in str(refused.value)


def write_checkpoint(folder: Path, step: int, *, ranks: int = 1, tracker: bool = True) -> None:
    """The files of a checkpoint by name; whole enough for what is looked at."""
    place = folder / f"global_step_{step}"
    (place / "huggingface").mkdir(parents=True)
    (place / "huggingface" / "config.json").write_text("{}")
    import torch

    for rank in range(ranks):
        torch.save({}, place / f"model_world_size_{ranks}_rank_{rank}.pt")
    if tracker:
        (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_a_run_goes_on_from_its_newest_checkpoint_and_knows_when_it_is_finished(base, places, tmp_path):
    write_checkpoint(tmp_path, 3)
    write_checkpoint(tmp_path, 5, tracker=False)
    schedule = check(changed(base, places, tmp_path), 1)
    assert schedule.done == 3
    assert not schedule.finished
    write_checkpoint(tmp_path, 6)
    assert check(changed(base, places, tmp_path), 1).finished
    assert check(changed(base, places, tmp_path, trainer__resume_mode="disable"), 1).done == 0


def test_a_checkpoint_of_other_ranks_is_refused_with_the_number_that_works(base, places, tmp_path):
    write_checkpoint(tmp_path, 3, ranks=2)
    with pytest.raises(ConfigError, match="was written by 2 processes: go on with --nproc 2"):
        check(changed(base, places, tmp_path), 1)


def test_a_checkpoint_that_is_gone_is_told_and_not_passed_over(base, places, tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("4")
    with pytest.raises(ConfigError, match="the checkpoint to go on from is not whole"):
        check(changed(base, places, tmp_path), 1)


@pytest.mark.parametrize("name", ["sft_3b", "sft_7b"])
def test_the_presets_are_the_papers_where_it_says_something(name, places, tmp_path):
    config = verl_config.compose(PRESETS / f"{name}.yaml", [f"data.train_files={places}/pictures.parquet"])
    assert config.optim.lr == 2e-5
    assert (config.trainer.total_epochs, config.data.train_batch_size, config.data.max_length) == (2, 256, 32768)
    assert config.model.override_config.freeze_vision_tower is True
    assert config.data.max_token_len_per_gpu * config.engine.ulysses_sequence_parallel_size == 32768
    config.data.train_batch_size = 16
    assert check(config, 8).steps == 2 * (100 // 8 // 2)


@pytest.mark.parametrize("offline", [True, False])
def test_the_memory_of_an_offline_run_is_estimated_offline(base, tmp_path, monkeypatch, offline):
    from huggingface_hub import constants

    asked = []

    def size_of(path, **_):
        asked.append(constants.HF_HUB_OFFLINE)
        raise ConfigError(f"{path}: no model configuration")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(memory, "size_of", size_of)
    device = launching.Device("cpu", 1)
    environment = launching.environment(device, offline=offline)
    planned = sft.Plan(base, device, 1, tmp_path, None, (), environment)
    assert planned.memory().startswith("not estimated: ")
    assert asked == [offline]
    assert not constants.HF_HUB_OFFLINE
