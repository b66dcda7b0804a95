"""One sampling step of the CPU rollout engine against brute force over the whole vocabulary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_train.verl_cpu.sampling import Settings, draw, inverse_cdf, truncate

LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=9)


def brute_kept(logits: list[float], top_k: int, top_p: float) -> list[int]:
    """The tokens that stay, by sorting and adding up."""
    size = len(logits)
    kept = list(range(size))
    if top_k > 0:
        last = sorted(logits, reverse=True)[min(top_k, size) - 1]
        kept = [token for token in kept if logits[token] >= last]
    if top_p < 1.0:
        weights = {token: math.exp(logits[token]) for token in kept}
        total, before, chosen = sum(weights.values()), 0.0, []
        for token in sorted(kept, key=lambda token: (-logits[token], token)):
            if before / total < top_p:
                chosen.append(token)
            before += weights[token]
        kept = sorted(chosen)
    return kept


@settings(max_examples=300, deadline=None)
@given(LOGITS, st.integers(0, 10), st.sampled_from([0.05, 0.3, 0.613, 0.9, 0.99, 1.0]))
def test_truncation_keeps_what_sorting_and_adding_up_keeps(logits, top_k, top_p):
    row = torch.tensor([logits], dtype=torch.float64)
    out = truncate(row, torch.tensor([top_k]), torch.tensor([top_p], dtype=torch.float64))
    assert torch.isfinite(out[0]).nonzero().flatten().tolist() == brute_kept(row[0].tolist(), top_k, top_p)


@settings(max_examples=200, deadline=None)
@given(LOGITS, st.floats(0.1, 3.0), st.integers(0, 5), st.sampled_from([0.5, 1.0]), st.floats(0, 1, exclude_max=True))
def test_a_draw_is_the_inverse_cdf_of_what_stays_and_its_entropy_is_the_whole_vocabularys(
    logits, temperature, top_k, top_p, uniform
):
    scaled = [value / temperature for value in torch.tensor(logits).double().tolist()]
    whole = np.exp(np.array(scaled) - np.logaddexp.reduce(scaled))
    kept = brute_kept(scaled, top_k, top_p)
    weights = np.array([whole[token] if token in kept else 0.0 for token in range(len(logits))])
    weights /= weights.sum()
    drawn = draw(
        torch.tensor([logits]),
        torch.tensor([temperature], dtype=torch.float64),
        torch.tensor([top_k]),
        torch.tensor([top_p], dtype=torch.float64),
        torch.tensor([uniform], dtype=torch.float64),
    )
    token = int(drawn.token)
    assert token in kept
    below = weights[:token].sum()
    assert below - 1e-9 <= uniform <= below + weights[token] + 1e-9
    assert float(drawn.log_prob) == pytest.approx(math.log(weights[token]), abs=1e-9)
    assert float(drawn.entropy) == pytest.approx(-sum(p * math.log(p) for p in whole if p > 0), abs=1e-9)


def test_zero_temperature_is_greedy_and_measures_the_model_itself():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    drawn = draw(logits, torch.tensor([0.0]), torch.tensor([1]), torch.tensor([0.1]), torch.tensor([0.999]))
    whole = logits.double().softmax(-1)[0]
    assert int(drawn.token) == 1
    assert float(drawn.log_prob) == pytest.approx(float(whole[1].log()))
    assert float(drawn.entropy) == pytest.approx(float(-(whole * whole.log()).sum()))


def test_rows_with_settings_of_their_own_do_not_touch_each_other():
    logits = torch.randn(4, 11, generator=torch.Generator().manual_seed(0))
    columns = (
        torch.tensor([1.0, 0.0, 0.7, 2.0]),
        torch.tensor([0, 0, 3, 0]),
        torch.tensor([1.0, 1.0, 1.0, 0.4], dtype=torch.float64),
        torch.tensor([0.2, 0.9, 0.5, 0.99], dtype=torch.float64),
    )
    together = draw(logits, *columns)
    for row in range(4):
        alone = draw(logits[row : row + 1], *(column[row : row + 1] for column in columns))
        assert int(alone.token) == int(together.token[row])
        assert float(alone.log_prob) == float(together.log_prob[row])
        assert float(alone.entropy) == float(together.entropy[row])


def test_many_draws_have_the_frequencies_of_the_distribution():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0], dtype=torch.float64)
    uniforms = torch.tensor(np.random.default_rng(0).random(20_000))
    tokens = inverse_cdf(probabilities.expand(len(uniforms), -1), uniforms)
    seen = torch.bincount(tokens, minlength=6) / len(uniforms)
    assert seen.tolist() == pytest.approx(probabilities.tolist(), abs=0.012)
    assert set(tokens.tolist()) == {1, 3, 4}


def test_the_ends_of_the_unit_interval_never_draw_a_token_of_probability_zero():
    probabilities = torch.tensor([[0.0, 0.5, 0.5, 0.0]], dtype=torch.float64)
    assert int(inverse_cdf(probabilities, torch.tensor([0.0]))) == 1
    assert int(inverse_cdf(probabilities, torch.tensor([1.0 - 2**-53], dtype=torch.float64))) == 2


def test_settings_from_verls_parameters():
    verls = {"temperature": 1.0, "top_p": 0.9, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
    assert Settings.of(verls, 32, 100) == Settings(1.0, 0, 0.9, 32, True)
    assert Settings.of({"max_tokens": 500}, 32, 100).max_tokens == 100
    assert Settings.of({"max_new_tokens": 5}, 32, 100).max_tokens == 5


@pytest.mark.parametrize(
    ("params", "room", "told"),
    [
        ({"min_p": 0.1}, 10, "does not know the sampling parameter min_p"),
        ({"repetition_penalty": 1.1}, 10, "no repetition penalty"),
        ({"temperature": -1.0}, 10, "temperature -1.0 must be"),
        ({"top_p": 0.0}, 10, "top_p 0.0"),
        ({}, 0, "leaves no room"),
    ],
)
def test_what_cannot_be_sampled_is_refused(params, room, told):
    with pytest.raises(ValueError, match=told):
        Settings.of(params, 32, room)
