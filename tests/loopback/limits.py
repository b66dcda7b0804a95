"""How much the server takes on: a token bucket, seats, and a point of overload."""

from __future__ import annotations

import time


class Bucket:
    """Lets ``rate`` requests a second through, ``burst`` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self.level = float(burst)
        self.at = time.monotonic()

    def take(self) -> bool:
        """True if the request may pass."""
        if not self.rate:
            return True
        now = time.monotonic()
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True
