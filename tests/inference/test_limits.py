"""The permits' state machine, fed with events by a small simulated server."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.inference.limits import RAMP_START, Limits


@dataclass
class Outcome:
    seconds: float
    refused: int
    most_in_flight: int


def simulate(
    requests: int, ceiling: int, *, latency: float, rate: float = math.inf, burst: float = math.inf, refusal: float = 0.002
) -> Outcome:
    """Send ``requests`` to a server with a token bucket; refused ones come back after 0.2 s, as Retry-After says."""
    now, filled, tokens = 0.0, 0.0, burst
    limits = Limits(ceiling, now=now)
    waiting, done, refused, most, order = requests, 0, 0, 0, 0
    events: list[tuple[float, int, str, float]] = []
    while done < requests:
        while waiting and limits.wait(now) <= 0.0:
            limits.start(now)
            waiting -= 1
            most = max(most, limits.in_flight)
            tokens, filled = min(burst, tokens + (now - filled) * rate) if math.isfinite(rate) else burst, now
            order += 1
            if tokens >= 1:
                tokens -= 1
                heapq.heappush(events, (now + latency, order, "answer", now))
            else:
                heapq.heappush(events, (now + refusal, order, "refusal", now))
        pause = limits.wait(now) if waiting else math.inf
        now = min(events[0][0] if events else math.inf, now + pause)
        while events and events[0][0] <= now:
            _, _, kind, started = heapq.heappop(events)
            if kind == "answer":
                limits.succeeded()
                limits.release()
                done += 1
            elif kind == "refusal":
                refused += 1
                limits.throttled(started, now)
                limits.release()
                order += 1
                heapq.heappush(events, (now + 0.2, order, "again", now))
            else:
                waiting += 1
    return Outcome(now, refused, most)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.001, 1.0))
def test_an_unlimited_server_is_kept_full_and_never_overfilled(requests: int, ceiling: int, latency: float) -> None:
    out = simulate(requests, ceiling, latency=latency)
    assert out.refused == 0
    assert out.most_in_flight <= ceiling
    ideal = math.ceil(requests / ceiling) * latency
    assert out.seconds <= ideal + max(0.0, (ceiling - RAMP_START) / 1000.0) + latency + 1e-6


@pytest.mark.parametrize("latency", [0.01, 0.05, 0.5])
def test_a_rate_limited_server_is_used_fully_with_few_refusals(latency: float) -> None:
    out = simulate(1000, 256, latency=latency, rate=100, burst=100)
    assert out.seconds <= (1000 - 100) / 100 + latency + 0.7
    assert out.refused <= 100


def test_the_first_refusal_ends_the_ramp() -> None:
    limits = Limits(1024, now=0.0)
    for _ in range(RAMP_START):
        limits.start(0.0)
    limits.throttled(0.0, 0.01)
    limits.release()
    before = limits.limit
    assert limits.wait(0.5) >= 0.0
    assert limits.limit <= max(before, 1024)
    assert limits.pace is not None


def test_overload_halves_once_and_recovers_by_successes() -> None:
    limits = Limits(16, now=0.0)
    for _ in range(16):
        limits.start(0.0)
    for _ in range(5):
        limits.overloaded(1.0)
    assert limits.limit == 8
    for _ in range(16):
        limits.release()
    for _ in range(2000):
        limits.start(2.0)
        limits.succeeded()
        limits.release()
    assert limits.limit == 16


def test_a_slow_server_with_few_slots_is_not_stormed() -> None:
    """Four slots of three seconds each: the rate is too low to read, so the limit itself comes down."""
    limits = Limits(64, now=0.0)
    for _ in range(5):
        limits.start(0.0)
    limits.throttled(0.0, 0.01)
    limits.throttled(0.0, 0.3)
    assert limits.limit < 5 or limits.pace is not None
    assert limits.limit >= 1


def test_no_request_at_all_is_refused_as_a_ceiling() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Limits(0, now=0.0)
