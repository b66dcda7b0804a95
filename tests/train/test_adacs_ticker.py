"""Progress in plain lines: when they come, and what they say."""

from __future__ import annotations

from ares_train.adacs.ticker import Ticker


def test_lines_come_by_time_and_by_share() -> None:
    now = [0.0]
    lines: list[str] = []
    ticker = Ticker("rate", "parts", 100, lines.append, clock=lambda: now[0])
    ticker.skip(20)
    for _ in range(9):
        now[0] += 0.05
        ticker.add(1)
    assert lines == []
    now[0] = 2.0
    ticker.add(1, "all well")
    assert lines == ["rate [2 s]: 30/100 parts, 5.0/s, ETA 14 s, 20 of them before, all well"]
    now[0] = 11.0
    ticker.add(1)
    assert len(lines) == 1
    now[0] = 12.0
    ticker.add(1)
    assert lines[1].startswith("rate [12 s]: 32/100 parts, 1.0/s, ETA 1:08")


def test_an_unknown_total_has_no_end() -> None:
    now = [0.0]
    lines: list[str] = []
    ticker = Ticker("traces", "rows", None, lines.append, clock=lambda: now[0])
    now[0] = 10.0
    ticker.add(50_000)
    assert lines == ["traces [10 s]: 50.0k rows, 5.0k/s"]
