"""The window study against plain loops, and the words behind it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.analysis import window_study as study
from ares_eval.analysis.ragged import ragged
from ares_eval.analysis.windows import window_means
from ares_eval.analysis.words import word_of_tokens
from tests.analysis import oracles


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_best_window_that_holds_a_token(seed: int, w: int) -> None:
    rows = oracles.random_rows(np.random.default_rng(seed), 5, 70)
    batch = ragged(rows)
    got = study.containing(window_means(batch, w), w)
    wanted = []
    for row in rows:
        means = oracles.window_means(row.tolist(), w)
        for t in range(len(row)):
            held = [means[s] for s in range(max(0, t - w + 1), t + 1) if not np.isnan(means[s])]
            wanted.append(max(held) if held else np.nan)
    np.testing.assert_array_equal(got, wanted)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_detection_is_that_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = oracles.random_rows(rng, 6, 80)
    batch = ragged(rows)
    critical = batch.with_values(rng.random(len(batch.values)) < 0.2)
    counter = study.WindowCounter((1, 3))
    half = len(rows) // 2
    cut = int(batch.offsets[half])
    # Two batches give what one gives.
    counter.add(ragged(rows[:half]), ragged(rows[:half]).with_values(critical.values[:cut]))
    counter.add(ragged(rows[half:]), ragged(rows[half:]).with_values(critical.values[cut:]))
    for point in counter.points((50.0, 90.0)):
        means = window_means(batch, point.window)
        scores = means.values if point.alignment == "start" else study.containing(means, point.window)
        predicted = scores >= point.threshold
        hits = int((predicted & critical.values).sum())
        assert point.predicted == predicted.sum()
        assert point.recall == pytest.approx(hits / critical.values.sum())
        assert point.precision == pytest.approx(hits / predicted.sum() if predicted.any() else 0)
        total = point.precision + point.recall
        assert point.f1 == pytest.approx(2 * point.precision * point.recall / total if total else 0)
        values = np.sort(means.values[~np.isnan(means.values)])
        ranked = values[int(point.percentile / 100 * (len(values) - 1))]
        assert ranked - study.LARGEST / study.BINS <= point.threshold <= ranked


def test_critical_tokens_of_high_entropy_are_found_best_by_single_tokens() -> None:
    rng = np.random.default_rng(0)
    marks = rng.random(20_000) < 0.05
    entropy = np.where(marks, rng.uniform(2, 3, 20_000), rng.uniform(0, 1, 20_000))
    batch = ragged([entropy])
    counter = study.WindowCounter((1, 8))
    counter.add(batch, batch.with_values(marks))
    best = {(p.window, p.alignment): p for p in study.best_points(counter.points())}
    assert best[1, "start"].f1 > 0.95
    assert best[8, "start"].f1 < 0.5


def test_nothing_critical_nothing_to_find() -> None:
    batch = ragged([[1.0, 2.0]])
    counter = study.WindowCounter()
    counter.add(batch, batch.with_values(np.zeros(2, dtype=bool)))
    assert counter.points() == ()


def test_words_are_counted_once_for_all_their_tokens() -> None:
    tokens = (" Wait", ",", " the", " alter", "native", " the", "!")
    words = word_of_tokens(tokens)
    assert words == ["wait", "", "the", "alternative", "alternative", "the", ""]
    counter = study.WordCounter()
    entropy = np.array([2.0, 0, 0.5, 1.0, 9.0, 1.5, 0])
    counter.add(words, entropy, np.array([True, True, False, True, False, False, False]))
    found = {w.word: w for w in counter.counts({"wait"})}
    assert set(found) == {"wait", "alternative"}
    assert (found["wait"].count, found["wait"].in_windows, found["wait"].trigger) == (1, 1, True)
    assert found["alternative"].mean_entropy == 1.0
    assert found["wait"].lift == pytest.approx((1 / 2) / (1 / 4))
