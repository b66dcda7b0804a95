"""The loopback server: one local stand-in for every server that ares-eval talks to, for tests and benchmarks alike.

    with loopback.start(latency=0.05, fault=["429=0.1"]) as server:
        ...  # server.url, server.stats()

It runs in a process of its own. It is a stub: it imitates what servers say, not what models think.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.loopback.options import command_line

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 5


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.root = url
        self.url = f"{url}/v1"
        """Base URL of the OpenAI wire."""

    def stats(self, bodies: bool = False) -> dict[str, Any]:
        """The journal's counters (journal.py)."""
        stats: dict[str, Any] = self._call("/loopback/stats" + ("?bodies=1" if bodies else ""))
        return stats

    def requests(self) -> list[dict[str, Any]]:
        """Headers and bodies of the requests, if started with ``keep_bodies=True``."""
        kept: list[dict[str, Any]] = self._call("/loopback/requests")
        return kept

    def reset(self) -> None:
        """Start the counters anew."""
        self._call("/loopback/reset", b"")

    def _call(self, path: str, data: bytes | None = None) -> Any:
        # Environments may name a proxy; the loopback is never behind one.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.root + path, data=data), timeout=30) as reply:
            return json.load(reply)


@contextlib.contextmanager
def start(*, answers: Mapping[str, object] | str | Path = "", **options: Any) -> Iterator[Server]:
    """Start a server with the settings of options.py and stop it at the end.

    ``answers`` may also be a mapping of question to answer. Raises RuntimeError with the server's last words if it
    does not come up.
    """
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(answers, Mapping):
            table = Path(folder) / "answers.jsonl"
            rows = [json.dumps({"question": question, "answer": str(answer)}) for question, answer in answers.items()]
            table.write_text("\n".join(rows) + "\n", encoding="utf-8")
            answers = table
        words = command_line({"answers": answers, **options} if answers else options)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.loopback", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the loopback server did not start (exit code {process.wait()}): {words}")
            yield Server(process, url)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
