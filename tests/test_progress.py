"""Progress: what is shown, when, and where; nothing on standard output, nothing from a quiet run."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from ares_eval import progress
from ares_eval.progress import Board, Lines, Live, Silent, TaskCount, choose, visible
from ares_eval.types import Record, Usage, Verdict

GOOD = Record("a", "s", 0, "s", "k", "p", text="x", usage=Usage(5, 100), verdict=Verdict("correct", "m"))
WRONG = replace(GOOD, verdict=Verdict("incorrect", "m"))
LOST = replace(GOOD, text=None, verdict=None, cause="server", usage=Usage())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_with(clock: Clock) -> tuple[Lines, io.StringIO]:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.board = Board(clock)
    return lines, stream


def test_the_display_fits_the_place() -> None:
    assert isinstance(choose(quiet=True, stream=Terminal(), environment={}), Silent)
    assert isinstance(choose(stream=Terminal(), environment={"TERM": "xterm"}), Live)
    for stream, environment in [(io.StringIO(), {}), (Terminal(), {"CI": "true"}), (Terminal(), {"TERM": "dumb"})]:
        assert isinstance(choose(stream=stream, environment=environment), Lines)


def test_counts_take_lost_replies_out_of_the_accuracy() -> None:
    count = TaskCount(10)
    for record in (GOOD, GOOD, WRONG, LOST):
        count.add(record)
    assert (count.done, count.measured, count.tokens, count.accuracy) == (4, 3, 300, 2 / 3)


def test_rate_forgets_the_burst_of_a_cache_and_ignores_an_earlier_session() -> None:
    clock = Clock()
    board = Board(clock)
    board.start({"a": 2000}, [GOOD] * 500)
    assert board.rate() is None
    for _ in range(1000):
        board.tasks["a"].add(GOOD)
    clock.now = 1.0
    assert board.rate() == pytest.approx(1000)
    for second in range(2, 100):
        clock.now = float(second)
        board.tasks["a"].add(GOOD)
        board.rate()
    rate = board.rate()
    assert rate == pytest.approx(1, rel=0.05)
    assert board.remaining(rate) == pytest.approx(2000 - 1598, rel=0.05)


def test_plain_lines_come_every_ten_per_cent_or_ten_seconds() -> None:
    clock = Clock()
    lines, stream = lines_with(clock)
    lines.board.start({"a": 100, "b": 1}, [])
    for _ in range(100):
        lines.record(GOOD)
        clock.now += 0.01
        lines.tick()
    assert len(stream.getvalue().splitlines()) == 10, "nine lines by share, one for the finished task"
    clock.now += 9
    lines.tick()
    assert len(stream.getvalue().splitlines()) == 10
    clock.now += 2
    lines.status(in_flight=3, waiting=2, retries=7, limit=8)
    lines.tick()
    last = stream.getvalue().splitlines()[-1]
    assert "100/101 (99 %)" in last
    assert "accuracy 100.0 %, 10.0k tokens, 7 retries, 3 in flight" in last


def test_plain_lines_from_start_to_stop() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.note("server is ready")
    lines.start({"a": 3, "b": 0}, [WRONG])
    lines.record(GOOD)
    lines.record(LOST)
    lines.stop()
    lines.stop()
    text = stream.getvalue().splitlines()
    assert text[:2] == ["server is ready", "3 draws of 2 tasks, 1 of them already done"]
    assert "a: 3 draws done, accuracy 50.0 %, 1 not measured" in text
    assert "3/3 (100 %)" in text[-1]


def test_live_table_shows_tasks_state_and_notes() -> None:
    stream = Terminal()
    live = Live(stream)
    live.note("before the table")
    live.start({"gsm8k": 4, "math500": 2})
    for record in (GOOD, WRONG, LOST):
        live.record(replace(record, task="gsm8k"))
    live.status(in_flight=5, waiting=1, retries=2, limit=8)
    live.note("[bold]a server's words[/bold]")
    live.stop()
    live.stop()
    shown = stream.getvalue()
    for text in ("before the table", "[bold]a server's words[/bold]", "gsm8k", "3/4", "50.0 %", "in flight 5/8"):
        assert text in shown
    assert "retries 2 (1 waiting)" in shown
    assert shown.rstrip("\n").endswith("\x1b[?25h"), "the cursor is given back"


def test_many_tasks_fit_the_screen() -> None:
    tasks = {f"t{i}": TaskCount(2) for i in range(20)}
    for i in range(20):
        tasks[f"t{i}"].done = 2 if i < 10 else 1 if i < 13 else 0
    shown, rest = visible(tasks, 6)
    assert shown == ["t10", "t11", "t12", "t13", "t14"]
    assert rest == "10 more finished, 5 more to come"
    assert visible(tasks, 20) == (list(tasks), "")


def test_numbers_for_people() -> None:
    assert [progress.duration(s) for s in (None, 0.4, 59.4, 61, 3661)] == ["-", "0 s", "59 s", "1:01", "1:01:01"]
    assert [progress.compact(n) for n in (0, 999, 1000, 12_345, 4_560_000)] == ["0", "999", "1.0k", "12.3k", "4.56M"]
    assert [progress.percent(p) for p in (None, 0.5)] == ["-", "50.0 %"]
