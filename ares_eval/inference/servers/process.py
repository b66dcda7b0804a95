"""A model server as a child process: started, watched until it is ready, and stopped whatever happens.

Ready means: the process lives AND its health page answers (where it has one) AND ``/v1/models`` lists the model AND a
chat of one token is answered; an open port alone proves nothing. A start that fails raises ServerFailed with the last
lines of the log. The server runs in a session of its own behind ``guard.py``, so that Ctrl-C does not reach it, and it
ends with us even when we are killed. POSIX only.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ares_eval.inference.servers.ask import Unreachable, ask
from ares_eval.inference.servers.errors import ServerFailed

HOST = "127.0.0.1"

STOP_GRACE = 15.0
"""Seconds between SIGTERM and SIGKILL: vLLM needs some to end its engine processes in order."""

PROBE_TIMEOUT = 300.0
"""Seconds for the one-token chat: on a loaded 2-core machine 24 tokens have taken 70."""

TAIL_LINES = 15
_GUARD = Path(__file__).with_name("guard.py")


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one server.

    ``port`` is the port it was told to use; or None, and then it writes its root URL into ``announce``. ``health`` is
    the path of its health page. ``ready_within`` is in seconds.
    """

    command: tuple[str, ...]
    model_name: str
    port: int | None = None
    announce: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str | None = "/health"
    ready_within: float = 600.0


class ServerProcess:
    """A running server; ``root`` is its URL without ``/v1``. Use as a context manager, or call ``stop``."""

    def __init__(self, launch: Launch, log_path: Path, api_key: str | None = None) -> None:
        """Start the process (not yet ready); raises ServerFailed where the port is taken or the program cannot run."""
        self.launch = launch
        self.log_path = log_path
        self.root = "" if launch.port is None else f"http://{HOST}:{launch.port}"
        self._api_key = api_key
        if launch.port is not None and not port_is_free(launch.port):
            raise ServerFailed(f"port {launch.port} is in use by another program; choose another with --port")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), str(STOP_GRACE), *launch.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **launch.environment},
                start_new_session=True,
            )
        atexit.register(self.stop)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The guard's process id, which is also the id of the server's process group and session."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the server's process still runs."""
        return self._process.poll() is None

    def last_lines(self, count: int = TAIL_LINES) -> str:
        """The end of what this start wrote into the log."""
        with self.log_path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - 16_384))
            text = log.read().decode("utf-8", "replace")
        return "\n".join([line for line in text.splitlines() if line.strip()][-count:])

    def wait_ready(self) -> Mapping[str, object]:
        """Wait until the server is ready; its entry of ``/v1/models`` is returned. Raises ServerFailed."""
        deadline = time.monotonic() + self.launch.ready_within
        pause, missing = 0.05, "it does not listen yet"
        while True:
            if not self.alive():
                raise self._failed(f"ended with code {self._process.returncode} before it was ready")
            try:
                missing, entry = self._look()
            except Unreachable as error:
                missing, entry = f"it does not answer ({error})", None
            if entry is not None:
                self._first_token(deadline)
                return entry
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready after {self.launch.ready_within:.0f} s: {missing}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def stop(self) -> None:
        """SIGTERM to the server's whole group, SIGKILL after ``STOP_GRACE`` seconds; safe to call again."""
        atexit.unregister(self.stop)
        try:
            if self.alive():
                _signal_group(self.pid, signal.SIGTERM)
                self._process.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Children that outlived the server, and the server itself where we were interrupted while waiting.
            _signal_group(self.pid, signal.SIGKILL)
            self._process.wait()

    def _look(self) -> tuple[str, Mapping[str, object] | None]:
        """What is still missing, or the model's entry once health and model list are as they must be."""
        if not self.root:
            assert self.launch.announce is not None
            if not self.launch.announce.exists():
                return "it does not listen yet", None
            self.root = self.launch.announce.read_text().strip()
        if self.launch.health and not ask(self.root + self.launch.health, api_key=self._api_key).ok:
            return "its health page says that it is not ready", None
        models = ask(self.root + "/v1/models", api_key=self._api_key)
        if not models.ok:
            return f"/v1/models answers {models.complaint()}", None
        entry = find_model(models.body, self.launch.model_name)
        return f"/v1/models does not list {self.launch.model_name!r}", entry

    def _first_token(self, deadline: float) -> None:
        body = {
            "model": self.launch.model_name,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
            "temperature": 0,
        }
        timeout = max(10.0, min(PROBE_TIMEOUT, deadline - time.monotonic()))
        try:
            answer = ask(self.root + "/v1/chat/completions", body, api_key=self._api_key, timeout=timeout)
        except Unreachable as error:
            raise self._failed(f"did not answer a chat of one token: {error}") from error
        if not (answer.ok and isinstance(answer.body, dict) and answer.body.get("choices")):
            raise self._failed(f"refused a chat of one token: {answer.complaint()}")

    def _failed(self, what: str) -> ServerFailed:
        program = Path(self.launch.command[0]).name
        lines = self.last_lines() or "(nothing)"
        return ServerFailed(f"the server ({program}) {what}; the end of its log {self.log_path}:\n{lines}")


def find_model(models: object, name: str) -> Mapping[str, object] | None:
    """The entry of ``name`` in an answer of ``/v1/models``; None where it is not listed or that is no such list."""
    data = models.get("data") if isinstance(models, dict) else None
    for entry in data if isinstance(data, list) else []:
        if isinstance(entry, dict) and entry.get("id") == name:
            return entry
    return None


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # The group is empty; macOS says "not permitted" where only zombies are left.
        return


def command_without_secrets(command: Sequence[str]) -> list[str]:
    """``command`` for people and for ``run.json``: the values of key and token options are replaced by ``***``."""
    shown: list[str] = []
    hide = False
    for word in command:
        option, equals, _ = word.partition("=")
        secret = option.startswith("-") and any(
            part in option.lower() for part in ("key", "token", "secret", "password")
        )
        # --max-num-batched-tokens and the like count tokens; only exact names of secrets are hidden.
        secret = secret and "tokens" not in option.lower() and "tokenizer" not in option.lower()
        shown.append("***" if hide and not word.startswith("-") else f"{option}=***" if secret and equals else word)
        # lmdeploy's --api-keys takes several values: hide until the next option.
        hide = (secret and not equals) or (hide and not word.startswith("-"))
    return shown
