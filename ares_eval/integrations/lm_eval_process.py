"""A child process that speaks lm-eval, and the pipe to it: one JSON line out, one back, each with a time limit.

Two kinds, apart so that neither has what it must not have: the loader may read the Hub (with the Hub's token) and never
sees a reply; the scorer sees replies and has no key, no token and no Hub. Neither has the keys of model servers.
A Child is used by one thread, which must outlive it: the kernel ends the child with that thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from ares_eval.types import Json

_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from ares_eval.integrations.lm_eval_worker import main; main(sys.argv[2], int(sys.argv[3]))"
)

_NEEDED = (
    "PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
    "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_EVALUATE_CACHE",
    "HF_ENDPOINT", "HUGGINGFACE_HUB_CACHE", "NLTK_DATA", "COVERAGE_PROCESS_START",
)  # fmt: skip
_FOR_THE_HUB = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT",
    "HF_HUB_ETAG_TIMEOUT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
    "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip


class ChildEnded(Exception):
    """The child ended, or was ended, before it answered. ``timeout``: its time was up."""

    def __init__(self, message: str, *, timeout: bool) -> None:
        super().__init__(message)
        self.timeout = timeout


class Child:
    """One process. ``ask`` and ``receive`` raise ChildEnded; after that the child is gone."""

    def __init__(self, kind: Literal["loader", "scorer"]) -> None:
        path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, path, kind, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment(kind),
        )
        self._buffer = b""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def send(self, message: Json) -> None:
        """Hand over one line; no answer is waited for."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(msgspec.json.encode(message) + b"\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._ended(timeout=False) from None

    def ask(self, message: Json, seconds: float) -> dict[str, Any]:
        """Hand over one line and wait for the answer."""
        self.send(message)
        return self.receive(seconds)

    def receive(self, seconds: float) -> dict[str, Any]:
        """The next line of the child."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        end = time.monotonic() + seconds
        poller = select.poll()
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
        pieces = [self._buffer]
        while b"\n" not in pieces[-1]:
            left = end - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise self._ended(timeout=True)
            piece = os.read(descriptor, 1 << 20)
            if not piece:
                raise self._ended(timeout=False)
            pieces.append(piece)
        line, _, self._buffer = b"".join(pieces).partition(b"\n")
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer

    def stop(self) -> None:
        """Kill the child with everything that it started, and reap it."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _ended(self, *, timeout: bool) -> ChildEnded:
        self.stop()
        if timeout:
            return ChildEnded("its time was up", timeout=True)
        return ChildEnded(f"its process ended (exit code {self.process.returncode})", timeout=False)


def environment(kind: Literal["loader", "scorer"]) -> dict[str, str]:
    """The variables that a child gets: those that it is known to need, and no other."""
    names = (*_NEEDED, *_FOR_THE_HUB) if kind == "loader" else _NEEDED
    kept = {name: os.environ[name] for name in names if name in os.environ}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("LC_")}
    kept |= {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    kept |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    if kind == "scorer":
        kept |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_TOKEN_PATH": os.devnull}
    return kept
