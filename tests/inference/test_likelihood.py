"""Log-likelihoods over /v1/completions: which tokens are a continuation's, and what a server without them gets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest

from ares_eval.inference import likelihood, wire
from ares_eval.inference.engine import Engine, EngineOptions
from ares_eval.inference.logprobs import MissingLogprobs
from ares_eval.inference.transport import Endpoint
from ares_eval.inference.transport_aiohttp import AiohttpTransport
from ares_eval.plan import LIKELIHOOD
from ares_eval.types import Failure, Reply, Request, WireMessage
from tests import loopback


def messages(*pairs: tuple[str, str]) -> tuple[WireMessage, ...]:
    return tuple(
        WireMessage(role, (text,)) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)
    )


def echo(tokens: list[str], logprobs: list[float | None], likeliest: list[bool]) -> dict[str, object]:
    tops = [
        None if logprob is None else {token: logprob} | ({} if best else {"other": logprob + 0.5})
        for token, logprob, best in zip(tokens, logprobs, likeliest, strict=True)
    ]
    return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops}


def body(*echoes: dict[str, object] | None) -> bytes:
    # A server may send the choices in any order.
    choices = [{"index": i, "text": "", "logprobs": one} for i, one in reversed(list(enumerate(echoes)))]
    return json.dumps(
        {"model": "m", "choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    ).encode()


def test_spaces_at_a_contexts_end_are_the_continuations() -> None:
    sent = json.loads(likelihood.encode_request("m", messages(("Q: a? ", "yes"), ("Q: a?", " no"))))
    assert sent["prompt"] == ["Q: a?", "Q: a? yes", "Q: a? no"]
    assert (sent["echo"], sent["logprobs"], sent["max_tokens"], sent["temperature"]) == (True, 1, 1, 0)


def test_a_continuation_begins_after_as_many_tokens_as_its_context_has() -> None:
    asked = messages(("Q a", " yes sir"), ("Q a", " no"))
    context = echo(["Q", " a", "x"], [None, -9.0, -9.0], [True, True, True])
    yes = echo(["Q", " a", " yes", " sir", "x"], [None, -9.0, -0.25, -0.5, -7.0], [True, False, True, True, False])
    no = echo(["Q", " a", " no", "x"], [None, -9.0, -2.0, -7.0], [True, True, False, True])
    reply = likelihood.decode_reply(body(context, yes, no), asked)
    assert json.loads(reply.text) == [[-0.75, True], [-2.0, False]]
    assert (reply.usage.prompt, reply.finish_reason) == (9, "stop")


def test_an_empty_context_needs_a_start_token() -> None:
    with_start = echo(["<s>", "No", "x"], [None, -1.5, -7.0], [True, True, True])
    without = echo(["No", " way", "x"], [None, -1.5, -7.0], [True, True, True])
    assert json.loads(likelihood.decode_reply(body(with_start), messages(("", "No"))).text) == [[-1.5, True]]
    with pytest.raises(MissingLogprobs, match="no start token"):
        likelihood.decode_reply(body(without), messages(("", "No way")))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (body(None, None), MissingLogprobs),
        (body(echo(["a", "b"], [None, -1.0], [True, True])), wire.Malformed),
        (b"[]", wire.Malformed),
        (b'{"choices": "no"}', wire.Malformed),
        (b'{"error": {"message": "no", "code": 500}}', wire.ServerSaidError),
        (
            body(echo(["a", "x"], [None, -1.0], [True] * 2), echo(["a", " b", "x"], [None, None, -1.0], [True] * 3)),
            MissingLogprobs,
        ),
    ],
)
def test_what_is_no_answer(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        likelihood.decode_reply(answer, messages(("a", " b")))


def requests(count: int) -> Iterator[Request]:
    for number in range(count):
        asked = messages((f"Question {number}:", " one"), (f"Question {number}:", " two"))
        yield Request("lm:x", str(number), 0, asked, LIKELIHOOD, f"{number:064x}", "likelihood")


def ask(server: loopback.Server, count: int, notes: list[str]) -> list[Reply | Failure]:
    transport = lambda: AiohttpTransport(Endpoint(server.url), connections=4, timeout=20)  # noqa: E731
    with Engine("m", transport, EngineOptions(threads=4), note=notes.append) as engine:
        return [outcome for _, outcome in sorted(engine.run(requests(count)), key=lambda pair: int(pair[0].sample))]


def test_over_the_wire() -> None:
    with loopback.start(dialect="vllm") as server:
        notes: list[str] = []
        replies = ask(server, 12, notes)
        again = ask(server, 12, notes)
    found = [json.loads(reply.text) for reply in replies if isinstance(reply, Reply)]
    assert len(found) == 12
    assert all(len(pairs) == 2 and all(math.isfinite(total) and total <= 0 for total, _ in pairs) for pairs in found)
    assert len({total for pairs in found for total, _ in pairs}) == 24
    assert [reply.text for reply in again if isinstance(reply, Reply)] == [
        json.dumps(f).replace(" ", "") for f in found
    ]
    assert notes == []


def test_a_server_without_them_is_given_up_soon_and_named_once() -> None:
    with loopback.start(dialect="llamacpp") as server:
        notes: list[str] = []
        failures = ask(server, 40, notes)
        sent = server.stats()["requests"]
    assert sent < 12
    assert len(notes) == 1
    assert notes[0].startswith("lm:x asks for log-likelihoods")
    assert {(f.cause, f.fatal) for f in failures if isinstance(f, Failure)} == {("unsupported_input", False)}
    assert len(failures) == 40
