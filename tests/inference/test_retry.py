"""Backoff: bounded, jittered, and longer when nobody is answered."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ares_eval.inference.retry import CAP, ISOLATED_BASE, OUTAGE_BASE, Health, backoff


@given(st.integers(1, 40), st.booleans(), st.integers())
def test_backoff_lies_between_zero_and_the_cap_of_its_try(retry: int, healthy: bool, seed: int) -> None:
    base = ISOLATED_BASE if healthy else OUTAGE_BASE
    wait = backoff(retry, healthy=healthy, rng=random.Random(seed))
    assert 0.0 <= wait <= min(CAP, base * 2.0 ** (retry - 1))


def test_jitter_is_full() -> None:
    rng = random.Random(7)
    waits = [backoff(3, healthy=False, rng=rng) for _ in range(2000)]
    assert min(waits) < 0.1 * 4 * OUTAGE_BASE
    assert max(waits) > 0.9 * 4 * OUTAGE_BASE
    assert abs(sum(waits) / len(waits) - 2 * OUTAGE_BASE) < 0.1


def test_health_needs_half_of_the_last_tries() -> None:
    health = Health()
    assert not health.good
    health.note(True)
    assert health.good
    for _ in range(2):
        health.note(False)
    assert not health.good
    for _ in range(100):
        health.note(True)
    assert health.good
