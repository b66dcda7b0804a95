"""How many requests may be in flight, and how fast they may start: a pure state machine.

It owns no task, no socket and no clock: every method takes ``now`` (seconds, monotonic), so it is tested by feeding it
events. The policy:

- **Ramp.** The first requests are paced: the limit starts at ``RAMP_START`` and grows by ``RAMP_PER_SECOND``. A refusal
  (429 or 503) ends the ramp at once: the limit stays at what is in flight, and from then on grows with the successes.
- **A storm** is a pattern of refusals: ``STORM`` of the last ``RECENT`` starts. One now and then is chance and changes
  nothing more.
- **Pacing** answers a storm of 429: what the server accepted in the last ``WINDOW`` seconds is the rate it allows, so
  starts are paced at just that and probed upwards until it refuses again: doubling each second while no paced start was
  ever refused; after that by ``PROBE`` a second, and steeply once ``PATIENCE`` seconds went by without a refusal.
- **Cutting** answers a storm of 503, and of 429 where pacing did not help (the share of refusals stays above ``CHANCE``
  though the pace came down: some servers say 429 for too many at once): the number in flight comes down until the
  storm ends, then every success raises it by 1/limit (additive increase).
- **Resignation**: where cutting does not help either, refusals come whatever we do; both are left off for
  ``RESIGNED`` seconds.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

RAMP_START = 16
"""Requests that may start at once: what a single vLLM or a hosted key of the lowest tier takes without a refusal."""

RAMP_PER_SECOND = 1000.0
"""A thousand more a second: 256 in flight after a quarter of a second, yet a refusal is seen after a few dozen."""

RECENT, STORM = 20, 8
"""Refusals among the last starts that are a pattern: one request in ten refused by chance makes it once in 2,500."""

WINDOW = 1.0
"""Seconds over which the accepted rate is read: a token bucket's burst is commonly one second of its rate."""

PROBE = 0.03
"""Growth of the pace a second once it was refused: some two refusals in a hundred requests."""

PATIENCE = 2.0
"""Seconds without a refusal after which a pace is doubted: whatever it came from may be over."""

COOL_DOWN = 0.25
"""Seconds in which several refusals count as one: those under way started before the last remedy."""

EVIDENCE = 10
"""Starts at a pace before a refusal may correct it."""

CHANCE = 0.06
"""Share of refusals that a lowered pace should leave at most; probing alone makes half of it."""

SLOW = 4
"""Accepted starts in a window below which it says nothing about a rate."""

MOST_CUTS = 4
"""Cuts in a row, each followed by another storm, before cutting is seen not to help."""

RESIGNED = 10.0
"""Seconds in which storms are borne."""


@dataclass(slots=True)
class Start:
    """One request's start; ``refused`` once the server said so."""

    time: float
    refused: bool = False


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
        self._starts: deque[Start] = deque()
        self._next_start = now
        self._pace_set = now
        self._pace_base = 0.0
        self._searching = True
        self._unhelped = 0
        self._cuts = 0
        self._cut_at = -math.inf
        self._pacing_failed_until = -math.inf
        self._resigned_until = -math.inf

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

    def start(self, now: float) -> Start:
        """A request starts and takes a permit; its Start is handed back with what became of it."""
        self.in_flight += 1
        started = Start(now)
        self._starts.append(started)
        while len(self._starts) > RECENT and now - self._starts[0].time > 4 * WINDOW:
            self._starts.popleft()
        if self.pace is not None:
            age = now - self._pace_set
            growth = 2.0 ** min(age, 16.0) if self._searching else 1.0 + PROBE * age + (age / PATIENCE) ** 3
            self.pace = self._pace_base * growth
            self._next_start = max(now, self._next_start) + 1.0 / self.pace
        return started

    def release(self) -> None:
        """A request came back or waits to be retried: its permit is free."""
        self.in_flight -= 1

    def succeeded(self) -> None:
        """A request was answered."""
        if not self._ramping and self.limit < self.ceiling:
            self.limit = min(self.ceiling, self.limit + (1.0 / self.limit if self._cuts else 1.0))

    def throttled(self, started: Start, now: float) -> None:
        """The server refused a request for its rate (429). Call before ``release``."""
        self._refusal(started)
        if self.pace is not None:
            self._correct_pace(started, now)
        elif self._storm(started) and now >= self._resigned_until:
            # What started after the storm broke is mostly lost too, and not all of it has been refused yet.
            broke = next(start.time for start in self._recent(started) if start.refused)
            accepted, _ = self._tally(broke - WINDOW, broke)
            if now < self._pacing_failed_until or accepted < SLOW:
                self._cut(0.7, now)
            else:
                self._searching = True
                self._set_pace(accepted / WINDOW, now)

    def overloaded(self, started: Start, now: float) -> None:
        """The server refused a request because it is overloaded (503). Call before ``release``."""
        self._refusal(started)
        if self._storm(started) and now >= self._resigned_until:
            self._cut(0.5, now)

    def _refusal(self, started: Start) -> None:
        started.refused = True
        if self._ramping:
            self._ramping = False
            self.limit = max(1.0, float(self.in_flight))

    def _storm(self, started: Start) -> bool:
        """Whether the last starts up to this one were refused; later ones may not have been answered yet."""
        return sum(start.refused for start in self._recent(started)) >= STORM

    def _recent(self, started: Start) -> list[Start]:
        return [start for start in self._starts if start.time <= started.time][-RECENT:]

    def _correct_pace(self, started: Start, now: float) -> None:
        # What started before the pace was last set says nothing about it, and a burst allowance was spent by then.
        since = max(started.time - WINDOW, self._pace_set)
        at_this_pace, refused = self._tally(self._pace_set, started.time)
        if started.time <= self._pace_set or now - self._pace_set < COOL_DOWN or at_this_pace + refused < EVIDENCE:
            return
        if not self._searching and refused > CHANCE * (at_this_pace + refused):
            self._unhelped += 1
            if self._unhelped >= 2:
                self.pace = None
                self._unhelped = 0
                self._pacing_failed_until = now + RESIGNED
                return
        else:
            self._unhelped = 0
        self._searching = False
        accepted, _ = self._tally(since, started.time)
        self._set_pace(max(1, accepted) / max(started.time - since, COOL_DOWN), now)

    def _set_pace(self, rate: float, now: float) -> None:
        self.pace = self._pace_base = rate
        self._pace_set = now
        self._next_start = now + 1.0 / rate
        # From here on the pace holds requests back; a low limit would hold them back twice.
        self.limit = float(self.ceiling)
        self._cuts = 0

    def _cut(self, factor: float, now: float) -> None:
        since, refused = self._tally(self._cut_at, now)
        if self._cuts and (now - self._cut_at < COOL_DOWN or since + refused < EVIDENCE):
            return
        if self._cuts >= MOST_CUTS and refused > 0.5 * (since + refused) * STORM / RECENT:
            self._resigned_until = now + RESIGNED
            self._cuts = 0
            return
        self.limit = max(1.0, min(self.limit, float(self.in_flight)) * factor)
        self._cuts = self._cuts + 1 if refused > CHANCE * (since + refused) else 1
        self._cut_at = now

    def _tally(self, since: float, until: float) -> tuple[int, int]:
        """Starts after ``since`` and up to ``until``: (not refused, refused)."""
        kinds = [start.refused for start in self._starts if since < start.time <= until]
        return len(kinds) - sum(kinds), sum(kinds)
