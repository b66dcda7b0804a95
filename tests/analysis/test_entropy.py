"""Windows, thresholds and HWE against plain loops, and the golden numbers of hand-made arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.analysis import entropy, words
from ares_eval.analysis.hwe import flag, hwe
from ares_eval.analysis.ragged import first_true, ragged, row_quantiles, row_sums
from ares_eval.analysis.windows import covered, has_window, merged_windows, window_means
from ares_eval.types import TokenTrace
from tests.analysis import oracles

seeds = st.integers(0, 2**32 - 1)
windows = st.integers(1, 64)


def question_ids(rows: int) -> np.ndarray:
    return np.arange(rows) // 3


# ---------------------------------------------------------------- against plain loops


@given(seeds, windows)
@settings(max_examples=60, deadline=None)
def test_window_means_are_those_of_the_definition(seed: int, w: int) -> None:
    rows = oracles.random_rows(np.random.default_rng(seed), 7, 90)
    batch = ragged(rows)
    got = window_means(batch, w)
    wanted = [mean for row in rows for mean in oracles.window_means(row.tolist(), w)]
    np.testing.assert_array_equal(got.values, wanted)  # sums of float32 are exact, so no tolerance
    assert has_window(batch, w).tolist() == [not math.isnan(mean) for mean in wanted]


@given(seeds, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_quantiles_of_rows(seed: int, q: float) -> None:
    rows = oracles.random_rows(np.random.default_rng(seed), 9, 70)
    got = row_quantiles(ragged(rows), q)
    for value, row in zip(got, rows, strict=True):
        if len(row):
            assert value == pytest.approx(oracles.quantile(row.tolist(), q), rel=1e-12)
            assert value == pytest.approx(np.quantile(row, q), rel=1e-12)
        else:
            assert math.isnan(value)


@given(seeds, windows, st.floats(0.1, 2))
@settings(max_examples=80, deadline=None)
def test_hwe_counts_are_those_of_plain_loops(seed: int, w: int, tau: float) -> None:
    rng = np.random.default_rng(seed)
    rows = oracles.random_rows(rng, 6, 80)
    batch = ragged(rows)
    marks = [rng.random(len(row)) < 0.1 for row in rows]
    triggers = batch.with_values(np.concatenate(marks))
    found = hwe(batch, np.full(6, tau), w=w, triggers=triggers)
    at = 0
    for b, row in enumerate(rows):
        positions = oracles.flagged(row.tolist(), tau, w)
        runs = oracles.merged(positions, w, len(row))
        assert found.positions[b] == len(positions)
        assert found.windows[b] == len(runs)
        assert found.first[b] == (positions[0] if positions else -1)
        inside = {t for first, _, stop in runs for t in range(first, stop)}
        assert found.covered[b] == len(inside)
        confirmed = [run for run in runs if marks[b][max(run[0] - 1, 0) : run[2]].any()]
        assert found.confirmed_windows is not None and found.confirmed_windows[b] == len(confirmed)
        assert found.confirmed_positions is not None
        assert found.confirmed_positions[b] == sum(last - first + 1 for first, last, _ in confirmed)
        merged = found.merged
        mine = merged.row == b
        assert list(zip(merged.first[mine], merged.last[mine], merged.stop[mine], strict=True)) == runs
        at += len(row)
    assert covered(found.flagged, w).values.sum() == found.covered.sum()


@given(seeds, st.integers(1, 12), st.sampled_from([50.0, 90.0, 95.0, 100.0]))
@settings(max_examples=40, deadline=None)
def test_thresholds_are_those_of_plain_loops(seed: int, w: int, percentile: float) -> None:
    rows = [row.tolist() for row in oracles.random_rows(np.random.default_rng(seed), 7, 60)]
    batch, question, q = ragged(rows), question_ids(7), percentile / 100

    def tau(definition: str) -> np.ndarray:
        return entropy.tau_high(batch, w=w, percentile=percentile, definition=definition, question=question)

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values) if values else math.nan

    def full(row: list[float], after: int) -> list[float]:
        return [mean(row[t : t + w]) for t in range(after, len(row) - w + 1)]

    quantiles = [oracles.quantile(row, q) for row in rows if row]
    assert tau("paper") == pytest.approx([mean(quantiles)] * 7, nan_ok=True)
    pooled = [value for row in rows for value in row]
    assert tau("pooled") == pytest.approx([oracles.quantile(pooled, q) if pooled else math.nan] * 7, nan_ok=True)
    own = [mean([oracles.quantile(rows[j], q) for j in range(7) if j // 3 == b // 3 and rows[j]]) for b in range(7)]
    assert tau("per_question") == pytest.approx(own, nan_ok=True)
    of_windows = [oracles.quantile(full(row, 0), q) for row in rows if len(row) >= w]
    assert tau("window_quantile") == pytest.approx([mean(of_windows)] * 7, nan_ok=True)
    after = [oracles.quantile(full(row, 1), q) for row in rows if len(row) > w]
    assert tau("released") == pytest.approx([float(np.median(after)) if after else math.nan] * 7, nan_ok=True)


# ---------------------------------------------------------------- golden numbers


def test_golden_threshold_and_windows() -> None:
    """Two replies of 21 tokens, so that the 95th percentile is the 20th of 21 ordered values exactly."""
    first = [i / 10 for i in range(21)]  # 0.0 .. 2.0: quantile 1.9
    second = [1.0] * 19 + [3.0, 3.0]  # quantile 3.0
    batch = ragged([first, second])
    tau = entropy.tau_high(batch, w=4, question=np.array([0, 1]))
    assert tau == pytest.approx([2.45, 2.45])
    pooled = entropy.tau_high(batch, w=4, definition="pooled", question=np.array([0, 1]))
    assert pooled == pytest.approx([np.quantile(first + second, 0.95)] * 2)
    # Means of 4 in the first never exceed 1.85, in the second (1 + 1 + 3 + 3) / 4 = 2 at position 17 is the highest.
    assert hwe(batch, tau, w=4).positions.tolist() == [0, 0]
    assert hwe(batch, tau, w=1).positions.tolist() == [0, 2]
    assert hwe(batch, np.array([1.85, 2.0]), w=4).positions.tolist() == [1, 1]
    assert hwe(batch, np.array([1.85, 2.0]), w=4).first.tolist() == [17, 17]


def test_the_threshold_itself_is_high_and_partial_windows_are_not() -> None:
    batch = ragged([[0.5, 0.5, 0.5, 0.5, 9.0]])
    assert flag(batch, np.array([0.5]), w=4).values.tolist() == [True, True, False, False, False]


def test_merged_windows_do_not_cross_replies() -> None:
    batch = ragged([[0.0, 5.0], [5.0, 0.0], []])
    found = merged_windows(flag(batch, np.full(3, 1.0), w=1), 1)
    assert (found.row.tolist(), found.first.tolist(), found.stop.tolist()) == ([0, 1], [1, 0], [2, 1])


def test_named_counts_follow_the_trigger_words() -> None:
    batch = ragged([[2.0, 0.0, 2.0, 2.0, 2.0], [2.0, 2.0]])
    triggers = batch.with_values(np.array([True, True, False, False, True, True, False]))
    tau = np.full(2, 1.5)
    assert flag(batch, tau, w=2, count="token", triggers=triggers).values.tolist() == [
        *[True, False, False, False, True],
        *[True, False],
    ]
    # The two tokens after position 1 are high; after position 0 they are 0 and 2; nothing follows the last ones.
    assert flag(batch, tau, w=2, count="released", triggers=triggers).values.tolist() == [
        *[False, True, False, False, False],
        *[False, False],
    ]
    with pytest.raises(ValueError, match="trigger words"):
        flag(batch, tau, w=2, count="released")


def test_empty_batches() -> None:
    batch = ragged([])
    assert hwe(batch, np.zeros(0)).positions.tolist() == []
    batch = ragged([[], []])
    assert hwe(batch, np.full(2, np.nan)).positions.tolist() == [0, 0]
    assert row_sums(batch).tolist() == [0, 0]
    assert first_true(batch).tolist() == [-1, -1]


@pytest.mark.parametrize("w", [0, 65])
def test_a_window_out_of_range_is_refused(w: int) -> None:
    with pytest.raises(ValueError, match="1 to 64"):
        window_means(ragged([[1.0]]), w)


def test_unknown_names_are_refused() -> None:
    batch = ragged([[1.0]])
    with pytest.raises(ValueError, match="per_question"):
        entropy.tau_high(batch, w=4, definition="mean", question=np.zeros(1))
    with pytest.raises(ValueError, match="released"):
        flag(batch, np.zeros(1), w=4, count="all")


# ---------------------------------------------------------------- estimates


def trace(low: list[float], high: list[float], tail: list[float], vocabulary: int | None, top: int) -> TokenTrace:
    return TokenTrace(
        tokens=tuple("x" for _ in low),
        logprob=np.zeros(len(low)),
        entropy_low=np.array(low),
        entropy_high=np.array(high),
        tail=np.array(tail),
        top=top,
        estimator="topk-bounds",
        vocabulary=vocabulary,
    )


def test_one_bucket_is_recovered_from_the_bounds() -> None:
    """What the released code computes from the top k, from what a trace keeps."""
    from ares_eval.inference.logprobs import entropy_bounds

    rng = np.random.default_rng(4)
    vocabulary, top = 1000, 20
    full = -np.sort(-rng.dirichlet(np.full(vocabulary, 0.02), size=50), axis=1)
    p = full[:, :top]
    low, high, tail = entropy_bounds(p, p[:, -1], vocabulary)
    kept = trace(low.tolist(), high.tolist(), tail.tolist(), vocabulary, top)
    assert entropy.estimate(kept, "one_bucket") == pytest.approx(entropy.one_bucket(p), abs=1e-9)
    exact = -(full * np.log(np.maximum(full, 1e-300))).sum(axis=1)
    assert (entropy.estimate(kept, "low") <= exact + 1e-9).all()
    assert (entropy.estimate(kept, "high") >= exact - 1e-9).all()
    assert (entropy.one_bucket(p) <= exact + 1e-9).all()


def test_estimates_that_a_trace_does_not_hold_are_refused() -> None:
    kept = trace([0.1], [math.nan], [0.0], None, 20)
    assert entropy.estimate(kept, "low").tolist() == [0.1]
    for name in ("high", "one_bucket"):
        with pytest.raises(entropy.NoEstimate, match="vocabulary"):
            entropy.estimate(kept, name)
    with pytest.raises(entropy.NoEstimate, match="ares-eval entropy"):
        entropy.estimate(kept, "exact")


# ---------------------------------------------------------------- trigger words


def test_words_split_over_tokens_are_found() -> None:
    listed = words.trigger_words(["alternatively", "let's see", "let", "so"])
    tokens = ("Altern", "atively", ",", " Let", "'s", " see", ":", " also", " so", "!")
    marks = words.trigger_tokens([tokens, ()], listed)
    assert [t for t, mark in zip(tokens, marks.row(0), strict=True) if mark] == [
        *["Altern", "atively", " Let", "'s", " see", " so"]
    ]
    assert marks.row(1).tolist() == []
    found = words.find_words("".join(tokens), listed)
    assert [item.entry for item in found] == ["alternatively", "let's see", "so"]


def test_scripts_without_spaces() -> None:
    listed = words.trigger_words(["等等", "wait"])
    assert words.trigger_tokens([("我想", "等", "等", "，", " Wait")], listed).values.tolist() == [
        *[False, True, True, False, True]
    ]


def test_case_folding_keeps_places() -> None:
    found = words.find_words("İİ WAIT", words.trigger_words(["wait"]))
    assert [(item.start, item.stop) for item in found] == [(3, 7)]


PIECES = ["wait", "let", "let's", "let’s", "Let us", "see", "that's", "THAT", "so", "on the other hand", "hand", "-",
          " ", "\n", "1", "'", "é", "İ", "等等", "等", "_"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30), st.booleans())
def test_counting_words_is_finding_them(pieces: list[str], spaced: bool) -> None:
    listed = words.trigger_words(["wait", "let's", "let us see", "let", "that", "on the other hand", "等等", "hand so"])
    for some in (listed, words.read_words()):
        text = (" " if spaced else "").join(pieces)
        assert words.count_words(text, some) == len(words.find_words(text, some))


def test_the_list_in_the_package_is_usable() -> None:
    listed = words.read_words()
    assert listed.size > 100
    assert listed.phrases["wait"] == (("wait",),)


def test_bad_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        words.trigger_words([])
    with pytest.raises(ValueError, match="1 to 8 words"):
        words.trigger_words(["42"])
