"""Real runs of `ares-train launch` on the CPU, for tests: start, wait for a step, kill, and read what they logged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MARK = "ARES_TEST_RUN"
PATIENCE = 900
"""Seconds that a run may take on a busy machine."""

COMMON = """
defaults: [{preset}, _self_]
data: {{train_files: {task}/train.parquet, val_files: {task}/val.parquet, train_batch_size: 8,
  max_prompt_length: {prompt}, max_response_length: {response}}}
actor_rollout_ref:
  model: {{path: {task}/model}}
  actor: {{ppo_mini_batch_size: {mini}, ppo_max_token_len_per_gpu: 2048, kl_loss_coef: 0.1, optim: {{lr: 1.0e-3}}}}
  rollout: {{n: 4, max_num_batched_tokens: 4096}}
trainer: {{default_local_dir: {run}, test_freq: -1, val_before_train: false}}
"""


def write_config(file: Path, preset: str, task: Path, run: Path, more: str = "", *, mini: int = 4, prompt: int = 32,
                 response: int = 20) -> Path:  # fmt: skip
    """A configuration that builds on ``preset``; ``more`` is YAML that is merged in."""
    import yaml

    common = COMMON.format(preset=preset, task=task, run=run, mini=mini, prompt=prompt, response=response)
    merged = _merge(yaml.safe_load(common), yaml.safe_load(more) or {})
    file.write_text(yaml.safe_dump(merged, sort_keys=False))
    return file


def _merge(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{key: _merge(one.get(key), value) if key in one else value for key, value in other.items()}}
    return other


@contextmanager
def ray_folder() -> Iterator[str]:
    """A folder for Ray: its sockets allow no long path."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def environment() -> dict[str, str]:
    """For a run on the CPU whose processes can be found again by the value of MARK."""
    return {
        **os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", MARK: uuid.uuid4().hex,
        # A busy machine needs more than a minute to start Ray.
        "RAY_raylet_start_wait_time_s": "300",
    }  # fmt: skip


def command(config: Path, ray: str, *overrides: str) -> list[str]:
    temp = f"+ray_kwargs.ray_init._temp_dir={ray}"
    return [sys.executable, "-m", "ares_train.cli", "launch", "--config", str(config), temp, *overrides]


def run(config: Path, ray: str, *overrides: str) -> None:
    """A whole run; a failure shows the end of its output."""
    done = subprocess.run(
        command(config, ray, *overrides), env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, (done.stdout[-4000:], done.stderr[-4000:])


def kill_after(config: Path, ray: str, metrics: Path, step: int) -> tuple[list[str], list[int]]:
    """Start a run and kill its launcher with SIGKILL once ``metrics`` has ``step``: the command lines of its processes
    just before, and those processes that outlive it by more than a minute."""
    env = environment()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command(config, ray), env=env, stdout=output, stderr=subprocess.STDOUT)
        end = time.monotonic() + PATIENCE
        while not (metrics.exists() and any(logged == step for logged, _ in read(metrics))):
            if child.poll() is not None or time.monotonic() > end:
                child.kill()
                output.seek(0)
                raise AssertionError(f"no step {step}: {output.read()[-4000:].decode(errors='replace')}")
            time.sleep(0.2)
        there = [command_line(process) for process in processes(env[MARK])]
        child.send_signal(signal.SIGKILL)
        child.wait()
    end = time.monotonic() + 60
    while (left := processes(env[MARK])) and time.monotonic() < end:
        time.sleep(0.5)
    return there, left


def processes(mark: str) -> list[int]:
    """Those whose environment has the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def command_line(process: int) -> str:
    """Empty where it has ended meanwhile."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def read(metrics: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, metrics) of each whole line."""
    lines = metrics.read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(row["step"], row["data"]) for row in rows]
