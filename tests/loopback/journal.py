"""What the server saw: counts that tests and benchmarks assert on."""

from __future__ import annotations

import collections
import json
import time
from pathlib import Path
from typing import Any

from tests.loopback.http import Connection


class Journal:
    """Counters since the start or the last reset. Times are `time.time()`."""

    def __init__(self, file: str = "", keep_bodies: bool = False) -> None:
        self.file = Path(file).open("a", encoding="utf-8") if file else None  # noqa: SIM115 - open while the server runs
        self.keep_bodies = keep_bodies
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Forget all but what is in flight."""
        self.requests = 0
        self.good = 0
        self.after_good = 0
        self.asked: collections.Counter[bytes] = collections.Counter()
        self.answered: collections.Counter[bytes] = collections.Counter()
        self.status: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.other: collections.Counter[str] = collections.Counter()
        self.kept: list[dict[str, Any]] = []
        self.pictures: collections.Counter[str] = collections.Counter()
        self.most_in_flight = self.in_flight
        self.first_request: float | None = None
        self.last_answer: float | None = None
        self.received = 0
        self.sent = 0
        self.connections = Connection.opened
        self.cpu = time.process_time()

    def traffic(self, received: int, sent: int) -> None:
        """Count bytes on the wire."""
        self.received += received
        self.sent += sent

    def ask(self, body: bytes) -> int:
        """A model request has come, ``body`` is its digest; returns how often this body was asked before."""
        before = self.asked[body]
        self.asked[body] = before + 1
        self.requests += 1
        if body in self.answered:
            self.after_good += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self.first_request is None:
            self.first_request = time.time()
        return before

    def answer(self, body: bytes, status: int | None, fault: str | None, good: bool) -> None:
        """A model request is done with. ``status`` None: the client has not got a whole reply."""
        self.in_flight -= 1
        self.status[str(status) if status else "none"] += 1
        if fault is not None:
            self.faults[fault] += 1
        if good:
            self.good += 1
            self.answered[body] += 1
            self.last_answer = time.time()
        if self.file is not None:
            line = {"time": time.time(), "body": body.hex(), "status": status, "fault": fault, "good": good}
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()

    def stats(self, bodies: bool = False) -> dict[str, Any]:
        """The counters as JSON; ``span`` is the first request to the last good answer, in seconds."""
        span = None
        if self.first_request is not None and self.last_answer is not None:
            span = self.last_answer - self.first_request
        made = {
            "requests": self.requests,
            "good": self.good,
            "distinct": len(self.asked),
            "asked_after_good": self.after_good,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "status": dict(self.status),
            "faults": dict(self.faults),
            "rate_limited": self.status["429"],
            "first_request": self.first_request,
            "last_answer": self.last_answer,
            "span": span,
            "connections": Connection.opened - self.connections,
            "bytes_received": self.received,
            "bytes_sent": self.sent,
            "cpu_seconds": time.process_time() - self.cpu,
            "other": dict(self.other),
            "pictures": dict(self.pictures),
        }
        if bodies:
            made["bodies"] = {
                body.hex(): {"asked": asked, "good": self.answered[body]} for body, asked in self.asked.items()
            }
        return made
