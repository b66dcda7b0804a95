"""`ares-train doctor`: what is installed, what verl sees in a child and a Ray worker, and what is broken."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from ares_train import doctor
from ares_train.launching import Device

CPU, GPU = Device("cpu", 2), Device("cuda", 1)
WELL = {"names": 20, "plugin": True, "platform": "cpu", "engine": "CPULanguageModel", "rollouts": ["hf_cpu", "vllm"]}


def test_this_environment_is_well_in_a_child_and_in_a_ray_worker():
    done = subprocess.run(
        [sys.executable, "-m", "ares_train.cli", "doctor"],
        env={**os.environ, "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]
    lines = dict(line[7:].split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert lines["verl"] == "0.9.1 (==0.9.1)"
    for where in ("verl in a child process", "verl in a Ray worker"):
        assert "plugin loaded, platform cpu, engine CPULanguageModel" in lines[where]
        assert "hf_cpu" in lines[where]
    assert done.stdout.splitlines()[-1] == "all well"


def of(subject: str, findings) -> doctor.Finding:
    return next(finding for finding in findings if finding.subject == subject)


def test_a_missing_and_a_wrong_package_are_broken_with_the_command_that_mends_them(monkeypatch):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name.lower() == "transferqueue":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.8.0" if name == "verl" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = list(doctor.pins())
    missing, wrong = of("transferqueue", findings), of("verl", findings)
    assert (missing.verdict, missing.found) == ("broken", "not installed")
    assert missing.mend == "pip install 'transferqueue==0.1.11'"
    assert (wrong.verdict, wrong.found, wrong.mend) == ("broken", "0.8.0, wanted ==0.9.1", "pip install 'verl==0.9.1'")
    assert of("pyarrow", findings).verdict == "ok"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"child": WELL, "worker": {**WELL, "plugin": False}}, "plugin NOT loaded, platform cpu"),
        ({"child": WELL, "worker": {**WELL, "platform": "cuda"}}, "plugin loaded, platform cuda"),
        ({"child": WELL, "worker": {"error": "ImportError: no verl"}}, "ImportError: no verl"),
    ],
)
def test_a_worker_that_sees_something_else_is_broken(answer, told):
    child, worker = doctor.processes(CPU, answer)
    assert child.verdict == "ok"
    assert worker.verdict == "broken"
    assert told in worker.found
    assert worker.mend


def test_a_child_that_does_not_come_up_is_broken():
    (finding,) = doctor.processes(CPU, {"error": "RuntimeError: no memory"})
    assert finding.verdict == "broken"
    assert finding.found == "RuntimeError: no memory"


def test_a_gpu_without_rollout_engine_or_flash_attention_is_broken_and_a_cpu_is_not(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda module: None)
    assert {finding.verdict for finding in doctor.engines(CPU)} == {"ok"}
    assert {finding.subject: finding.verdict for finding in doctor.engines(GPU)} == {
        "rollout": "broken",
        "flash-attn": "broken",
    }
    assert of("torchvision", doctor.pictures(CPU)).verdict == "note"
    assert of("torchvision", doctor.pictures(GPU)).verdict == "broken"
