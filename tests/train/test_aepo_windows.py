"""ares_train.aepo.windows and entropy: double loops, numpy's quantile, and every flag pattern of up to 12 positions."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ares_train.aepo import entropy as thresholds
from ares_train.aepo import windows
from ares_train.aepo.config import WindowConfig
from ares_train.aepo.entropy import group_tau, rollout_quantile, tau_high
from ares_train.aepo.rollouts import rollouts
from ares_train.aepo.windows import flags, window_mean
from tests.train import aepo_reference as oracle

SHAPES = st.tuples(st.integers(0, 5), st.integers(0, 12))


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(entropy, mask) with any pattern of generated tokens."""
    shape = draw(SHAPES)
    entropy = draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 12, width=32)))
    return entropy, draw(hnp.arrays(np.bool_, shape))


@settings(max_examples=100, deadline=None)
@given(batches(), st.integers(1, 13))
def test_window_means_are_those_of_a_double_loop(batch: tuple[np.ndarray, np.ndarray], w: int) -> None:
    entropy, mask = batch
    means, full = window_mean(entropy, mask, w)
    expected = oracle.window_means(entropy.astype(np.float64), mask, w)
    for row in range(len(entropy)):
        for t in range(entropy.shape[1]):
            value = expected[row][t]
            assert full[row, t] == (value is not None)
            assert means[row, t] == pytest.approx(value or 0.0, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("w", [1, 2, 3, 4, 8, 12])
def test_every_pattern_of_twelve_positions_merges_and_covers_as_enumerated(w: int) -> None:
    """All 4,096 patterns of high and low tokens at once, one a row; then again with a tool's word in the middle."""
    patterns = np.array(list(itertools.product([0.0, 1.0], repeat=12)))
    for hole in (None, 6):
        mask = np.ones(patterns.shape, dtype=bool)
        if hole is not None:
            mask[:, hole] = False
        batch = rollouts(patterns, mask, np.zeros(len(patterns)), np.arange(len(patterns)))
        # A window is high where all of its tokens are, so that w = 1 .. 12 give every merge there is.
        config = WindowConfig(size=w)
        found = flags(batch, 1.0, config)
        for row, h in enumerate(patterns.tolist()):
            on = mask[row].tolist()
            starts = [t + w <= 12 and all(h[t : t + w]) and all(on[t : t + w]) for t in range(12)]
            covered = {t for s in range(12) if starts[s] for t in range(s, s + w)}
            assert found.flagged[row].tolist() == starts
            assert set(np.flatnonzero(found.valid[row]).tolist()) == covered
            begun = [t for t in range(12) if starts[t] and (t == 0 or not starts[t - 1])]
            assert found.windows[row] == len(begun)
            assert (found.starts[row], found.covered[row]) == (sum(starts), len(covered))


def test_windows_do_not_cross_a_span_a_row_or_the_end() -> None:
    entropy = np.full((2, 6), 5.0)
    mask = np.array([[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 0]], dtype=bool)
    batch = rollouts(entropy, mask, [1, 0], [0, 1])
    found = flags(batch, 5.0, WindowConfig(size=2))
    assert found.flagged.astype(int).tolist() == [[1, 0, 0, 1, 1, 0], [1, 1, 1, 0, 0, 0]]
    assert found.windows.tolist() == [2, 1]


def test_a_mean_equal_to_tau_is_high_and_nan_flags_nothing() -> None:
    batch = rollouts(np.array([[1.0, 3.0, 2.0, 0.0]]), np.ones((1, 4), dtype=bool), [1], [0])
    assert flags(batch, 2.0, WindowConfig(size=2)).flagged.tolist() == [[True, True, False, False]]
    assert not flags(batch, math.nan, WindowConfig(size=2)).flagged.any()


def test_valid_windows_by_name() -> None:
    """One row, w = 2, tau = 2: windows start at 1 and at 5 and 6."""
    entropy = np.array([[0.0, 3.0, 1.0, 0.0, 1.0, 2.0, 2.0, 2.0, 0.0]])
    mask = np.ones_like(entropy, dtype=bool)
    trigger = np.zeros_like(mask)
    trigger[0, 0] = True
    batch = rollouts(entropy, mask, [1], [0], trigger=trigger)
    valid = {
        mode: np.flatnonzero(flags(batch, 2.0, WindowConfig(size=2, valid_mode=mode)).valid).tolist()
        for mode in ("window", "trigger", "confirmed")
    }
    assert valid["window"] == [1, 2, 5, 6, 7]
    assert valid["trigger"] == [1, 2]  # the word stands right before the window
    assert valid["confirmed"] == [1, 2, 5, 6, 7]
    # A window whose own first token is low: the next one carries its mean.
    batch = rollouts(np.array([[0.0, 1.0, 3.0, 0.0]]), np.ones((1, 4), dtype=bool), [1], [0])
    confirmed = flags(batch, 2.0, WindowConfig(size=2, valid_mode="confirmed"))
    assert confirmed.flagged.tolist() == [[False, True, False, False]] and not confirmed.valid.any()
    forked = rollouts(
        np.vstack([entropy, entropy]), np.vstack([mask, mask]), [1, 0], [0, 0], parent=[-1, 0], fork_at=[0, 6]
    )
    branched = flags(forked, 2.0, WindowConfig(size=2, valid_mode="branched"))
    assert [np.flatnonzero(row).tolist() for row in branched.valid] == [[5, 6, 7], [5, 6, 7]]


@settings(max_examples=60, deadline=None)
@given(batches(), st.floats(0, 12))
def test_windows_of_one_token_are_single_token_entropy(batch: tuple[np.ndarray, np.ndarray], tau: float) -> None:
    """Means, flags, counts and W_valid at w = 1 are those of the tokens themselves."""
    entropy, mask = batch
    means, full = window_mean(entropy, mask, 1)
    np.testing.assert_array_equal(full, mask)
    # Cumulative sums of float64: the last bits.
    np.testing.assert_allclose(means, np.where(mask, entropy.astype(np.float64), 0.0), atol=1e-12)
    rows = len(entropy)
    whole = rollouts(np.round(entropy), mask, np.zeros(rows), np.arange(rows))
    tau = math.floor(tau) + 0.5
    high = mask & (np.round(entropy) >= tau)
    found = flags(whole, tau, WindowConfig(size=1))
    for marked in (found.flagged, found.valid):
        np.testing.assert_array_equal(marked, high)
    for counted in (found.n_he, found.covered, flags(whole, tau, WindowConfig(size=1, count_mode="token")).n_he):
        np.testing.assert_array_equal(counted, high.sum(axis=1))
    for of in ("token", "window"):
        measured = tau_high(whole, WindowConfig(size=1, quantile_of=of))  # type: ignore[arg-type]
        np.testing.assert_allclose(measured, oracle.tau_of(whole, WindowConfig(size=1)), rtol=1e-9)


def test_trigger_modes_need_trigger_marks() -> None:
    batch = rollouts(np.ones((1, 4)), np.ones((1, 4), dtype=bool), [1], [0])
    for config in (WindowConfig(count_mode="trigger"), WindowConfig(valid_mode="trigger")):
        with pytest.raises(ValueError, match="no trigger-word marks"):
            flags(batch, 1.0, config)


# ---------------------------------------------------------------- thresholds


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["token", "window"]),
    st.sampled_from(["mean", "pooled", "median"]),
    st.sampled_from(["base", "all"]),
    st.floats(0.01, 0.99),
    st.integers(1, 5),
)
def test_tau_is_numpys_quantile(seed: int, of: str, reduce: str, rows: str, q: float, w: int) -> None:
    rng = np.random.default_rng(seed)
    batch = oracle.random_rollouts(rng, forks=True, holes=True)
    batch = dataclasses.replace(batch, entropy=rng.gamma(0.5, size=batch.entropy.shape).astype(np.float32))
    config = WindowConfig(size=w, quantile=q, quantile_of=of, reduce=reduce, rows=rows)  # type: ignore[arg-type]
    np.testing.assert_allclose(tau_high(batch, config), oracle.tau_of(batch, config), rtol=1e-6)


def test_the_default_threshold_is_equation_three() -> None:
    rng = np.random.default_rng(0)
    entropy = rng.gamma(0.5, size=(8, 200)).astype(np.float32)
    batch = rollouts(entropy, np.ones(entropy.shape, dtype=bool), np.ones(8), np.zeros(8))
    expected = np.mean([np.quantile(row.astype(np.float64), 0.95) for row in entropy])
    assert tau_high(batch, WindowConfig()) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("of", ["token", "window"])
def test_a_rollouts_own_quantile_is_that_of_the_batch(of: str) -> None:
    rng = np.random.default_rng(1)
    entropy = rng.gamma(0.5, size=(4, 50)).astype(np.float32)
    config = WindowConfig(quantile_of=of)  # type: ignore[arg-type]
    batch = rollouts(entropy, np.ones(entropy.shape, dtype=bool), np.ones(4), np.zeros(4))
    assert group_tau(list(entropy), config) == tau_high(batch, config)
    assert math.isnan(rollout_quantile(np.zeros(0), config))
    holed = np.insert(entropy[0].astype(np.float64), 20, np.nan)
    masked = rollouts(np.nan_to_num(holed)[None], ~np.isnan(holed)[None], [1], [0])
    assert rollout_quantile(holed, config) == tau_high(masked, config)


@pytest.mark.parametrize("reduce", ["mean", "pooled"])
def test_chunks_change_nothing(reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = oracle.random_rollouts(np.random.default_rng(2), questions=9, tokens=30, forks=True, holes=True)
    config = WindowConfig(size=2, quantile=0.6, reduce=reduce, valid_mode="branched", count_mode="token")  # type: ignore[arg-type]
    tau = tau_high(batch, config)
    whole = flags(batch, tau, config)
    for tokens in (1, 70):
        monkeypatch.setattr(windows, "CHUNK_TOKENS", tokens)
        assert thresholds.tau_high(batch, config) == tau
        part = flags(batch, tau, config)
        for field in dataclasses.fields(whole):
            np.testing.assert_array_equal(getattr(part, field.name), getattr(whole, field.name))
