"""ares_train.aepo.state: its JSON gives back every bit, and nothing but what a run can have left is taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_train.aepo.state import AEPOState, StateError

finite = st.floats(allow_nan=False, allow_infinity=False)
above = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)


@given(finite, finite, st.tuples(above, above, above), st.integers(0, 2**40))
def test_state_survives_json_exactly(tau: float, rollout: float, kappas: tuple[float, float, float], step: int) -> None:
    state = AEPOState(step=step, tau_exact=tau, tau_rollout=rollout, kappas=kappas)
    assert AEPOState.from_json(state.to_json()) == state


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"format": 2}', '{"format": 1, "kappas": [1, 2]}', '{"format": 1, "step": "x"}']
)
def test_a_state_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StateError):
        AEPOState.from_json(text)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kappas": [1.0, -1.0, 1.0]}, "kappas"),
        ({"kappas": [1.0, 0.0, 1.0]}, "kappas"),
        ({"alphas": [0.5, 0.5, -0.5]}, "alphas"),
        ({"step": -1}, "step"),
        ({"bootstrap_tau": {"total": 1.0, "count": -2}}, "count"),
        ({"stepp": 3}, "unknown stepp"),
        ({"bootstrap_tau": {"total": 1.0, "count": 2, "more": 0}}, "unknown bootstrap_tau.more"),
        ({"bins": [{}, {}, {}]}, "no bins.0.batches"),
    ],
)
def test_a_state_that_no_run_could_have_left_is_refused(change: dict[str, Any], complaint: str) -> None:
    whole = json.loads(AEPOState().to_json())
    with pytest.raises(StateError, match=complaint):
        AEPOState.from_json(json.dumps({**whole, **change}))
    del whole["tau_exact"]
    with pytest.raises(StateError, match="no tau_exact"):
        AEPOState.from_json(json.dumps(whole))


def test_a_state_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        AEPOState(tau_exact=float("nan")).to_json()
