"""Fixtures for servers: programs that look like vLLM's and others', and whether processes are gone."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake_server.py")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``program("vllm")`` puts a program of that name, our fake server, first on the PATH; its path is returned."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for variable in ("ARES_VLLM_PYTHON", "ARES_LMDEPLOY_PYTHON", "ARES_LLAMA_SERVER", "FAKE_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ARES_CACHE", str(tmp_path / "cache"))

    def make(name: str) -> Path:
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def gone(pid: int, within: float = 10.0) -> bool:
    """Whether a process ends (or is only left as a zombie) within some seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False
