"""When a failed request is tried again: pure functions over counts and clocks.

Backoff is exponential with full jitter (a uniform draw between 0 and the cap of that try), which spreads a crowd that
failed together. Its base depends on the server's health: a single fault among answered requests is retried after
a tenth of a second, while a server that answers nobody is given a second, then two, then four.
"""

from __future__ import annotations

import random
from collections import deque

ISOLATED_BASE = 0.1
"""Seconds before the first retry while the server answers others."""

OUTAGE_BASE = 1.0
"""Seconds before the first retry while the server answers nobody: a restarting server needs seconds, not tries."""

CAP = 60.0
"""Longest backoff of one retry, seconds."""

HEALTH_SAMPLE = 32
"""Outcomes over which the server's health is read."""


class Health:
    """The share of the last tries that the server answered."""

    def __init__(self) -> None:
        self._answered: deque[bool] = deque(maxlen=HEALTH_SAMPLE)

    def note(self, answered: bool) -> None:
        """One try was answered, or failed."""
        self._answered.append(answered)

    @property
    def good(self) -> bool:
        """True while at least half of the last tries were answered."""
        return 2 * sum(self._answered) >= len(self._answered) > 0


def backoff(retry: int, *, healthy: bool, rng: random.Random) -> float:
    """Seconds to wait before the retry number ``retry`` (the first is 1), with full jitter."""
    base = ISOLATED_BASE if healthy else OUTAGE_BASE
    return rng.uniform(0.0, min(CAP, base * 2.0 ** (retry - 1)))
