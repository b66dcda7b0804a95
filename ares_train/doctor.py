"""Whether training can work in this environment: what is installed, what verl sees, what is broken and how to mend it.

verl and Ray are looked at from a child process, with the environment that a training run would get: run as
``python -m ares_train.doctor``, this module imports verl there and in a Ray worker and prints what both saw as JSON.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ares_train import launching, verl_compat
from ares_train.launching import Device

PROBE_SECONDS = 600.0
"""For the child that imports verl and starts Ray: 30 s on an idle machine with two cores, much more on a busy one."""

ROLLOUT_ENGINES = ("vllm", "sglang")


@dataclass(frozen=True, slots=True)
class Finding:
    """``verdict``: "ok", "note" (works, but worth knowing) or "broken"; ``mend``: what to do about it."""

    subject: str
    found: str
    verdict: Literal["ok", "note", "broken"] = "ok"
    mend: str = ""


def examine() -> Iterator[Finding]:
    """All findings, the slow ones last."""
    yield from pins()
    if verl_compat.found_version() is None or importlib.util.find_spec("torch") is None:
        return
    device = launching.find_device()
    yield from devices(device)
    yield from engines(device)
    yield from pictures(device)
    yield from processes(device, probe(device))


def pins() -> Iterator[Finding]:
    """What our train extra and verl itself require, against what is installed."""
    from packaging.requirements import Requirement

    supported = (3, 11) <= sys.version_info < (3, 13)
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", version, *(() if supported else ("broken", "verl 0.9.1 runs on Python 3.11 and 3.12")))
    wanted = [Requirement(text) for text in importlib.metadata.requires("ares") or ()]
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": "train"})]
    with_verl = verl_compat.found_version() is not None
    verls = [Requirement(text) for text in importlib.metadata.requires("verl") or ()] if with_verl else []
    seen = set()
    for requirement in [
        *needed,
        *(each for each in verls if each.marker is None or each.marker.evaluate({"extra": ""})),
    ]:
        key = (requirement.name.lower().replace("_", "-"), str(requirement.specifier))
        if key in seen:
            continue
        seen.add(key)
        yield _pin(requirement)


def _pin(requirement: Any) -> Finding:
    text = f"{requirement.name}{requirement.specifier}"
    try:
        found = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(requirement.name, "not installed", "broken", f"pip install '{text}'")
    if requirement.specifier.contains(found, prereleases=True):
        return Finding(requirement.name, f"{found} ({requirement.specifier or 'any'})")
    return Finding(requirement.name, f"{found}, wanted {requirement.specifier}", "broken", f"pip install '{text}'")


def devices(device: Device) -> Iterator[Finding]:
    """GPUs with their memory, or the CPU backend."""
    import torch

    if device.name == "cpu":
        reason = "VERL_PLATFORM=cpu is set" if torch.cuda.is_available() else "torch sees no GPU"
        yield Finding("device", f"{device} ({reason}, {device.count} core(s), torch {torch.__version__})", "note")
        return
    for number in range(device.count):
        about = torch.cuda.get_device_properties(number)
        yield Finding(f"GPU {number}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB")


def engines(device: Device) -> Iterator[Finding]:
    """Rollout engines and attention kernels."""
    there = {name: _version(name) for name in ROLLOUT_ENGINES}
    for name, version in there.items():
        if version is not None:
            yield Finding(f"rollout {name}", version)
    if device.name == "cpu":
        yield Finding("rollout hf_cpu", "ours: exact entropies, reproducible draws")
    elif not any(there.values()):
        yield Finding(
            "rollout", "neither vllm nor sglang", "broken", "pip install vllm==0.24.0 (what verl 0.9.1 tests)"
        )
    if device.name == "cuda" and _version("flash_attn") is None:
        yield Finding(
            "flash-attn", "not installed", "broken", "the GPU presets pack rows with it: pip install flash-attn"
        )


def pictures(device: Device) -> Iterator[Finding]:
    """What reads pictures."""
    for module in ("qwen_vl_utils", "torchvision"):
        version = _version(module)
        name = module.replace("_", "-")
        if version is not None:
            yield _imports(module, name, version)
        elif module == "torchvision" and device.name == "cpu":
            yield Finding(name, "not installed: pictures work without it on the CPU, videos do not", "note")
        else:
            yield Finding(name, "not installed", "broken", f"training with pictures needs it: pip install {name}")


def _imports(module: str, name: str, version: str) -> Finding:
    """PyPI's torchvision is built for CUDA: beside another torch it is installed and cannot be imported."""
    if module == "qwen_vl_utils" and _version("torchvision") is None:
        return Finding(name, version)
    try:
        importlib.import_module(module)
    except (ImportError, RuntimeError, OSError) as error:
        told = f"{version}, but importing it fails: {str(error).splitlines()[0]}"
        return Finding(name, told, "broken", f"install the {name} that belongs to this torch, or none on a CPU")
    return Finding(name, version)


def probe(device: Device) -> Mapping[str, Any]:
    """What a child process and a Ray worker of it see; ``{"error": ...}`` where it did not come to that.

    Ray gives its own processes 30 seconds to start and cannot be told otherwise: on a busy machine it is tried again.
    """
    answer = _probe_once(device)
    if "timed out during startup" in str(answer):
        answer = _probe_once(device)
    return answer


def _probe_once(device: Device) -> Mapping[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "ares_train.doctor"],
            env={**os.environ, **launching.environment(device)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"verl and Ray were not up after {PROBE_SECONDS:.0f} s"}
    answer: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith('{"'):
            answer |= json.loads(line)
    if "worker" not in answer:
        told = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        problem = {"error": told[-1] if told else f"ended with code {done.returncode}"}
        answer = {**answer, "worker": problem} if "child" in answer else problem
    return answer


def processes(device: Device, answer: Mapping[str, Any]) -> Iterator[Finding]:
    """From what ``probe`` saw."""
    if "error" in answer:
        yield Finding(
            "verl in a child process", answer["error"], "broken", "`python -m ares_train.doctor` shows all of it"
        )
        return
    for key, where in (("child", "verl in a child process"), ("worker", "verl in a Ray worker")):
        seen = answer[key]
        if "error" in seen:
            yield Finding(where, seen["error"], "broken", "`python -m ares_train.doctor` shows all of it")
        elif not seen["plugin"] or seen["platform"] != device.name:
            yield Finding(
                where,
                f"plugin {'loaded' if seen['plugin'] else 'NOT loaded'}, platform {seen['platform']}",
                "broken",
                "workers must inherit VERL_USE_EXTERNAL_MODULES and VERL_PLATFORM: start Ray from this environment",
            )
        else:
            yield Finding(
                where,
                f"{seen['names']} names checked, plugin loaded, platform {seen['platform']}, engine {seen['engine']}, "
                f"rollouts {', '.join(seen['rollouts'])}",
            )


def see() -> dict[str, Any]:
    """What this process sees of verl; imports it."""
    try:
        import verl  # noqa: F401

        names = verl_compat.check()
        from verl.utils.device import get_device_name
        from verl.workers.engine.base import EngineRegistry
        from verl.workers.rollout.replica import RolloutReplicaRegistry

        return {
            "names": names,
            "plugin": launching.PLUGIN in sys.modules,
            "platform": get_device_name(),
            "engine": EngineRegistry.get_engine_cls("language_model", "fsdp2").__name__,
            "rollouts": sorted(RolloutReplicaRegistry._registry),
        }
    except (ImportError, verl_compat.IncompatibleVerl, ValueError) as error:
        return {
            "error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}"
        }


def _tell() -> None:
    """Print what this process sees, and then what a Ray worker of it sees, a line of JSON each."""
    import ray

    _print({"child": see()})
    ray.init(
        address="local", num_cpus=1, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False,
        logging_level="error",
    )  # fmt: skip
    try:
        _print({"worker": ray.get(ray.remote(see).remote())})
    finally:
        ray.shutdown()


def _print(seen: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(seen) + "\n")
    sys.stdout.flush()


def _version(module: str) -> str | None:
    """The version of an installed module, from its metadata; None where it is not installed."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "installed"


if __name__ == "__main__":
    # Found under its own name by the worker, not as __main__.
    from ares_train import doctor

    doctor._tell()
