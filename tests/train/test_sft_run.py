"""`ares-train sft` for real, on tiny models and the CPU: it learns, its checkpoints are there, a run that was killed
goes on to the very weights of one that was not, and a frozen vision tower is bit for bit what it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.models import tiny_qwen_vl, tiny_text

ROOT = Path(__file__).parents[2]
MESSAGE = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
STEPS, SAVE = 30, 5


def command(folder: Path, model: Path, rows: Path, *more: str) -> list[str]:
    words = [f"model.path={model}", f"data.train_files={rows}", f"trainer.default_local_dir={folder}", *more]
    config = ROOT / "configs" / "train" / "sft_smoke_cpu.yaml"
    return [sys.executable, "-m", "ares_train.cli", "sft", "--offline", "--config", str(config), *words]


def finished(words: list[str]) -> str:
    """What the command prints; it must end well."""
    done = subprocess.run(
        words,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


def losses(folder: Path, start: int = 0) -> dict[int, float]:
    lines = (folder / "metrics" / f"from-step-{start}.jsonl").read_text().splitlines()
    return {line["step"]: line["data"]["train/loss"] for line in map(json.loads, lines) if "train/loss" in line["data"]}


def weights(folder: Path, step: int) -> dict[str, object]:
    """A rank's tensors, local ones: the checkpoint is our own, so that unpickling its DTensors is safe."""
    import torch

    file = folder / f"global_step_{step}" / "model_world_size_1_rank_0.pt"
    return {name: value.to_local() for name, value in torch.load(file, weights_only=False).items()}


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """A tiny text model and sums to learn, some of them for validation."""
    folder = tmp_path_factory.mktemp("sums")
    tiny_text.build(folder / "model")
    rows = [
        {"messages": [{"role": "user", "content": f"{a}+{b}=?"}, {"role": "assistant", "content": f"It is {a + b}."}]}
        for a in range(30)
        for b in range(20)
    ]
    schema = pa.schema([("messages", MESSAGE)])
    pq.write_table(pa.Table.from_pylist(rows[:560], schema=schema), folder / "train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[560:], schema=schema), folder / "val.parquet")
    return folder


def training(sums: Path, folder: Path) -> list[str]:
    more = [f"trainer.total_training_steps={STEPS}", f"trainer.save_freq={SAVE}", f"data.val_files={sums}/val.parquet"]
    return command(folder, sums / "model", sums / "train.parquet", *more)


@pytest.fixture(scope="module")
def whole(sums):
    """A run that nothing disturbs."""
    folder = sums / "whole"
    return folder, finished(training(sums, folder))


@pytest.fixture(scope="module")
def killed(sums, whole):
    """The same, killed at a checkpoint in the middle, and then started again; the step it went on from."""
    folder = sums / "killed"
    tracker = folder / "latest_checkpointed_iteration.txt"
    launcher = subprocess.Popen(
        training(sums, folder), env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, cwd=ROOT
    )
    deadline = time.monotonic() + 600
    while not tracker.exists():
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait(60)
    while str(folder) in processes():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    step = int(tracker.read_text())
    return folder, step, finished(training(sums, folder))


def processes() -> str:
    """Command lines of this user's processes."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return "\n".join(found)


def test_it_learns_and_validates(whole):
    folder, said = whole
    seen = losses(folder)
    assert list(seen) == list(range(1, STEPS + 1))
    assert seen[STEPS] < 0.5 * seen[1]
    assert "Final validation metrics: {'val/loss'" in said
    assert "CPU backend: for tests and laptops" in said


def test_configuration_log_and_checkpoints_are_in_its_folder(whole):
    folder, said = whole
    steps = sorted(int(path.name.rpartition("_")[2]) for path in folder.glob("global_step_*"))
    assert steps == list(range(SAVE, STEPS + 1, SAVE))
    assert (folder / "latest_checkpointed_iteration.txt").read_text() == str(STEPS)
    assert (folder / "global_step_5" / "huggingface" / "tokenizer_config.json").exists()
    assert "strategy: fsdp2" in (folder / "sft_config.yaml").read_text()
    assert (folder / "sft.log").read_text() in said


def test_a_killed_run_goes_on_to_the_weights_of_one_that_was_not(whole, killed):
    import torch

    folder, step, said = killed
    assert step < STEPS
    assert f"going on from step {step}" in said
    undisturbed = losses(whole[0])
    resumed = losses(folder, step)
    assert resumed == {number: undisturbed[number] for number in range(step + 1, STEPS + 1)}
    one, other = weights(whole[0], STEPS), weights(folder, STEPS)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_run_is_left_alone(sums, whole):
    before = (whole[0] / "sft.log").read_bytes()
    assert "nothing to do" in finished(training(sums, whole[0]))
    assert (whole[0] / "sft.log").read_bytes() == before


def test_a_dry_run_prints_configuration_resources_and_memory_and_starts_nothing(sums):
    folder = sums / "dry"
    said = finished([*training(sums, folder), "--dry-run"])
    assert "freeze_vision_tower" not in said
    assert "train_batch_size: 16" in said
    assert "device: CPU backend: for tests and laptops; 1 process(es)" in said
    assert "steps: 30 (35 an epoch)" in said
    assert "memory: about " in said
    assert not folder.exists()


def test_a_trainer_that_fails_gives_its_code_and_its_last_lines(sums, tmp_path):
    # A row longer than max_length: verl reads it in the first batch and raises.
    words = command(tmp_path / "run", sums / "model", sums / "train.parquet", "data.max_length=8")
    done = subprocess.run(
        words,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "verl's trainer ended with code 1; the end of" in done.stderr
    assert "is larger than self.max_length=8" in done.stderr


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """The tiny vision-language model, three steps with pictures by reference and rows of text among them."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("seeing")
    tiny_qwen_vl.build(folder / "model")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        name = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (56 + 28 * (number % 3), 84, 3), dtype=np.uint8)).save(name)
        shown = [{"image": str(name)}] if number % 4 else []
        question = f"{'<image>' * len(shown)}What is {number}?"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": f"It is {number}."}]
        rows.append({"messages": messages, "images": shown})
    schema = pa.schema([("messages", MESSAGE), ("images", pa.list_(pa.struct([("image", pa.string())])))])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "train.parquet")
    more = ["data.train_batch_size=8", "data.micro_batch_size_per_gpu=4", "trainer.total_training_steps=3"]
    run = command(
        folder / "run",
        folder / "model",
        folder / "train.parquet",
        *more,
        "++model.override_config.freeze_vision_tower=true",
    )
    return folder, finished(run)


def test_pictures_by_reference_are_learnt_from_with_the_vision_tower_bit_identical(seeing):
    import torch
    from transformers import AutoModelForImageTextToText

    folder, said = seeing
    assert "40 rows (with pictures)" in said
    seen = losses(folder / "run")
    assert seen[3] < seen[1]
    before = AutoModelForImageTextToText.from_pretrained(folder / "model", dtype=torch.float32).state_dict()
    after = weights(folder / "run", 3)
    tower = [name for name in after if ".visual." in name]
    assert len(tower) > 40
    assert all(torch.equal(before[name], after[name]) for name in tower)
    assert not any(torch.equal(before[name], after[name]) for name in after if name not in tower)


def test_the_checkpoint_names_its_processor_and_not_our_setting(seeing):
    folder = seeing[0] / "run" / "global_step_3" / "huggingface"
    assert "freeze_vision_tower" not in (folder / "config.json").read_text()
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        assert (folder / name).read_text() == (seeing[0] / "model" / name).read_text()
