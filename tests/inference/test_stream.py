"""A streamed reply is the plain one, wherever its bytes are cut; what is cut short is never a reply."""

from __future__ import annotations

import contextlib
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.inference.logprobs import MissingLogprobs
from ares_eval.inference.stream import SseReply
from ares_eval.inference.wire import EmptyReply, Malformed, ServerSaidError, decode_reply
from ares_eval.types import Reply, Usage

DECLARED = (Malformed, EmptyReply, ServerSaidError, MissingLogprobs)


def entry(token: str) -> dict:
    return {
        "token": token,
        "logprob": math.log(0.5),
        "bytes": list(token.encode()),
        "top_logprobs": [{"token": token, "logprob": math.log(0.5)}, {"token": "~", "logprob": math.log(0.25)}],
    }


def chunk(delta: dict | None = None, finish: str | None = None, tokens: tuple[str, ...] = (), **more) -> dict:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    if tokens:
        choice["logprobs"] = {"content": [entry(token) for token in tokens]}
    return {"object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}


USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 2}}
CHUNKS = [
    {"object": "", "model": "", "choices": [], "prompt_filter_results": []},  # Azure begins so
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "two 🧮"}, tokens=("two", " 🧮")),
    chunk({"reasoning_content": None, "content": "fo"}, tokens=("fo",)),
    chunk({"content": "ür"}, tokens=("ür",), system_fingerprint="fp"),
    chunk({}, "stop"),
    {"object": "chat.completion.chunk", "model": "m", "choices": [], "usage": USAGE},
]


def sse(chunks: list[dict], end: str = "\n", done: bool = True) -> bytes:
    lines = []
    for number, each in enumerate(chunks):
        lines += [f": ping {number}", "event: message", f"data: {json.dumps(each, ensure_ascii=False)}", ""]
    if done:
        lines += ["data: [DONE]", ""]
    return "".join(line + end for line in lines).encode()


def replied(data: bytes, cuts: list[int] | None = None, logprobs: int = 2) -> Reply:
    reply = SseReply(logprobs=logprobs, vocabulary=100)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    for start, stop in itertools.pairwise(places):
        reply.feed(data[start:stop])
    return reply.reply()


def same(a: Reply, b: Reply) -> bool:
    plain = ("text", "reasoning", "finish_reason", "usage", "model")
    arrays = ("logprob", "entropy_low", "entropy_high", "tail")
    return (
        all(getattr(a, name) == getattr(b, name) for name in plain)
        and a.trace.tokens == b.trace.tokens
        and all(np.array_equal(getattr(a.trace, name), getattr(b.trace, name)) for name in arrays)
    )  # fmt: skip


def plain() -> Reply:
    return decode_reply(
        json.dumps(
            {
                "model": "m",
                "usage": USAGE,
                "choices": [
                    {
                        "message": {"reasoning_content": "two 🧮", "content": "foür"},
                        "finish_reason": "stop",
                        "logprobs": {"content": [entry(token) for token in ("two", " 🧮", "fo", "ür")]},
                    }
                ],
            }
        ).encode(),
        logprobs=2,
        vocabulary=100,
    )


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 10_000), max_size=30))
def test_cut_anywhere_it_is_the_plain_reply(end, cuts):
    assert same(replied(sse(CHUNKS, end), cuts), plain())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_by_byte(end):
    data = sse(CHUNKS, end)
    reply = replied(data, list(range(len(data))))
    assert same(reply, plain())
    assert reply.fingerprint == "fp"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000))
def test_cut_short_before_the_end_is_never_a_reply(cut):
    whole = sse(CHUNKS)
    finish = whole.index(b'"finish_reason": "stop"')
    with pytest.raises(DECLARED):
        replied(whole[: cut % finish])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_of_several_data_lines(end):
    lines = json.dumps(chunk({"content": "4"}, "stop"), indent=1).encode().split(b"\n")
    data = end.join(b"data: " + line for line in lines) + end + end
    assert replied(data, list(range(len(data))), logprobs=0).text == "4"


def test_byte_order_mark_and_missing_blank_lines():
    data = b"\xef\xbb\xbf" + b"".join(b"data:" + json.dumps(each).encode() + b"\n" for each in CHUNKS)
    assert same(replied(data), plain())


def test_no_done_after_a_finish_reason_is_enough():
    assert same(replied(sse(CHUNKS, done=False)), plain())


def test_an_empty_finish_reason_is_none():
    with pytest.raises(Malformed, match="ended before"):
        replied(sse([chunk({"content": "4"}, "")], done=False), logprobs=0)


def test_done_without_finish_reason_is_a_reply():
    assert replied(sse([chunk({"content": "4"})]), logprobs=0) == Reply(
        "4", usage=Usage(None, 1, None, estimated=True), model="m"
    )


def test_what_follows_done_is_not_read():
    assert replied(sse([chunk({"content": "4"}, "stop")]) + sse([chunk({"content": "5"})]), logprobs=0).text == "4"


def test_other_choices_are_not_mixed_in():
    other = {"choices": [{"index": 1, "delta": {"content": "WRONG"}, "finish_reason": "stop"}]}
    assert replied(sse([chunk({"content": "4"}), other, chunk({}, "stop")]), logprobs=0).text == "4"


def test_think_tags_across_chunks():
    pieces = [chunk({"content": text}) for text in ("<th", "ink>a</thi", "nk>", "b")]
    reply = replied(sse([*pieces, chunk({}, "stop")]), logprobs=0)
    assert (reply.reasoning, reply.text) == ("a", "b")


@pytest.mark.parametrize(
    "error", [{"error": {"message": "out of memory", "code": 500}}, {"object": "error", "message": "out of memory"}]
)
def test_error_inside_the_stream(error):
    with pytest.raises(ServerSaidError, match="out of memory"):
        replied(sse([chunk({"content": "half"}), error]))


def test_error_field_of_llama_cpp():
    with pytest.raises(ServerSaidError, match="out of memory"):
        replied(sse([chunk({"content": "half"})], done=False) + b'error: {"code": 500, "message": "out of memory"}\n\n')


def test_abort_is_a_fault():
    with pytest.raises(Malformed, match="abort"):
        replied(sse([chunk({"content": "half"}), chunk({}, "abort")]), logprobs=0)


def test_stream_of_nothing():
    for data in (b"", b": ping\n\n", b"data: [DONE]\n\n", sse([chunk({"content": ""}, "stop")])):
        with pytest.raises((Malformed, EmptyReply)):
            replied(data, logprobs=0)


def test_logprobs_asked_and_not_streamed():
    with pytest.raises(MissingLogprobs):
        replied(sse([chunk({"content": "4"}, "stop")]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_streams_raise_only_what_is_declared(data):
    spoilt = bytearray(sse(CHUNKS, data.draw(st.sampled_from(["\n", "\r\n"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        if data.draw(st.booleans()):
            spoilt[at] = data.draw(st.integers(0, 255))
        else:
            del spoilt[at : at + data.draw(st.integers(1, 60))]
    with contextlib.suppress(*DECLARED):
        assert isinstance(replied(bytes(spoilt)), Reply)
