"""A refused parameter is renamed or dropped once; a token limit is lowered to what fits; nothing else changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_eval.inference.failures import ContextLimit, Fault, classify
from ares_eval.inference.parameters import ParameterChanges, adapt, estimate_prompt_tokens, fit_max_tokens
from ares_eval.inference.transport import HttpAnswer
from ares_eval.types import Sampling, WireMessage

FULL = Sampling(top_k=20, seed=1, stop=("Q:",), reasoning_effort="low", stream=True, logprobs=5)


def refused(message: str, status: int = 400, **fields) -> Fault:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **fields}}
    return classify(HttpAnswer(status, {}, json.dumps(body).encode()))


REFUSALS = [
    ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
     {"param": "max_tokens", "code": "unsupported_parameter"}, "max_tokens"),
    ("Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) value is supported.",
     {"param": "temperature", "code": "unsupported_value"}, "temperature"),
    ("Unsupported parameter: 'top_p' is not supported with this model.", {}, "top_p"),
    ("Unrecognized request argument supplied: top_k", {}, "top_k"),
    ("`seed` is not supported by this provider", {}, "seed"),
    ("[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'Extra inputs are not permitted'}]", {},
     "stream_options"),
    ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", {}, "top_p"),
    ("Unknown parameter: 'reasoning_effort'.", {"code": "unknown_parameter"}, "reasoning_effort"),
    ("'stop' is not supported with this model", {}, "stop"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "fields", "parameter"), REFUSALS)
def test_exactly_the_refused_parameter_changes_once(message, fields, parameter):
    fault = refused(message, **fields)
    assert fault.parameter == parameter
    assert (fault.cause, fault.retry, fault.fatal) == ("refused", False, False)
    changes = adapt(fault, ParameterChanges(), FULL)
    if parameter == "max_tokens":
        assert changes == ParameterChanges(renamed=frozenset({"max_tokens"}))
    else:
        assert changes == ParameterChanges(dropped=frozenset({parameter}))
    assert adapt(fault, changes, FULL) is None


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("Invalid 'temperature': decimal above maximum value. Expected a value <= 2", {"param": "temperature"}),
        ("temperature must be in [0, 2], got 9.0.", {"param": "temperature", "type": "BadRequestError"}),
        ("Invalid value: 'potato'.", {"param": "messages[0].role"}),
        ("you must provide a model parameter", {}),
    ],
)
def test_a_bad_value_is_not_an_unsupported_parameter(message, fields):
    fault = refused(message, **fields)
    assert fault.parameter is None
    assert adapt(fault, ParameterChanges(), FULL) is None


def test_what_was_not_sent_is_not_dropped():
    fault = refused("Unrecognized request argument supplied: top_k")
    assert adapt(fault, ParameterChanges(), Sampling()) is None


def test_what_the_user_wrote_himself_is_not_dropped():
    fault = refused("Unrecognized request argument supplied: min_p")
    assert fault.parameter == "min_p"
    assert adapt(fault, ParameterChanges(), Sampling(extra_body={"min_p": 0.1})) is None
    fault = refused("Unrecognized request argument supplied: top_k")
    assert adapt(fault, ParameterChanges(), Sampling(top_k=5, extra_body={"top_k": 7})) is None


@pytest.mark.parametrize(
    "parameter", ["messages", "logprobs", "top_logprobs", "model", "stream", "max_completion_tokens"]
)
def test_what_is_measured_never_changes_silently(parameter):
    fault = refused(f"Unsupported parameter: '{parameter}' is not supported with this model.", param=parameter)
    assert adapt(fault, ParameterChanges(), FULL) is None


def test_changes_of_requests_in_flight_are_joined():
    one = ParameterChanges(renamed=frozenset({"max_tokens"}), max_tokens=100)
    other = ParameterChanges(dropped=frozenset({"seed"}), max_tokens=50)
    both = one | other
    assert both == ParameterChanges(frozenset({"max_tokens"}), frozenset({"seed"}), 50)
    assert list(both.describe()) == [
        "max_tokens sent as max_completion_tokens", "seed not sent", "max_tokens lowered to 50",
    ]  # fmt: skip
    assert not ParameterChanges()
    assert both


# ---------------------------------------------------------------- sizes

SIZES = [
    # OpenAI
    ("This model's maximum context length is 4097 tokens. However, you requested 9192 tokens (1000 in the messages, "
     "8192 in the completion). Please reduce the length of the messages or completion.",
     ContextLimit(4097, 1000), 3097),
    ("max_tokens is too large: 8192. This model supports at most 4096 completion tokens, whereas you provided 8192.",
     ContextLimit(None, None, 4096), 4096),
    ("This model's maximum context length is 4097 tokens. However, your messages resulted in 5000 tokens.",
     ContextLimit(4097, 5000), None),
    ("Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted in 300,000 tokens.",
     ContextLimit(272000, 300000), None),
    # vLLM, older and newer
    ("'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 4096 tokens "
     "and your request has 123 input tokens (8192 > 4096 - 123).", ContextLimit(4096, 123), 3973),
    ("max_tokens=8192 cannot be greater than max_model_len=max_total_tokens=2048. Please request fewer output tokens.",
     ContextLimit(2048), 1024),
    ("max_tokens=8192 cannot be greater than max_model_len=2048.", ContextLimit(2048), 1024),
    ("This model's maximum context length is 9000 tokens. However, you requested 8192 output tokens and your prompt "
     "contains at least 809 input tokens, for a total of at least 9001 tokens. Please reduce the length of the input "
     "prompt or the number of requested output tokens.", ContextLimit(9000, 809, exact=False), 4096),
    ("This model's maximum context length is 4096 tokens. However, you requested 0 output tokens and your prompt "
     "contains at least 4097 input tokens, for a total of at least 4097 tokens.",
     ContextLimit(4096, 4097, exact=False), None),
    ("You passed 4097 input tokens and requested 1 output tokens. However, the model's context length is only 4096 "
     "tokens, resulting in a maximum input length of 4095 tokens.", ContextLimit(4096, 4097), None),
    # SGLang, TGI, DeepSeek, Anthropic
    ("Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 8200 "
     "tokens: 8 tokens from the input messages and 8192 tokens for the completion.", ContextLimit(4096, 8), 4088),
    ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 10 `inputs` tokens and 8192 "
     "`max_new_tokens`", ContextLimit(4096, 10), 4086),
    ("Invalid max_tokens value, the valid range of max_tokens is [1, 4096]", ContextLimit(None, None, 4096), 4096),
    ("max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for m",
     ContextLimit(None, None, 4096), 4096),
]  # fmt: skip


@pytest.mark.parametrize(("message", "context", "fits"), SIZES)
def test_what_fits(message, context, fits):
    fault = refused(message)
    assert (fault.cause, fault.retry, fault.fatal) == ("context", False, False)
    assert fault.context == context
    assert fit_max_tokens(fault, Sampling(max_tokens=8192)) == fits


def test_llama_cpp_prompt_too_long():
    fault = refused(
        "request (13392 tokens) exceeds the available context size (8192 tokens), try increasing it",
        code=400, type="exceed_context_size_error", n_prompt_tokens=13392, n_ctx=8192,
    )  # fmt: skip
    assert fault.cause == "context"
    assert fault.context == ContextLimit(8192, 13392)
    assert fit_max_tokens(fault, Sampling()) is None


def test_lmdeploy_flat_body():
    body = {"message": "The token length 5000 is larger than session_len 4096", "code": 400, "object": "error"}
    fault = classify(HttpAnswer(400, {}, json.dumps(body).encode()))
    assert (fault.cause, fault.context) == ("context", ContextLimit(4096))


def test_an_estimate_of_the_prompt_is_used_where_the_server_does_not_count():
    fault = refused("max_tokens=8192 cannot be greater than max_model_len=4096.")
    assert fit_max_tokens(fault, Sampling(max_tokens=8192), prompt_tokens=150) == 3946


def test_the_estimate_is_from_above():
    english = WireMessage("user", ("word " * 100,))
    chinese = WireMessage("user", ("字" * 100,))
    assert 100 <= estimate_prompt_tokens([english]) <= 400
    assert 100 <= estimate_prompt_tokens([chinese]) <= 400
    pictures = WireMessage("user", ("a", object(), object()))
    assert estimate_prompt_tokens([pictures]) >= 2 * 1048576 // 28**2


def test_no_limit_asked_nothing_to_lower():
    fault = refused("This model's maximum context length is 4096 tokens.")
    assert fit_max_tokens(fault, Sampling(max_tokens=None)) is None


def test_a_lowered_limit_is_the_one_that_is_lowered_further():
    fault = refused("This model's maximum context length is 4096 tokens and your request has 96 input tokens")
    assert fit_max_tokens(fault, Sampling(max_tokens=8192), ParameterChanges(max_tokens=4050)) == 4000
    assert fit_max_tokens(fault, Sampling(max_tokens=8192), ParameterChanges(max_tokens=3000)) is None


def test_other_refusals_are_not_about_size():
    assert refused("Invalid 'messages': expected at most 2048 items").context is None
    assert fit_max_tokens(refused("no"), Sampling()) is None


@given(st.integers(2, 5000), st.integers(1, 6000), st.integers(1, 20_000), st.none() | st.integers(1, 6000))
def test_vllm_is_satisfied_in_few_steps(limit, prompt, asked, estimate):
    """Against vLLM's rule: it refuses, counting the prompt only as far as the asked tokens leave room."""
    sampling, steps = Sampling(max_tokens=asked), 0
    while True:
        asked = sampling.max_tokens
        if asked > limit:
            fault = refused(f"max_tokens={asked} cannot be greater than max_model_len={limit}.")
        elif prompt + asked > limit:
            fault = refused(
                f"This model's maximum context length is {limit} tokens. However, you requested {asked} output tokens "
                f"and your prompt contains at least {limit - asked + 1} input tokens."
            )
        else:
            break
        fits = fit_max_tokens(fault, sampling, prompt_tokens=estimate)
        if fits is None:
            assert prompt >= limit or asked == 1
            return
        assert 1 <= fits < asked
        sampling, steps = Sampling(max_tokens=fits), steps + 1
    assert steps <= 16
    if estimate is not None and prompt <= estimate < limit and steps:
        assert sampling.max_tokens >= min(limit - estimate, asked)
