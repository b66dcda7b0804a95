"""The platform ``cpu`` of verl's registry, chosen by ``VERL_PLATFORM=cpu``.

Importing this module registers it and lets torch take the backend string that verl builds for it. Ray's resource stays
"GPU", as a logical one (``ray.init(num_gpus=N)``): verl's resource pools count nothing else.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _device_module() -> types.ModuleType:
    """What verl calls on ``torch.<device>``: torch.cpu, and zero or nothing where a CPU has no such thing."""
    module = types.ModuleType("ares_train.verl_cpu.device")
    for name in torch.cpu.__all__:
        setattr(module, name, getattr(torch.cpu, name))

    def nothing(*_: Any, **__: Any) -> None: ...

    def zero(*_: Any, **__: Any) -> int:
        return 0

    for name in (
        "empty_cache",
        "ipc_collect",
        "reset_peak_memory_stats",
        "set_device",
        "set_per_process_memory_fraction",
    ):
        setattr(module, name, nothing)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, zero)
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "get_device_name": lambda *_: "cpu",
        "manual_seed": torch.manual_seed,
        "manual_seed_all": torch.manual_seed,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "mem_get_info": lambda *_: _memory(),
    }
    for name, answer in answers.items():
        setattr(module, name, answer)
    return module


def _memory() -> tuple[int, int]:
    """Free and total bytes of this machine, as torch.cuda.mem_get_info gives them for a GPU."""
    page = os.sysconf("SC_PAGE_SIZE")
    return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """One CPU device a process."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        # verl gives this to Tensor.to(), where a number would mean a CUDA device.
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:  # noqa: ARG002
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:  # noqa: ARG002
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


VERLS_BACKEND = "cpu:gloo,cpu:gloo"
"""What verl asks torch for on a CPU (``cpu:gloo,{device}:{backend}``); torch refuses to hear of a device twice."""


def _take_verls_backend() -> None:
    original = torch.distributed.init_process_group
    if getattr(original, "takes_verls_backend", False):
        return

    def init_process_group(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return original("cpu:gloo" if backend == VERLS_BACKEND else backend, *args, **kwargs)

    init_process_group.takes_verls_backend = True  # type: ignore[attr-defined]
    torch.distributed.init_process_group = init_process_group


_take_verls_backend()
