"""How many requests may be in flight, and how fast they may start: a pure state machine.

It owns no task, no socket and no clock: every method takes ``now`` (seconds, monotonic), so it is tested by feeding it
events. The policy:

- **Ramp.** The first requests are paced: the limit starts at ``RAMP_START`` and grows by ``RAMP_PER_SECOND`` up to the
  ceiling the user gave. The first refusal (429 or 503) ends the ramp at once.
- **429** says that requests start too fast. What the server accepted in the last ``WINDOW`` seconds is the rate it
  allows, so starts are paced at just that and probed upwards until it refuses again: doubling each second while no
  paced start was ever refused, by ``PROBE`` a second after that. Where too few were accepted to read a rate, the
  limit on requests in flight is cut instead.
- **503** says that too many are in flight: the limit is halved, at most once per ``COOL_DOWN``.
- **Recovery.** Every success raises a cut limit by 1/limit (additive increase) up to the ceiling.
"""

from __future__ import annotations

import math
from collections import deque

RAMP_START = 16
"""Requests that may start at once: what a single vLLM or a hosted key of the lowest tier takes without a refusal."""

RAMP_PER_SECOND = 1000.0
"""A thousand more a second: 256 in flight after a quarter of a second, yet a refusal is seen after a few dozen."""

WINDOW = 1.0
"""Seconds over which the accepted rate is read: a token bucket's burst is commonly one second of its rate."""

PROBE = 0.03
"""Growth of the pace a second once it was refused: some two refusals in a hundred requests."""

COOL_DOWN = 0.25
"""Seconds in which several refusals count as one: those under way started before the pace was lowered."""

SLOW = 4
"""Accepted starts in a window below which it says nothing about a rate."""


class Limits:
    """Permits for requests in flight; ``ceiling`` is the most there may ever be."""

    def __init__(self, ceiling: int, *, now: float) -> None:
        if ceiling < 1:
            raise ValueError("at least one request must be allowed in flight")
        self.ceiling = ceiling
        self.in_flight = 0
        self.limit = float(min(ceiling, RAMP_START))
        self.pace: float | None = None
        """Starts a second while the server limits the rate; None while it does not."""
        self._ramping = self.limit < ceiling
        self._ramp_from = now
        self._starts: deque[float] = deque()
        self._refused: deque[float] = deque()
        self._next_start = now
        self._pace_set = now
        self._pace_base = 0.0
        self._searching = True
        self._cut = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until the next request may start: 0 now, infinity when a permit must first come back."""
        if self._ramping:
            self.limit = min(self.ceiling, RAMP_START + (now - self._ramp_from) * RAMP_PER_SECOND)
            self._ramping = self.limit < self.ceiling
        if self.in_flight >= int(self.limit):
            if self._ramping:
                return max((self.in_flight + 1 - RAMP_START) / RAMP_PER_SECOND - (now - self._ramp_from), 0.001)
            return math.inf
        if self.pace is None:
            return 0.0
        return max(0.0, self._next_start - now)

    def start(self, now: float) -> None:
        """A request starts and takes a permit."""
        self.in_flight += 1
        self._starts.append(now)
        while now - self._starts[0] > 4 * WINDOW:
            self._starts.popleft()
        if self.pace is not None:
            age = now - self._pace_set
            self.pace = self._pace_base * (2.0 ** min(age, 16.0) if self._searching else 1.0 + PROBE * age)
            self._next_start = max(now, self._next_start) + 1.0 / self.pace

    def release(self) -> None:
        """A request came back or waits to be retried: its permit is free."""
        self.in_flight -= 1

    def succeeded(self) -> None:
        """A request was answered."""
        if not self._ramping and self.limit < self.ceiling:
            self.limit = min(self.ceiling, self.limit + 1.0 / self.limit)

    def throttled(self, started: float, now: float) -> None:
        """The server refused, for its rate (429), a request that started at ``started``. Call before ``release``."""
        self._end_ramp()
        self._refused.append(started)
        while now - self._refused[0] > 4 * WINDOW:
            self._refused.popleft()
        # What started before the pace was last lowered says nothing about the pace as it is.
        if self.pace is not None and (started < self._pace_set or now - self._pace_set < COOL_DOWN):
            return
        # A burst allowance was spent before the pace was set: only what came after it shows the server's rate.
        since = started - WINDOW if self.pace is None else max(started - WINDOW, self._pace_set)
        accepted = _within(self._starts, since, started) - _within(self._refused, since, started)
        if accepted < SLOW:
            self._cut_limit(now, 0.7)
            return
        measured = accepted / (started - since)
        self._searching = self.pace is None
        self.pace = self._pace_base = measured
        self._pace_set = now
        self._next_start = now + 1.0 / measured
        # From here on the pace holds requests back; a cut limit would hold them back twice.
        self.limit = float(self.ceiling)

    def overloaded(self, now: float) -> None:
        """The server refused a request because it is overloaded (503). Call before ``release``."""
        self._end_ramp()
        self._cut_limit(now, 0.5)

    def _cut_limit(self, now: float, factor: float) -> None:
        if now - self._cut >= COOL_DOWN:
            self.limit = max(1.0, min(self.limit, float(self.in_flight)) * factor)
            self._cut = now

    def _end_ramp(self) -> None:
        if self._ramping:
            self._ramping = False
            self.limit = max(1.0, float(self.in_flight))


def _within(events: deque[float], since: float, until: float) -> int:
    return sum(since < event <= until for event in events)
