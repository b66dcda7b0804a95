"""The whole wire against the loopback server in every dialect: both transports, plain and streamed, say the same."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ares_eval.inference import failures, wire
from ares_eval.inference.parameters import ParameterChanges, adapt, fit_max_tokens
from ares_eval.inference.stream import SseReply
from ares_eval.inference.transport import Endpoint, HttpAnswer
from ares_eval.inference.transport_aiohttp import AiohttpTransport
from ares_eval.inference.transport_openai import OpenAITransport
from ares_eval.types import Reply, Sampling, WireMessage
from tests import loopback

VOCABULARY = 1000
QUESTION = "What is 17 + 25?"
ANSWER = "The café says: 日本語 😀 \\boxed{42}."


@pytest.fixture(scope="module", params=["openai", "vllm", "llamacpp", "lmdeploy"])
def server(request):
    with loopback.start(dialect=request.param, reply=ANSWER, logprobs_mode=True, context=400) as running:
        running.dialect = request.param
        yield running


@pytest.fixture(params=[AiohttpTransport, OpenAITransport], ids=["aiohttp", "openai"])
def kind(request):
    if request.param is OpenAITransport:
        pytest.importorskip("openai")
    return request.param


def ask(kind, url: str, sampling: Sampling, text: str = QUESTION, changes: ParameterChanges | None = None, model="m"):
    """A Reply, or the Fault of another answer."""
    messages = [WireMessage("user", (text,))]
    body = wire.encode_request(model, messages, sampling, changes or ParameterChanges(), {})

    async def run() -> tuple[HttpAnswer, SseReply]:
        transport = kind(Endpoint(url, "k"), connections=1, timeout=20.0)
        streamed = SseReply(logprobs=sampling.logprobs, vocabulary=VOCABULARY)
        try:
            if sampling.stream:
                return await transport.stream_chat(body, streamed.feed), streamed
            return await transport.post_chat(body), streamed
        finally:
            await transport.close()

    answer, streamed = asyncio.run(run())
    if answer.status != 200:
        return failures.classify(answer)
    if sampling.stream:
        assert answer.body == b""
        return streamed.reply()
    return wire.decode_reply(answer.body, logprobs=sampling.logprobs, vocabulary=VOCABULARY)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_reply_and_trace(server, kind, stream):
    reply = ask(kind, server.url, Sampling(max_tokens=64, logprobs=5, stream=stream))
    assert isinstance(reply, Reply)
    assert (reply.text.strip(), reply.finish_reason, reply.model) == (ANSWER, "stop", "m")
    assert reply.usage.completion
    assert not reply.usage.estimated
    trace = reply.trace
    said = trace.tokens[:-1] if trace.end else trace.tokens
    assert "".join(said) == reply.text
    assert trace.end == (server.dialect != "openai")
    assert trace.top == 5
    assert len(trace.tokens) == len(trace.logprob) == len(trace.tail)
    assert np.isfinite(trace.entropy_high).all()
    assert (trace.entropy_low <= trace.entropy_high + 1e-12).all()
    assert (trace.entropy_high <= np.log(VOCABULARY) + 1e-9).all()
    assert (trace.entropy_low >= 0).all()


def test_max_tokens_is_lowered_until_it_fits(server, kind):
    """At most a handful of refusals, then an answer; llama.cpp and lmdeploy refuse nothing."""
    sampling, changes, refusals = Sampling(max_tokens=8192), ParameterChanges(), 0
    while not isinstance(outcome := ask(kind, server.url, sampling, changes=changes), Reply):
        assert outcome.cause == "context"
        fits = fit_max_tokens(outcome, sampling, changes, prompt_tokens=50)
        assert fits is not None
        changes = ParameterChanges(max_tokens=fits)
        refusals += 1
    assert refusals <= 2
    assert (refusals > 0) == (server.dialect in ("openai", "vllm"))


def test_a_prompt_that_is_too_long_is_a_context_fault(server, kind):
    try:
        outcome = ask(kind, server.url, Sampling(max_tokens=5), text="word " * 3000)
    except wire.ServerSaidError as error:  # lmdeploy answers 200, with no token
        outcome = failures.classify(error)
    assert (outcome.cause, outcome.retry, outcome.fatal) == ("context", False, False)


def test_more_alternatives_than_the_server_gives(server, kind):
    if server.dialect == "llamacpp":
        pytest.skip("llama.cpp gives any number of alternatives")
    outcome = ask(kind, server.url, Sampling(max_tokens=5, logprobs=25))
    assert (outcome.cause, outcome.fatal) == ("no_logprobs", True)


def test_refused_parameters_are_adapted_one_by_one(kind):
    sampling, changes, refusals = Sampling(seed=1), ParameterChanges(), 0
    with loopback.start(unsupported="max_tokens,temperature,seed") as server:
        while not isinstance(outcome := ask(kind, server.url, sampling, changes=changes), Reply):
            changes = adapt(outcome, changes, sampling)
            assert changes is not None
            refusals += 1
    assert refusals == 3
    assert changes == ParameterChanges(frozenset({"max_tokens"}), frozenset({"temperature", "seed"}))


def test_unknown_model_and_wrong_key_are_fatal(kind):
    with loopback.start(api_key="k") as server:
        outcome = ask(kind, server.url, Sampling(), model="other")
        assert (outcome.cause, outcome.fatal, outcome.status) == ("refused", True, 404)
    with loopback.start(api_key="other") as server:
        outcome = ask(kind, server.url, Sampling())
        assert (outcome.cause, outcome.fatal, outcome.status) == ("refused", True, 401)
