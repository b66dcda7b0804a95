"""What verl's SFT trainer would fail on, or silently do otherwise than meant, found before it is started.

Each refusal is one ConfigError that names the setting and the mend. The facts are verl 0.9.1's (trainer/sft_trainer.py,
utils/dataset/multiturn_sft_dataset.py): steps are counted with the incomplete last batch dropped, a checkpoint is
written at the last step of ``total_training_steps`` only if there are that many, validation drops its incomplete batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ares_eval.config import ConfigError
from ares_train.checkpoints import RANK_FILE, latest_step, step_of, trouble

FREEZE = "freeze_vision_tower"
"""The key of model.override_config that ares_train.vision reads."""

OUR_ROWS = "pkg://ares_train.sft_rows"


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the run will do. ``done``: the step of its newest checkpoint, from which it goes on; 0 at the start."""

    rows: int
    validation_rows: int
    pictures: bool
    steps_an_epoch: int
    steps: int
    done: int

    @property
    def finished(self) -> bool:
        """Whether a checkpoint of the last step is there."""
        return self.done >= self.steps


def check(config: Any, processes: int) -> Schedule:
    """Refuse what cannot work with ``processes`` ranks; otherwise what the run will do."""
    sequence = int(config.engine.get("ulysses_sequence_parallel_size", 1) or 1)
    if processes % sequence:
        raise ConfigError(
            f"engine.ulysses_sequence_parallel_size={sequence} must divide the number of processes, {processes}"
        )
    if config.trainer.nnodes != 1:
        raise ConfigError(
            "trainer.nnodes: this command starts processes on this machine only; for more nodes, start "
            "`torchrun ... -m verl.trainer.sft_trainer` on each with the configuration of --dry-run"
        )
    ranks = processes // sequence
    _check_batches(config, ranks, sequence)
    model = _check_model(config)
    rows, pictures = _check_files(config, "train", model)
    validation, _ = _check_files(config, "val", model)
    _check_frequencies(config, validation)
    steps_an_epoch = rows // ranks // (config.data.train_batch_size // ranks)
    if steps_an_epoch == 0:
        raise ConfigError(
            f"data.train_batch_size={config.data.train_batch_size} is more than the {rows} rows of data.train_files: "
            "there would be no step"
        )
    in_all = steps_an_epoch * config.trainer.total_epochs
    steps = config.trainer.total_training_steps or in_all
    if steps > in_all:
        raise ConfigError(
            f"trainer.total_training_steps={steps}, but {config.trainer.total_epochs} epochs of {steps_an_epoch} steps "
            f"are {in_all}, and the last one would not be saved: raise trainer.total_epochs"
        )
    return Schedule(rows, validation, pictures, steps_an_epoch, int(steps), _done(config, processes))


def _check_batches(config: Any, ranks: int, sequence: int) -> None:
    data = config.data
    if data.pad_mode != "no_padding":
        raise ConfigError(f"data.pad_mode={data.pad_mode}: verl's engine takes no_padding only")
    if data.truncation == "left":
        raise ConfigError("data.truncation=left cuts the right end in verl 0.9.1: set error or right")
    if data.train_batch_size % ranks:
        raise ConfigError(f"data.train_batch_size={data.train_batch_size} must be a multiple of the {ranks} ranks")
    if data.use_dynamic_bsz:
        budget = data.max_token_len_per_gpu * sequence
        if budget < data.max_length:
            raise ConfigError(
                f"data.max_token_len_per_gpu={data.max_token_len_per_gpu} (times {sequence} of sequence parallelism) "
                f"holds no row of data.max_length={data.max_length}: raise it to {-(-data.max_length // sequence)}"
            )
    elif (data.train_batch_size // ranks) % data.micro_batch_size_per_gpu:
        raise ConfigError(
            f"data.micro_batch_size_per_gpu={data.micro_batch_size_per_gpu} must divide the "
            f"{data.train_batch_size // ranks} rows a rank: change it or set data.use_dynamic_bsz=true"
        )


def _check_model(config: Any) -> dict[str, Any] | None:
    """config.json of a model that is a folder; None for one that is on the Hub."""
    path = config.model.path
    if not path:
        raise ConfigError("model.path is not set: a folder or a Hub id")
    folder = Path(path).expanduser()
    found: dict[str, Any] | None = None
    if folder.is_dir():
        try:
            found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"model.path={path}: no readable config.json ({error})") from error
    elif path.startswith((".", "/", "~")):
        raise ConfigError(f"model.path={path}: there is no such folder")
    if (config.model.override_config or {}).get(FREEZE):
        if found is not None and "vision_config" not in found:
            raise ConfigError(
                f"model.override_config.{FREEZE}: {path} has no vision tower: set model.override_config.{FREEZE}=false"
            )
        if config.engine.strategy == "fsdp" and not config.engine.use_orig_params:
            raise ConfigError(f"model.override_config.{FREEZE} needs engine.strategy=fsdp2")
    return found


def _check_files(config: Any, split: str, model: dict[str, Any] | None) -> tuple[int, bool]:
    """Rows of the split's files that are used, and whether any has a picture."""
    files = config.data.get(f"{split}_files")
    if not files:
        if split == "train":
            raise ConfigError("data.train_files is not set: parquet files with a column `messages`")
        return 0, False
    rows, pictures = 0, False
    for file in [files] if isinstance(files, str) else files:
        count, some = _read(config, f"data.{split}_files", Path(file).expanduser())
        rows, pictures = rows + count, pictures or some
    if pictures and model is not None and "vision_config" not in model:
        raise ConfigError(f"data.{split}_files have pictures, but model.path={config.model.path} is a model of text")
    if pictures and config.data.truncation != "error":
        raise ConfigError(
            "data.truncation must be error for rows with pictures: verl cuts their tokens, not the pictures"
        )
    if pictures and (config.data.get("custom_cls") or {}).get("path") != OUR_ROWS:
        raise ConfigError(
            "rows with pictures and rows without fail in one batch of verl's dataset: "
            f"set data.custom_cls={{path: '{OUR_ROWS}', name: Rows}}"
        )
    limit = int(config.data.get(f"{split}_max_samples", -1) or -1)
    return (min(rows, limit) if limit > 0 else rows), pictures


def _read(config: Any, key: str, file: Path) -> tuple[int, bool]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        names: Sequence[str] = table.schema_arrow.names
        if config.data.messages_key not in names:
            raise ConfigError(f"{key}: {file} has no column {config.data.messages_key}, but {', '.join(names)}")
        column = config.data.get("image_key", "images")
        if column not in names:
            return table.metadata.num_rows, False
        pictures = table.read([column])[column]
    except FileNotFoundError as error:
        raise ConfigError(f"{key}: {file} is not there") from error
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{key}: {file} cannot be read: {error}") from error
    return table.metadata.num_rows, bool((pc.max(pc.list_value_length(pictures)).as_py() or 0) > 0)


def _check_frequencies(config: Any, validation: int) -> None:
    for key in ("save_freq", "test_freq"):
        value = config.trainer[key]
        if value != "after_each_epoch" and (not isinstance(value, int) or value == 0 or value < -1):
            raise ConfigError(f"trainer.{key}={value} must be -1, a number of steps, or after_each_epoch")
    if config.trainer.test_freq != -1 and not validation:
        raise ConfigError(f"trainer.test_freq={config.trainer.test_freq} without data.val_files: set them, or -1")
    if validation and validation < config.data.train_batch_size:
        raise ConfigError(
            f"data.val_files have {validation} rows, less than data.train_batch_size={config.data.train_batch_size}: "
            "verl drops an incomplete batch, so the loss would be of nothing"
        )


def _done(config: Any, processes: int) -> int:
    """The step that the run goes on from. A checkpoint of another number of processes cannot be gone on from."""
    if config.trainer.resume_mode == "disable":
        return 0
    folder = Path(config.trainer.default_local_dir)
    if config.trainer.resume_from_path:
        newest = Path(config.trainer.resume_from_path)
        step = step_of(newest)
        if step is None:
            raise ConfigError(f"trainer.resume_from_path={newest} is no folder global_step_N")
    else:
        step = latest_step(folder)
        if step is None:
            return 0
        newest = folder / f"global_step_{step}"
    if problem := trouble(newest):
        raise ConfigError(f"the checkpoint to go on from is not whole: {problem}; remove it, or take another folder")
    sizes = {int(found[1]) for file in newest.glob("model_*.pt") if (found := RANK_FILE.fullmatch(file.name))}
    if sizes and processes not in sizes:
        raise ConfigError(
            f"{newest} was written by {min(sizes)} processes: go on with --nproc {min(sizes)}, or merge it and start "
            "another run from the merged model"
        )
    return step
