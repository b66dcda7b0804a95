"""A child server: when it counts as ready, what a failed start says, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ares_eval.inference.servers import process
from ares_eval.inference.servers.errors import ServerFailed
from ares_eval.inference.servers.process import (
    Launch,
    ServerProcess,
    command_without_secrets,
    find_model,
    free_port,
    port_is_free,
)
from tests.servers.conftest import FAKE, gone


def launch(port: int, mode: str, tmp_path: Path, ready_within: float = 20.0) -> Launch:
    command = (sys.executable, str(FAKE), "--port", str(port), "--alias", "m")
    environment = {"FAKE_MODE": mode, "FAKE_PIDS": str(tmp_path / "pids")}
    return Launch(command, "m", port, environment=environment, ready_within=ready_within)


def pids(tmp_path: Path) -> list[int]:
    return [int(pid) for pid in (tmp_path / "pids").read_text().split()]


def test_ready_then_stopped_with_its_children(tmp_path: Path) -> None:
    port = free_port()
    with ServerProcess(launch(port, "ok", tmp_path), tmp_path / "log") as server:
        assert server.wait_ready() == {"id": "m", "max_model_len": 123}
        assert server.root == f"http://127.0.0.1:{port}"
        assert server.alive()
    assert not server.alive()
    assert all(gone(pid) for pid in pids(tmp_path))
    assert port_is_free(port)
    assert "loading weights" in (tmp_path / "log").read_text()
    server.stop()


@pytest.mark.parametrize(
    ("mode", "within", "said"),
    [
        ("exit", 20.0, ["ended with code 3", "out of memory: tried to allocate 80 GiB"]),
        ("deaf", 1.0, ["was not ready after 1 s: it does not answer", "loading weights"]),
        ("unlisted", 1.0, ["was not ready after 1 s: /v1/models does not list 'm'"]),
        ("refusing", 20.0, ["refused a chat of one token: HTTP 400: this model has no chat template"]),
    ],
)
def test_a_failed_start_says_why_and_leaves_nothing(tmp_path: Path, mode: str, within: float, said: list[str]) -> None:
    with (
        pytest.raises(ServerFailed) as caught,
        ServerProcess(launch(free_port(), mode, tmp_path, within), tmp_path / "log") as server,
    ):
        server.wait_ready()
    for words in [*said, str(tmp_path / "log")]:
        assert words in str(caught.value)
    if mode != "exit":
        assert all(gone(pid) for pid in pids(tmp_path))


def test_a_program_that_cannot_run(tmp_path: Path) -> None:
    with (
        ServerProcess(Launch(("/no/such/program",), "m", free_port()), tmp_path / "log") as server,
        pytest.raises(ServerFailed, match="ended with code 127") as caught,
    ):
        server.wait_ready()
    assert "/no/such/program" in str(caught.value)


def test_only_the_log_of_this_start_is_shown(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("an error of last week\n")
    with (
        ServerProcess(launch(free_port(), "exit", tmp_path), tmp_path / "log") as server,
        pytest.raises(ServerFailed) as caught,
    ):
        server.wait_ready()
    assert "last week" not in str(caught.value)
    assert "last week" in (tmp_path / "log").read_text()


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ServerFailed, match="is in use"):
            ServerProcess(launch(other.getsockname()[1], "ok", tmp_path), tmp_path / "log")
    assert not (tmp_path / "pids").exists()


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_GRACE", 0.5)
    with ServerProcess(launch(free_port(), "stubborn", tmp_path), tmp_path / "log") as server:
        server.wait_ready()
    assert all(gone(pid) for pid in pids(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_our_own_death_takes_the_server_along(tmp_path: Path, number: int) -> None:
    script = f"""
        import time
        from pathlib import Path
        from ares_eval.inference.servers.process import Launch, ServerProcess
        command = {(sys.executable, str(FAKE), "--port", str(free_port()), "--alias", "m")!r}
        launch = Launch(command, "m", int(command[3]), environment={{"FAKE_PIDS": {str(tmp_path / "pids")!r}}})
        server = ServerProcess(launch, Path({str(tmp_path / "log")!r}))
        server.wait_ready()
        print("ready", flush=True)
        time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(number)
    assert all(gone(pid) for pid in pids(tmp_path))
    assert "is gone; stopping" in (tmp_path / "log").read_text()


def test_an_exit_without_stop_stops_the_server(tmp_path: Path) -> None:
    script = f"""
        from pathlib import Path
        from ares_eval.inference.servers.process import Launch, ServerProcess
        command = {(sys.executable, str(FAKE), "--port", str(free_port()), "--alias", "m")!r}
        launch = Launch(command, "m", int(command[3]), environment={{"FAKE_PIDS": {str(tmp_path / "pids")!r}}})
        ServerProcess(launch, Path({str(tmp_path / "log")!r})).wait_ready()
        raise RuntimeError("the run broke")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert "the run broke" in done.stderr
    assert all(gone(pid, within=0.5) for pid in pids(tmp_path))


def test_the_thread_that_started_the_server_may_end(tmp_path: Path) -> None:
    """A death signal set in the child (PR_SET_PDEATHSIG) would fire here."""
    import threading

    started: list[ServerProcess] = []
    port = free_port()
    thread = threading.Thread(
        target=lambda: started.append(ServerProcess(launch(port, "ok", tmp_path), tmp_path / "log"))
    )
    thread.start()
    thread.join()
    with started[0] as server:
        server.wait_ready()
        time.sleep(0.2)
        assert server.alive()
        assert os.getpgid(server.pid) == server.pid


@pytest.mark.parametrize(
    "models", [None, [], {}, {"data": None}, {"data": [None, {"id": 3}]}, {"data": [{"id": "mm"}]}]
)
def test_model_lists_without_the_model(models: object) -> None:
    assert find_model(models, "m") is None


def test_secrets_are_hidden_in_shown_commands() -> None:
    command = ["serve", "--api-key", "sk-1", "--api-keys", "a", "b", "--hf-token=t", "--max-num-batched-tokens", "512"]
    command += ["--tokenizer", "x", "--port", "1"]
    shown = command_without_secrets(command)
    expected = ["serve", "--api-key", "***", "--api-keys", "***", "***", "--hf-token=***", "--max-num-batched-tokens"]
    assert shown == [*expected, "512", "--tokenizer", "x", "--port", "1"]
