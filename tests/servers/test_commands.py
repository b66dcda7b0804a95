"""`ares-eval doctor` and `ares-eval serve`, as they are called."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ares_eval import cli
from ares_eval.inference.servers.ask import ask
from ares_eval.inference.servers.process import free_port
from tests import loopback
from tests.servers.conftest import gone

Start = Callable[..., loopback.Server]


@pytest.fixture(autouse=True)
def no_server_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_doctor_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["server"] is None
    assert found["extras"]["core"]["aiohttp"]
    assert {"hf", "local", "vllm", "lmdeploy"} <= found["extras"].keys()
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "no server probed" in shown
    assert "aiohttp" in shown


def test_doctor_probes_a_server(start_loopback: Start, capsys: pytest.CaptureFixture[str]) -> None:
    url = start_loopback(dialect="vllm", api_key="sk-1").url
    arguments = ["doctor", "--openai-base-url", f"{url}/chat/completions", "--openai-api-key", "sk-1"]
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["server"]["top_logprobs"] == 20
    assert cli.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "20 alternatives" in shown
    assert "taken" in shown
    assert "sk-1" not in shown


def test_doctor_takes_the_server_from_the_environment(
    start_loopback: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", start_loopback().url)
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["server"]["chat"] is True


def test_doctor_where_nobody_answers(start_loopback: Start, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--openai-base-url", f"http://127.0.0.1:{free_port()}/v1"]) == 4
    assert "refused" in capsys.readouterr().err
    assert cli.main(["doctor", "--openai-base-url", start_loopback(api_key="right").url]) == 2
    assert cli.main(["doctor", "--openai-base-url", "ftp://x"]) == 2


def test_serve_stays_until_it_is_stopped(program: Callable[[str], Path], tmp_path: Path) -> None:
    program("llama-server")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    port = free_port()
    command = [sys.executable, "-m", "ares_eval.cli", "serve", f"llama.cpp:{tmp_path / 'm.gguf'}", "--port", str(port)]
    environment = {**os.environ, "FAKE_PIDS": str(tmp_path / "pids")}
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as serving:
            assert serving.stdout is not None
            assert f"m at http://127.0.0.1:{port}/v1" in serving.stdout.readline()
            assert f"--openai-base-url http://127.0.0.1:{port}/v1 --model-name m" in serving.stdout.readline()
            assert ask(f"http://127.0.0.1:{port}/v1/models").ok
            serving.send_signal(number)
            assert serving.wait(20) == 0
        assert all(gone(int(pid), within=0.5) for pid in (tmp_path / "pids").read_text().split())
    assert (tmp_path / "cache" / "logs" / "server-llama.cpp.log").exists()


def test_serve_says_when_its_server_dies(
    program: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("llama-server")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    command = [sys.executable, "-m", "ares_eval.cli", "serve", f"llama.cpp:{tmp_path / 'm.gguf'}"]
    environment = {**os.environ, "FAKE_PIDS": str(tmp_path / "pids")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as serving:
        assert serving.stdout is not None and serving.stderr is not None
        serving.stdout.readline()
        server, child = map(int, (tmp_path / "pids").read_text().split())
        os.kill(server, signal.SIGKILL)
        assert serving.wait(20) == 4
        assert "the server ended during the run" in serving.stderr.read()
    assert gone(child)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [(["vlm:x"], 2, "did you mean vllm?"), (["embedded:x"], 2, "takes no model")],
)
def test_serve_refuses(arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", *arguments]) == code
    assert said in capsys.readouterr().err


def test_serve_shows_why_a_start_failed(
    program: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program("llama-server")
    monkeypatch.setenv("FAKE_MODE", "exit")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert cli.main(["serve", f"llama.cpp:{tmp_path / 'm.gguf'}"]) == 4
    assert "out of memory" in capsys.readouterr().err
