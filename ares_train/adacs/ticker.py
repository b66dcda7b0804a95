"""Progress of a stage in plain lines: how much is done, how fast, how long still."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ares_eval.progress import LINE_EVERY_S, LINE_EVERY_SHARE, RATE_WINDOW_S, compact, duration

LEAST_S = 1.0
"""No two lines within a second, however fast a stage is."""


class Ticker:
    """Counts ``unit`` up to ``total`` (None: unknown) and notes a line every ten seconds or ten per cent."""

    def __init__(
        self,
        name: str,
        unit: str,
        total: int | None,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.unit, self.total = name, unit, total
        self.done = self.skipped = 0
        self._note, self._clock = note, clock
        self._began = self._last = clock()
        self._share = 0.0
        self._ticks: deque[tuple[float, int]] = deque([(self._began, 0)])

    def skip(self, count: int) -> None:
        """Done in an earlier run: counts as done, not as speed."""
        self.done += count
        self.skipped += count

    def add(self, count: int, more: str = "") -> None:
        """``count`` further ones are done; ``more`` is said behind the line, where one is due."""
        self.done += count
        now = self._clock()
        share = self.done / self.total if self.total else 0.0
        since = now - self._last
        if since >= LINE_EVERY_S or (share - self._share >= LINE_EVERY_SHARE and since >= LEAST_S):
            self._last, self._share = now, share
            self._note(self.line(more))

    def line(self, more: str = "") -> str:
        """The present state."""
        now, fresh = self._clock(), self.done - self.skipped
        self._ticks.append((now, fresh))
        while len(self._ticks) > 2 and self._ticks[1][0] <= now - RATE_WINDOW_S:
            self._ticks.popleft()
        then, before = self._ticks[0]
        rate = (fresh - before) / (now - then) if now > then else 0.0
        parts = [f"{compact(self.done)}{f'/{compact(self.total)}' if self.total is not None else ''} {self.unit}"]
        if rate:
            parts.append(f"{compact(round(rate)) if rate >= 10 else f'{rate:.1f}'}/s")
        if rate and self.total is not None and self.done < self.total:
            parts.append(f"ETA {duration((self.total - self.done) / rate)}")
        if self.skipped:
            parts.append(f"{compact(self.skipped)} of them before")
        return f"{self.name} [{duration(now - self._began)}]: " + ", ".join([*parts, *([more] if more else [])])
