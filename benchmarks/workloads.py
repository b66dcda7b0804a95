"""The workloads: what is asked, what the server does, and the goals on a machine of two cores.

Ideal times are the server's alone. Goals are absolute; they move with the machine, so each text and picture workload
is measured beside the floor (`floor.py`), the least that a Python client can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PICTURES_UNTOUCHED = ("--min-pixels", "1", "--max-pixels", "100000000")
PROBES = 2
"""Requests that ares-eval may send beyond the samples, to see what the server can do."""
FAULTS = ("429=0.10", "500=0.05", "reset=0.02", "empty=0.01", "malformed=0.01")


@dataclass(frozen=True, slots=True)
class Workload:
    """One run of ares-eval.

    ``goals``: most allowed of wall and span (seconds), cpu (milliseconds a sample), memory (megabytes), requests
    (per sample) and wasted (requests beyond the samples). ``after``: reuses that workload's cache. ``beside``: wall
    time may exceed that workload's by ``slower`` seconds; memory may exceed it by ``larger`` megabytes.
    """

    name: str
    title: str
    count: int
    in_flight: int
    server: Mapping[str, Any]
    goals: Mapping[str, float] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    pictures: bool = False
    ideal: float | None = None
    floor: bool = False
    logprobs: int = 0
    after: str | None = None
    beside: str | None = None
    slower: float | None = None
    larger: float | None = None
    code: int = 0
    requests: int | None = None


WORKLOADS = (
    Workload(
        "text", "2,000 questions, 50 ms, 64 in flight", 2000, 64, {"latency": 0.05},
        {"wall": 2.5, "cpu": 0.8, "memory": 100, "wasted": PROBES}, ideal=1.6, floor=True,
    ),
    Workload(
        "replay", "the same from the cache", 2000, 64, {"latency": 0.05},
        {"wall": 0.8}, ideal=0.0, after="text", requests=0,
    ),
    Workload(
        "text-slow", "4,000 questions, 500 ms, 256 in flight", 4000, 256, {"latency": 0.5},
        {"wall": 9.0, "wasted": PROBES}, ideal=8.0, floor=True,
    ),
    Workload(
        "pictures", "300 pictures untouched, 32 in flight", 300, 32, {"latency": 0.05},
        {"wall": 1.2, "cpu": 2.5, "wasted": PROBES}, PICTURES_UNTOUCHED, pictures=True, ideal=0.5, floor=True,
    ),
    Workload(
        "pictures-many", "3,000 pictures untouched", 3000, 32, {"latency": 0.05},
        {"cpu": 2.5, "wasted": PROBES}, PICTURES_UNTOUCHED, pictures=True, ideal=4.7, beside="pictures", larger=30,
    ),
    Workload(
        "resized", "300 pictures, default limits", 300, 32, {"latency": 0.05},
        {"wall": 5.5, "cpu": 32, "wasted": PROBES}, pictures=True, ideal=0.5,
    ),
    Workload(
        "resized-many", "3,000 pictures, default limits", 3000, 32, {"latency": 0.05},
        {"cpu": 32, "wasted": PROBES}, pictures=True, ideal=4.7, beside="resized", larger=30,
    ),
    Workload(
        "logprobs", "100 replies of 2.4 MB, 16 in flight", 100, 16,
        {"latency": 0.05, "tokens": 2048}, {"wall": 3.0, "cpu": 20, "wasted": PROBES},
        ("--logprobs", "20"), ideal=0.35, floor=True, logprobs=20,
    ),
    Workload(
        "rate-limit", "1,000 questions, 100/s, 256 in flight", 1000, 256,
        {"latency": 0.05, "rate": 100, "burst": 100, "retry_after": 0.2},
        {"span": 9.8, "wasted": 100}, ideal=9.05,
    ),
    Workload(
        "no-faults", "1,000 questions, 50 ms, 64 in flight", 1000, 64, {"latency": 0.05},
        {"wasted": PROBES}, ("--timeout", "5", "--max-retries", "8"), ideal=0.8,
    ),
    Workload(
        "faults", "the same, 429 500 reset empty malformed hang", 1000, 64,
        {"latency": 0.05, "fault": (*FAULTS, "hang=0.01")},
        {"requests": 1.30}, ("--timeout", "5", "--max-retries", "8"), beside="no-faults", slower=6.5,
    ),
    Workload(
        "all-500", "100 questions, every reply a 500", 100, 64, {"latency": 0.05, "fault": ("500=1",)}, code=4,
    ),
)  # fmt: skip

STARTS = (("--help", ("--help",), 0.3), ("run --help", ("run", "--help"), 0.3), ("list", ("list",), 0.5))
