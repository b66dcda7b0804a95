"""`ares-eval view` as a process, and requests to it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True)
class Viewer:
    """A running viewer; ``url`` ends with a slash."""

    url: str

    def get(
        self, path: str, headers: dict[str, str] | None = None, **query: object
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request."""
        address = self.url + path + ("?" + urlencode(query) if query else "")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(urllib.request.Request(address, headers=headers or {}), timeout=30) as reply:
                return reply.status, dict(reply.headers), reply.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def ask(self, path: str, **query: object) -> Any:
        """JSON of an answer that must be good; ``with_`` stands for ``with``."""
        named = {name.rstrip("_"): value for name, value in query.items()}
        status, _, body = self.get(f"api/{path}", **named)
        assert status == 200, body
        return json.loads(body)

    def counted(self, run: str) -> None:
        """Wait until the HWE tokens of a run are counted."""
        for _ in range(200):
            if self.ask("records", run=run)["hwe"] == "ready":
                return
            time.sleep(0.05)
        raise AssertionError(f"HWE of {run} was not counted")


@contextlib.contextmanager
def viewing(folder: Path, *words: str) -> Iterator[Viewer]:
    """A viewer over the runs below ``folder``, stopped at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ares_eval.cli", "view", str(folder), "--port", "0", *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "http://" in line, f"the viewer did not start (exit code {process.wait()})"
        yield Viewer(line[line.index("http://") :].split()[0])
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
