"""What the user sees while a run goes on: a live table, plain lines, or nothing.

``evaluate`` calls five methods and never waits for the screen: ``record`` only counts (about a microsecond), a thread
draws four times a second. ``choose`` takes the live table on a terminal and plain lines in pipes and CI, where a line
comes every ten seconds or ten per cent. All of it goes to standard error, so that standard output stays a result.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from ares_eval.types import Record

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESH_HZ = 4.0
"""Redraws of the live table in a second: smooth to the eye, invisible in the CPU time of a run."""
RATE_WINDOW_S = 30.0
"""Rate and remaining time look back this far: long enough to be steady, soon forgetting a burst from the cache."""
LINE_EVERY_S = 10.0
LINE_EVERY_SHARE = 0.1


class Progress(Protocol):
    """What a run reports. ``record`` and ``status`` may come from any thread, between start and stop."""

    def start(self, totals: Mapping[str, int], resumed: Iterable[Record] = ()) -> None:
        """Draws asked for, by task. ``resumed``: records of an earlier session, done but no part of the rate."""

    def record(self, record: Record) -> None:
        """One draw is finished. Cheap."""

    def status(self, in_flight: int, waiting: int, retries: int, limit: int) -> None:
        """Requests on the wire, waiting for a retry, retries so far, and the present concurrency limit."""

    def note(self, line: str) -> None:
        """One line for the user, kept above the table; also before start and after stop."""

    def stop(self) -> None:
        """Draw the last state and let go of the screen. May be called twice."""


def choose(quiet: bool = False, stream: TextIO | None = None, environment: Mapping[str, str] = os.environ) -> Progress:
    """Silent when ``quiet``, the live table on a capable terminal, else plain lines."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return Silent()
    if stream.isatty() and not environment.get("CI") and environment.get("TERM") != "dumb":
        return Live(stream)
    return Lines(stream)


# ---------------------------------------------------------------- counting


class TaskCount:
    """Counters of one task; written under a lock, read without one for display."""

    __slots__ = ("correct", "done", "measured", "tokens", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = self.measured = self.correct = self.tokens = 0

    def add(self, record: Record) -> None:
        self.done += 1
        if record.cause is None:
            self.measured += 1
            self.tokens += record.usage.completion or 0
            verdict = record.verdict
            if verdict is not None and verdict.value == "correct":
                self.correct += 1

    @property
    def accuracy(self) -> float | None:
        """Correct of measured so far."""
        return self.correct / self.measured if self.measured else None


class Board:
    """The state that every display shows, and the rate over the last RATE_WINDOW_S seconds of ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.tasks: dict[str, TaskCount] = {}
        self.in_flight = self.waiting = self.retries = self.limit = 0
        self._clock = clock
        self._started = clock()
        self._ticks: deque[tuple[float, int]] = deque()

    def start(self, totals: Mapping[str, int], resumed: Iterable[Record]) -> None:
        self.tasks = {name: TaskCount(total) for name, total in totals.items()}
        for record in resumed:
            self.tasks[record.task].add(record)
        self._started = self._clock()
        self._ticks = deque([(self._started, self.overall().done)])

    def overall(self) -> TaskCount:
        """The sum over all tasks, at this moment."""
        everything = TaskCount(0)
        for count in self.tasks.values():
            everything.total += count.total
            everything.done += count.done
            everything.measured += count.measured
            everything.correct += count.correct
            everything.tokens += count.tokens
        return everything

    def elapsed(self) -> float:
        """Seconds since start."""
        return self._clock() - self._started

    def rate(self) -> float | None:
        """Draws finished in a second, lately; call it at every redraw. None until one was finished."""
        now, done = self._clock(), self.overall().done
        self._ticks.append((now, done))
        while len(self._ticks) > 2 and self._ticks[1][0] <= now - RATE_WINDOW_S:
            self._ticks.popleft()
        then, before = self._ticks[0]
        return (done - before) / (now - then) if done > before and now > then else None

    def remaining(self, rate: float | None) -> float | None:
        """Seconds until the end at that rate."""
        everything = self.overall()
        return None if rate is None else (everything.total - everything.done) / rate


class _Counting:
    """The part that all visible displays share."""

    def __init__(self) -> None:
        self.board = Board()
        self._counting = threading.Lock()

    def record(self, record: Record) -> None:
        with self._counting:
            self.board.tasks[record.task].add(record)

    def status(self, in_flight: int, waiting: int, retries: int, limit: int) -> None:
        board = self.board
        board.in_flight, board.waiting, board.retries, board.limit = in_flight, waiting, retries, limit


class Silent:
    """--quiet: nothing at all."""

    def start(self, totals: Mapping[str, int], resumed: Iterable[Record] = ()) -> None: ...

    def record(self, record: Record) -> None: ...

    def status(self, in_flight: int, waiting: int, retries: int, limit: int) -> None: ...

    def note(self, line: str) -> None: ...

    def stop(self) -> None: ...


# ---------------------------------------------------------------- plain lines


class Lines(_Counting):
    """A line every LINE_EVERY_S seconds or LINE_EVERY_SHARE of the draws, one a finished task, and a last one."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._finished: set[str] = set()
        self._last_time = 0.0
        self._last_share = 0.0

    def start(self, totals: Mapping[str, int], resumed: Iterable[Record] = ()) -> None:
        self.board.start(totals, resumed)
        everything = self.board.overall()
        self._last_share = _share(everything)
        self._finished = {name for name, count in self.board.tasks.items() if count.done >= count.total}
        already = f", {everything.done} of them already done" if everything.done else ""
        self._write(f"{everything.total} draws of {_plural(len(totals), 'task')}{already}")
        self._thread = threading.Thread(target=self._tick_until_stopped, name="progress", daemon=True)
        self._thread.start()

    def note(self, line: str) -> None:
        self._write(line)

    def stop(self) -> None:
        if self._thread is None:
            return
        self._stopped.set()
        self._thread.join()
        self._thread = None
        self._report_finished()
        self._write(self.line())

    def _tick_until_stopped(self) -> None:
        while not self._stopped.wait(1 / REFRESH_HZ):
            self.tick()

    def tick(self) -> None:
        """Look at the state; write what is due."""
        self._report_finished()
        line = self.line()
        elapsed, share = self.board.elapsed(), _share(self.board.overall())
        if elapsed - self._last_time >= LINE_EVERY_S or share - self._last_share >= LINE_EVERY_SHARE:
            self._last_time, self._last_share = elapsed, share
            self._write(line)

    def line(self) -> str:
        """All of it in one line."""
        board, rate = self.board, self.board.rate()
        everything = board.overall()
        parts = [f"{everything.done}/{everything.total} ({100 * _share(everything):.0f} %)", f"{_rate(rate)}"]
        if everything.done < everything.total:
            parts.append(f"ETA {duration(board.remaining(rate))}")
        parts += [f"accuracy {percent(everything.accuracy)}", f"{compact(everything.tokens)} tokens"]
        parts += [f"{board.retries} retries", f"{board.in_flight} in flight"]
        return f"[{duration(board.elapsed())}] " + ", ".join(parts)

    def _report_finished(self) -> None:
        for name, count in self.board.tasks.items():
            if name not in self._finished and count.done >= count.total:
                self._finished.add(name)
                lost = count.done - count.measured
                unmeasured = f", {lost} not measured" if lost else ""
                self._write(f"{name}: {count.done} draws done, accuracy {percent(count.accuracy)}{unmeasured}")

    def _write(self, line: str) -> None:
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


# ---------------------------------------------------------------- live table


class Live(_Counting):
    """A table that redraws itself in place: one row a task, one for everything, and the state of the requests."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._live: Any = None
        self._console: Console | None = None

    def start(self, totals: Mapping[str, int], resumed: Iterable[Record] = ()) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self.board.start(totals, resumed)
        self._console = Console(file=self._stream)
        self._live = RichLive(console=self._console, get_renderable=self.table, refresh_per_second=REFRESH_HZ)
        self._live.start()

    def note(self, line: str) -> None:
        if self._console is not None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write(line + "\n")

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(self) -> RenderableType:
        """The present state; at most as many rows as the terminal shows, tasks at work first."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        board = self.board
        rate = board.rate()
        everything = board.overall()
        height = self._console.height if self._console is not None else 25
        shown, hidden = visible(board.tasks, max(1, height - 6))
        table = Table(box=None, pad_edge=False, header_style="dim")
        for header in ("task", "", "done", "accuracy", "tokens", "not measured"):
            table.add_column(header, justify="left" if header in ("task", "") else "right", no_wrap=True)

        def add(name: str, count: TaskCount, style: str) -> None:
            table.add_row(
                Text(name, style),
                ProgressBar(total=max(count.total, 1), completed=count.done, width=24),
                f"{count.done}/{count.total}",
                percent(count.accuracy),
                compact(count.tokens),
                str(count.done - count.measured or ""),
                style="dim" if count.done >= count.total else "",
            )

        for name in shown:
            add(name, board.tasks[name], "")
        if hidden:
            table.add_row(Text(hidden, "dim"))
        if len(board.tasks) > 1:
            add("all", everything, "bold")
        state = [_rate(rate), f"ETA {duration(board.remaining(rate))}", f"elapsed {duration(board.elapsed())}"]
        state.append(f"in flight {board.in_flight}/{board.limit}")
        if board.retries:
            state.append(f"retries {board.retries} ({board.waiting} waiting)")
        return Group(table, Text("   ".join(state), "dim", no_wrap=True, overflow="ellipsis"))


def visible(tasks: Mapping[str, TaskCount], rows: int) -> tuple[list[str], str]:
    """Names that fit into ``rows`` rows, in their order, and a line about the rest: finished ones yield first."""
    names = list(tasks)
    if len(names) <= rows:
        return names, ""

    def rank(name: str) -> int:
        count = tasks[name]
        return 2 if count.done >= count.total else 0 if count.done else 1

    kept = set(sorted(names, key=rank)[: max(1, rows - 1)])
    finished = sum(rank(name) == 2 for name in names if name not in kept)
    waiting = len(names) - len(kept) - finished
    parts = [f"{count} more {word}" for count, word in ((finished, "finished"), (waiting, "to come")) if count]
    return [name for name in names if name in kept], ", ".join(parts)


# ---------------------------------------------------------------- numbers for people


def duration(seconds: float | None) -> str:
    """``42 s``, ``3:07``, ``2:05:09``, or ``-``."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def compact(count: int) -> str:
    """``950``, ``12.3k``, ``4.56M``."""
    for size, letter, digits in ((1_000_000, "M", 2), (1_000, "k", 1)):
        if count >= size:
            return f"{count / size:.{digits}f}{letter}"
    return str(count)


def percent(share: float | None) -> str:
    """``64.0 %`` or ``-``."""
    return "-" if share is None else f"{100 * share:.1f} %"


def _rate(rate: float | None) -> str:
    return "-/s" if rate is None else f"{rate:.1f}/s"


def _share(count: TaskCount) -> float:
    return count.done / count.total if count.total else 1.0


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
