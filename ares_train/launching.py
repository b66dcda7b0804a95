"""verl as a child process: its device, environment and command line, its log, and its end.

The child runs behind ares_eval's guard in a session of its own: Ctrl-C and SIGTERM reach us, and we end the child and
everything that it started (torchrun's and Ray's processes are known by a mark in their environment); a launcher that
is killed takes the child with it. The child writes into a log file, which is shown as it grows. Its exit code is ours.
POSIX only.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, Literal

from ares_eval.inference.servers import guard

PLUGIN = "ares_train.plugin"

MARK = "ARES_TRAIN_LAUNCH"
"""Environment variable whose value is inherited by whatever a launch starts, in whichever session."""

STOP_GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL: Ray and torchrun end their own processes within it."""

LOOK_EVERY = 0.2
"""Seconds between two looks at whether the child ended or an end was asked for."""

TAIL_LINES = 15
_TAIL_BYTES = 16_384

_FP32 = "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}"

SFT_ON_CPU = (
    "trainer.device=cpu",
    "engine.strategy=fsdp2",
    "engine.model_dtype=fp32",
    f"++engine.mixed_precision={_FP32}",
    "engine.use_torch_compile=false",
    "model.use_remove_padding=false",
    "++model.override_config.attn_implementation=sdpa",
)
"""What verl's SFT trainer must be told where there is no GPU."""


def rl_on_cpu(processes: int = 1) -> tuple[str, ...]:
    """What verl's RL trainers must be told where there is no GPU; ``processes`` actors, each a logical GPU of Ray's."""
    engines = [
        word
        for role in ("actor", "ref")
        for word in (
            f"actor_rollout_ref.{role}.fsdp_config.model_dtype=fp32",
            f"++actor_rollout_ref.{role}.fsdp_config.mixed_precision={_FP32}",
            f"actor_rollout_ref.{role}.fsdp_config.use_torch_compile=false",
        )
    ]
    return (
        "trainer.device=cpu",
        f"trainer.n_gpus_per_node={processes}",
        "trainer.nnodes=1",
        # verl's bundles take 3 CPUs each; Ray counts logical ones, so that a laptop has enough.
        f"ray_kwargs.ray_init.num_cpus={8 * processes}",
        f"++ray_kwargs.ray_init.num_gpus={processes}",
        "++ray_kwargs.ray_init.include_dashboard=false",
        "++ray_kwargs.ray_init.object_store_memory=200000000",
        "actor_rollout_ref.model.use_remove_padding=false",
        "++actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        "actor_rollout_ref.actor.strategy=fsdp2",
        *engines,
        "actor_rollout_ref.rollout.name=hf_cpu",
        "actor_rollout_ref.rollout.dtype=float32",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
        "actor_rollout_ref.rollout.n_gpus_per_node=1",
        "actor_rollout_ref.rollout.free_cache_engine=false",
        "actor_rollout_ref.rollout.agent.num_workers=1",
        "reward.num_workers=1",
        "data.dataloader_num_workers=0",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    )


@dataclass(frozen=True, slots=True)
class Device:
    """Where training runs; ``count`` GPUs, or the CPU's usable cores."""

    name: Literal["cuda", "cpu"]
    count: int

    def __str__(self) -> str:
        return f"{self.count} GPU(s)" if self.name == "cuda" else "CPU backend: for tests and laptops"


@dataclass(frozen=True, slots=True)
class Ended:
    """``code`` of the child, 128 + signal where one ended it; ``tail``: the last lines that it wrote."""

    code: int
    tail: str


def find_device() -> Device:
    """CUDA where torch sees a GPU, else the CPU. Imports torch. ``VERL_PLATFORM=cpu`` asks for the CPU anyway."""
    import torch

    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "cpu" and torch.cuda.is_available():
        return Device("cuda", torch.cuda.device_count())
    return Device("cpu", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def environment(device: Device, *, processes: int = 1, offline: bool = False) -> dict[str, str]:
    """What a verl process's environment has besides ours: platform, plugin, threads; ``offline``: no Hub."""
    modules = [name for name in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if name]
    ours = {
        "VERL_USE_EXTERNAL_MODULES": ",".join([*modules, *([] if PLUGIN in modules else [PLUGIN])]),
        "PYTHONUNBUFFERED": "1",
        "HYDRA_FULL_ERROR": "1",
    }
    if device.name == "cpu":
        # With a GPU there, nothing may take it by accident.
        ours |= {"VERL_PLATFORM": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        ours["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(max(1, device.count // processes))
    if offline:
        ours |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return ours


def command(module: str, arguments: Sequence[str], *, processes: int = 1) -> list[str]:
    """The command line of ``module``: plain Python for one process, torchrun's on this machine for more.

    One process gets torch's rendezvous from ``single_rank``, which belongs into its environment.
    """
    if processes == 1:
        return [sys.executable, "-m", module, *arguments]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nnodes=1", f"--nproc-per-node={processes}"]
    return [sys.executable, *torchrun, "-m", module, *arguments]


def single_rank() -> dict[str, str]:
    """The environment that torchrun would give the only process of a run."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ones = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"), "1")
    zeros = dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK"), "0")
    return {**ones, **zeros, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def run(words: Sequence[str], extra: Mapping[str, str], log: Path, *, show: IO[bytes] | None = None) -> Ended:
    """Run the command ``words`` with ``extra`` in its environment until it ends; what it writes is appended to ``log``
    and shown (None: on our standard output).

    SIGINT, SIGTERM and SIGHUP end it, first in order (SIGTERM), after STOP_GRACE seconds by force. Nothing that it
    started outlives this call. Raises OSError where the log cannot be written.
    """
    mark = secrets.token_hex(16)
    out = sys.stdout.buffer if show is None else show
    log.parent.mkdir(parents=True, exist_ok=True)
    tail = b""
    with log.open("ab") as written, log.open("rb") as read, _asked_to_stop() as asked:
        read.seek(0, os.SEEK_END)
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(STOP_GRACE), *words],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            env={**os.environ, **extra, MARK: mark},
            start_new_session=True,
        )
        try:
            for piece in _growth(read, child, asked):
                out.write(piece)
                out.flush()
                tail = (tail + piece)[-_TAIL_BYTES:]
        finally:
            _end(child, mark)
    code = 128 + asked[0] if asked else child.returncode
    lines = [line for line in tail.decode("utf-8", "replace").replace("\r", "\n").splitlines() if line.strip()]
    return Ended(code if code >= 0 else 128 - code, "\n".join(lines[-TAIL_LINES:]))


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that the first signal that asks for an end is put into. Signals reach the main thread only."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before: dict[int, Any] = {
        number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _growth(log: IO[bytes], child: subprocess.Popen[bytes], asked: Sequence[int]) -> Iterator[bytes]:
    """What comes into ``log``, until the child ended or an end that was asked for came due."""
    told: float | None = None
    while True:
        ended = child.poll() is not None
        while piece := log.read(65_536):
            yield piece
        if ended or (told is not None and time.monotonic() - told > STOP_GRACE):
            return
        if asked and told is None:
            told = time.monotonic()
            _signal_group(child.pid, signal.SIGTERM)
        time.sleep(LOOK_EVERY)


def _end(child: subprocess.Popen[bytes], mark: str) -> None:
    """Kill what is left of the child's group and of the processes that carry its mark."""
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        try:
            child.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            _signal_group(child.pid, signal.SIGKILL)
    child.wait()
    _signal_group(child.pid, signal.SIGKILL)
    for process in marked(mark):
        with _gone_is_fine():
            os.kill(process, signal.SIGKILL)


def marked(mark: str) -> Iterable[int]:
    """Ids of this user's processes whose environment has ``mark``. Linux only; elsewhere there are none to be seen."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in variables and int(folder.name) != os.getpid():
            yield int(folder.name)


def _signal_group(group: int, number: signal.Signals) -> None:
    with _gone_is_fine():
        os.killpg(group, number)


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    """macOS says "not permitted" where only zombies are left."""
    try:
        yield
    except (ProcessLookupError, PermissionError):
        return
