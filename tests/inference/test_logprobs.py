"""Entropy bounds hold for every distribution and every server's way of listing it; tokens are spelt as text."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.inference.logprobs import (
    Alternative,
    MissingLogprobs,
    Token,
    entropy_bounds,
    known_probabilities,
    token_texts,
    token_trace,
)

BITS_OF_SLACK = 1e-9


def entropy(p) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


@st.composite
def distributions(draw) -> list[float]:
    """Full next-token distributions, most probable first: flat, peaked, and with ties."""
    weights = draw(
        st.lists(st.sampled_from([1e-9, 1e-4, 0.01, 0.1, 0.1, 1.0, 1.0, 7.0, 300.0]), min_size=3, max_size=40)
    )
    total = sum(weights)
    return sorted((w / total for w in weights), reverse=True)


def listing(server: str, p: list[float], k: int, chosen: int) -> Token:
    """How each server lists the k most probable of the tokens "t0", "t1", ... when ``chosen`` was sampled."""
    alternatives = [Alternative(f"t{i}", math.log(x)) for i, x in enumerate(p[:k])]
    sampled = Alternative(f"t{chosen}", math.log(p[chosen]))
    if server == "vllm":  # the sampled token first, then the others in order, cut at k
        alternatives = [sampled, *(each for each in alternatives if each.token != sampled.token)][:k]
    elif server == "lmdeploy":  # without the sampled token
        alternatives = [each for each in alternatives if each.token != sampled.token]
    return Token(sampled.token, sampled.logprob, None, alternatives)


@settings(max_examples=300, deadline=None)
@given(distributions(), st.sampled_from(["vllm", "llama.cpp", "lmdeploy"]), st.integers(1, 25), st.data())
def test_bounds_hold_for_every_server(p, server, k, data):
    k = min(k, len(p))
    chosen = data.draw(st.integers(0, len(p) - 1))
    token = listing(server, p, k, chosen)
    if not token.top_logprobs:
        token.top_logprobs = [Alternative(token.token, token.logprob)]
    known, cap, logprob, top = known_probabilities([token], k)
    low, high, tail = entropy_bounds(known, cap, len(p))
    true = entropy(p)
    assert low[0] <= true + BITS_OF_SLACK
    assert high[0] >= true - BITS_OF_SLACK
    seen = set(range(k)) | {chosen} if server != "vllm" else {int(each.token[1:]) for each in token.top_logprobs}
    assert tail[0] == pytest.approx(1 - sum(p[i] for i in seen), abs=1e-9)
    assert logprob[0] == pytest.approx(math.log(p[chosen]))
    assert 1 <= top <= k


def least_tail_entropy(tail: float, cap: float) -> float:
    """Brute force: the tail in pieces of the cap until less than one is left."""
    total = 0.0
    while tail > cap:
        total += -cap * math.log(cap)
        tail -= cap
    return total + (-tail * math.log(tail) if tail > 0 else 0.0)


@settings(max_examples=200, deadline=None)
@given(distributions(), st.integers(1, 10))
def test_low_bound_is_the_least_possible(p, k):
    k = min(k, len(p) - 1)
    known = np.array([[*p[:k], np.nan]])
    low, _, tail = entropy_bounds(known, np.array([p[k - 1]]), 10**6)
    assert low[0] == pytest.approx(entropy(p[:k]) + least_tail_entropy(tail[0], p[k - 1]), abs=1e-6)


def test_high_bound_is_reached_by_an_even_tail():
    p = [0.5, 0.2] + [0.3 / 98] * 98
    low, high, tail = entropy_bounds(np.array([p[:2]]), np.array([0.2]), 100)
    assert high[0] == pytest.approx(entropy(p))
    assert low[0] == pytest.approx(entropy([0.5, 0.2, 0.2, 0.1]))
    assert tail[0] == pytest.approx(0.3)


def test_whole_distribution_known_gives_equal_bounds():
    low, high, tail = entropy_bounds(np.array([[0.75, 0.25]]), np.array([0.25]), 2)
    assert low[0] == pytest.approx(high[0]) == pytest.approx(entropy([0.75, 0.25]))
    assert tail[0] == 0


def test_unknown_vocabulary_has_no_upper_bound():
    _, high, _ = entropy_bounds(np.array([[0.5]]), np.array([0.5]), None)
    assert np.isnan(high[0])


def test_minus_9999_is_a_bound_not_a_number():
    tokens = [
        Token("a", -9999.0, None, [Alternative("b", math.log(0.9)), Alternative("c", -9999.0)]),
        Token("b", math.log(0.9), None, [Alternative("b", math.log(0.9)), Alternative("c", math.log(0.05))]),
    ]
    trace = token_trace(tokens, text="ab", finish_reason="stop", asked=2, vocabulary=1000)
    assert math.isnan(trace.logprob[0])
    assert trace.tail[0] == pytest.approx(0.1)
    assert trace.entropy_low[0] == pytest.approx(entropy([0.9, 0.1]))
    assert np.isfinite(trace.entropy_high).all()


def test_masked_alternatives_do_not_inflate_the_bound():
    """Processed log-probs have true zeros: a vanishing least alternative must not stand for the tail's pieces."""
    token = Token("a", math.log(0.7), None, [Alternative("a", math.log(0.7)), Alternative("b", -400.0)])
    known, cap, _, _ = known_probabilities([token], 2)
    low, high, _ = entropy_bounds(known, cap, 1000)
    assert low[0] == pytest.approx(entropy([0.7, 0.3]))
    assert low[0] <= high[0] <= math.log(1000)


def test_repeats_count_once_and_pieces_of_characters_each():
    half, quarter = math.log(0.5), math.log(0.25)
    twice = Token("a", half, None, [Alternative("a", half), Alternative("a", half), Alternative("b", quarter)])
    pieces = Token("a", half, None, [Alternative("a", half), Alternative("", quarter), Alternative("", quarter)])
    known, cap, _, _ = known_probabilities([twice, pieces], 3)
    assert np.nansum(known, axis=1) == pytest.approx([0.75, 1.0])
    assert cap[0] == np.inf


def test_ragged_rows_and_rows_without_alternatives():
    tokens = [
        Token("a", math.log(0.5), None, [Alternative("a", math.log(0.5)), Alternative("b", math.log(0.25))]),
        Token("c", math.log(0.6), None, []),
        Token("d", None, None, None),
    ]
    trace = token_trace(tokens, text="acd", finish_reason="length", asked=2, vocabulary=100)
    assert trace.tail == pytest.approx([0.25, 0.4, 1.0])
    assert trace.entropy_low == pytest.approx([entropy([0.5, 0.25, 0.25]), entropy([0.6, 0.4]), 0.0])
    assert trace.entropy_high[2] == pytest.approx(math.log(100))
    assert trace.top == 2


def test_more_alternatives_than_asked_are_not_used():
    row = [Alternative(f"t{i}", math.log(0.1)) for i in range(10)]
    trace = token_trace([Token("t0", math.log(0.1), None, row)], text="t0", finish_reason=None, asked=3, vocabulary=10)
    assert trace.top == 3
    assert trace.tail == pytest.approx([0.7])


def test_no_alternatives_at_all_is_an_error():
    with pytest.raises(MissingLogprobs, match="top_logprobs"):
        token_trace([Token("a", -0.1), Token("b", -0.1)], text="ab", finish_reason="stop", asked=5, vocabulary=None)


# ---------------------------------------------------------------- texts


def spelt(tokens: list[Token], text: str, finish_reason: str = "stop") -> tuple[list[str], bool]:
    texts, end = token_texts(tokens, text, finish_reason)
    assert "".join(texts[:-1] if end else texts) == text
    return texts, end


def test_vllm_end_token_and_completed_character():
    tokens = [Token("I "), Token("", bytes=[]), Token("é", bytes=list("é".encode())), Token("<|im_end|>")]
    assert spelt(tokens, "I é") == (["I ", "", "é", "<|im_end|>"], True)


def test_llama_cpp_end_token_is_nothing():
    assert spelt([Token("ok", bytes=[111, 107]), Token("", bytes=[])], "ok") == (["ok", ""], True)


def test_cut_reply_has_no_end_token():
    tokens = [Token("a"), Token("", bytes=[])]
    assert token_texts(tokens, "a", "length") == (["a", ""], False)


def test_openai_pieces_of_a_character_come_as_bytes():
    first, rest = "😀".encode()[:2], "😀".encode()[2:]
    tokens = [Token("bytes:\\xf0\\x9f", bytes=list(first)), Token("bytes:\\x98\\x80", bytes=list(rest))]
    assert spelt(tokens, "😀") == (["", "😀"], False)


def test_lmdeploy_byte_level_pieces():
    tokens = [Token("The"), Token("Ġcaf"), Token("Ã©"), Token("Ċ"), Token("ðŁĺ"), Token("Ģ"), Token("<|im_end|>")]
    for token in tokens:
        token.bytes = list(token.token.encode())
    texts, end = spelt(tokens, "The café\n😀")
    assert texts == ["The", " caf", "é", "\n", "", "😀", "<|im_end|>"]
    assert end


def test_sentence_pieces():
    tokens = [Token("▁The"), Token("▁end"), Token("<0x0A>"), Token("</s>")]
    texts, end = token_texts(tokens, "The end\n", "stop")
    assert texts == [" The", " end", "\n", "</s>"]
    assert end


def test_stop_token_that_was_cut_from_the_text():
    assert token_texts([Token("4"), Token("\n\n")], "4", "stop") == (["4", "\n\n"], True)


def test_special_word_within_the_text_is_no_end():
    assert token_texts([Token("write "), Token("</s>")], "write </s>", "stop") == (["write ", "</s>"], False)


def test_unknown_spelling_is_left_as_it_came():
    tokens = [Token("token_id:17"), Token("token_id:4", bytes=[999])]
    assert token_texts(tokens, "of no kin", "stop") == (["token_id:17", "token_id:4"], False)


def test_entropies_that_the_server_says_are_taken_as_they_are() -> None:
    rows = [
        Token(token=word, logprob=-0.1, top_logprobs=[Alternative(token=word, logprob=-0.1)], entropy=entropy)
        for word, entropy in (("a", 0.25), ("b", 1.5))
    ]
    trace = token_trace(rows, text="ab", finish_reason="stop", asked=1, vocabulary=100)
    assert trace.estimator == "exact"
    assert trace.entropy_low.tolist() == trace.entropy_high.tolist() == [0.25, 1.5]
    rows[1].entropy = None
    assert token_trace(rows, text="ab", finish_reason="stop", asked=1, vocabulary=100).estimator == "topk-bounds"
