"""The permits' state machine, fed with events by a small simulated server."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.inference.limits import RAMP_START, Limits, Start


@dataclass
class Outcome:
    seconds: float
    refused: int
    most_in_flight: int


def simulate(
    requests: int,
    ceiling: int,
    *,
    latency: float,
    rate: float = math.inf,
    burst: float = math.inf,
    slots: float = math.inf,
    chance: float = 0.0,
    seed: int = 0,
) -> Outcome:
    """Send ``requests`` to a server with a token bucket, a number of slots, and refusals by chance.

    Refusals come after 2 ms and are sent again after 0.2 s, as Retry-After says.
    """
    rng = random.Random(seed)
    now, filled, tokens = 0.0, 0.0, burst
    limits = Limits(ceiling, now=now)
    waiting, done, refused, most, order, busy = requests, 0, 0, 0, 0, 0
    events: list[tuple[float, int, str, Start]] = []
    while done < requests:
        while waiting and limits.wait(now) <= 0.0:
            start = limits.start(now)
            waiting -= 1
            most = max(most, limits.in_flight)
            if math.isfinite(rate):
                tokens, filled = min(burst, tokens + (now - filled) * rate), now
            order += 1
            if rng.random() >= chance and busy < slots and tokens >= 1:
                tokens -= 1
                busy += 1
                heapq.heappush(events, (now + latency, order, "answer", start))
            else:
                heapq.heappush(events, (now + 0.002, order, "refusal", start))
        pause = limits.wait(now) if waiting else math.inf
        now = min(events[0][0] if events else math.inf, now + pause)
        while events and events[0][0] <= now:
            _, _, kind, start = heapq.heappop(events)
            if kind == "answer":
                limits.succeeded()
                limits.release()
                done += 1
                busy -= 1
            elif kind == "refusal":
                refused += 1
                limits.throttled(start, now)
                limits.release()
                order += 1
                heapq.heappush(events, (now + 0.2, order, "again", start))
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


@pytest.mark.parametrize("seed", range(5))
def test_refusals_by_chance_are_not_taken_for_a_rate(seed: int) -> None:
    free = simulate(1000, 64, latency=0.05)
    out = simulate(1000, 64, latency=0.05, chance=0.1, seed=seed)
    assert out.seconds <= free.seconds + 1.0


@pytest.mark.parametrize("chance", [0.3, 0.5])
def test_refusals_that_nothing_helps_against_are_borne(chance: float) -> None:
    out = simulate(1000, 64, latency=0.05, chance=chance)
    assert out.seconds < 15.0


def test_a_server_that_counts_requests_in_flight_is_used_well() -> None:
    """Twenty slots of half a second: 1,000 requests need 25 s."""
    out = simulate(1000, 64, latency=0.5, slots=20)
    assert out.seconds < 45.0
    assert out.refused < 300


def test_the_first_refusal_ends_the_ramp() -> None:
    limits = Limits(1024, now=0.0)
    starts = [limits.start(0.0) for _ in range(RAMP_START)]
    limits.throttled(starts[0], 0.01)
    assert limits.limit == RAMP_START
    assert limits.wait(0.5) == math.inf


def test_one_503_changes_nothing_and_many_cut_once() -> None:
    limits = Limits(16, now=0.0)
    starts = [limits.start(0.0) for _ in range(16)]
    limits.overloaded(starts[0], 0.1)
    assert limits.limit == 16
    for start in starts[1:]:
        limits.overloaded(start, 0.1)
    assert limits.limit == 8


def test_a_cut_limit_recovers_by_successes() -> None:
    limits = Limits(16, now=0.0)
    for start in [limits.start(0.0) for _ in range(16)]:
        limits.overloaded(start, 0.1)
        limits.release()
    for second in range(2000):
        limits.start(1.0 + second)
        limits.succeeded()
        limits.release()
    assert limits.limit == 16


def test_no_request_at_all_is_refused_as_a_ceiling() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Limits(0, now=0.0)
