"""Requests as servers expect them, replies of every server's dialect, and rubbish that never gets past the decoder."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_eval.inference.failures import classify
from ares_eval.inference.logprobs import MissingLogprobs
from ares_eval.inference.parameters import ParameterChanges
from ares_eval.inference.wire import (
    EmptyReply,
    Malformed,
    ServerSaidError,
    decode_reply,
    encode_request,
    split_thinking,
)
from ares_eval.types import Reply, Sampling, Usage, WireMessage

DECLARED = (Malformed, EmptyReply, ServerSaidError, MissingLogprobs)


@dataclass(frozen=True)
class Picture:
    digest: str

    def data_url(self) -> str:
        raise AssertionError("the wire is given data URLs, it does not make them")


def sent(*parts, sampling=None, changes=None, urls=None) -> dict:
    message = WireMessage("user", parts)
    return json.loads(encode_request("m", [message], sampling or Sampling(), changes or ParameterChanges(), urls or {}))


# ---------------------------------------------------------------- out


def test_default_request():
    assert sent("What is ", "1+1?") == {
        "model": "m",
        "messages": [{"role": "user", "content": "What is 1+1?"}],
        "max_tokens": 8192,
        "temperature": 0.3,
        "top_p": 0.95,
    }


def test_every_parameter():
    sampling = Sampling(
        max_tokens=10, temperature=0.0, top_p=1.0, top_k=20, seed=0, stop=("\n", "Q:"), logprobs=5,
        reasoning_effort="low", extra_body={"min_p": 0.1}, stream=True,
    )  # fmt: skip
    body = sent("q", sampling=sampling)
    del body["messages"]
    assert body == {
        "model": "m", "max_tokens": 10, "temperature": 0.0, "top_p": 1.0, "top_k": 20, "seed": 0, "stop": ["\n", "Q:"],
        "reasoning_effort": "low", "logprobs": True, "top_logprobs": 5, "stream": True,
        "stream_options": {"include_usage": True}, "min_p": 0.1,
    }  # fmt: skip


def test_none_is_not_sent():
    body = sent("q", sampling=Sampling(max_tokens=None, temperature=None, top_p=None))
    assert body.keys() == {"model", "messages"}


def test_extra_body_overrides():
    assert sent("q", sampling=Sampling(extra_body={"temperature": 1.5}))["temperature"] == 1.5


def test_changes_are_applied():
    changes = ParameterChanges(frozenset({"max_tokens"}), frozenset({"temperature"}), max_tokens=77)
    body = sent("q", sampling=Sampling(), changes=changes)
    assert body["max_completion_tokens"] == 77
    assert "max_tokens" not in body
    assert "temperature" not in body
    assert body["top_p"] == 0.95


def test_pictures_keep_their_places():
    urls = {"d1": "data:image/png;base64,AAAA", "d2": "data:image/jpeg;base64,BBBB"}
    body = sent("See ", Picture("d1"), "", Picture("d2"), " which?", urls=urls)
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "See "},
        {"type": "image_url", "image_url": {"url": urls["d1"]}},
        {"type": "image_url", "image_url": {"url": urls["d2"]}},
        {"type": "text", "text": " which?"},
    ]


def test_lone_surrogates_are_sent_as_replacement_characters():
    assert sent("x \ud83d y \ud83d\ude00")["messages"][0]["content"] == "x \ufffd y 😀"


@given(st.text())
def test_any_text_can_be_sent(text):
    content = sent(text)["messages"][0]["content"]
    assert content == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ---------------------------------------------------------------- in


def body(content="The answer is 4.", finish="stop", usage=(9, 6), logprobs=None, message=None, **more) -> bytes:
    reply = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content, **(message or {})},
                     "finish_reason": finish, "logprobs": logprobs}],
    }  # fmt: skip
    if usage is not None:
        reply["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return json.dumps(reply | more).encode()


def decoded(data: bytes, logprobs: int = 0, vocabulary: int | None = None) -> Reply:
    return decode_reply(data, logprobs=logprobs, vocabulary=vocabulary)


def test_openai_reply():
    usage = {"prompt_tokens": 9, "completion_tokens": 26, "completion_tokens_details": {"reasoning_tokens": 20}}
    reply = decoded(body(usage=None, message={"refusal": None}, system_fingerprint="fp_1") [:-1] + b', "usage": '
                    + json.dumps(usage).encode() + b"}")  # fmt: skip
    assert reply == Reply(
        "The answer is 4.", finish_reason="stop", usage=Usage(9, 26, 20), model="m-2026", fingerprint="fp_1"
    )


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_fields(field):
    reply = decoded(body("\n\n4", message={field: " two and\ntwo "}))
    assert (reply.reasoning, reply.text) == (" two and\ntwo ", "\n\n4")


@pytest.mark.parametrize(
    ("content", "reasoning", "text"),
    [
        ("<think>\na\n</think>\n\nb", "\na\n", "\n\nb"),
        ("\n<think>a</think>b", "a", "b"),
        ("template opened it</think>b", "template opened it", "b"),
        ("<think>never closed", "never closed", ""),
        ("<think>a</think>b<think>c</think>d", "a</think>b<think>c", "d"),
        ("<think></think>b", "", "b"),
        ("plain <think>of it</think", "", "plain <think>of it</think"),
        ("", "", ""),
    ],
)
def test_think_tags(content, reasoning, text):
    assert split_thinking(content) == (reasoning, text)


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n", "<", "é"])).map("".join))
def test_thinking_is_cut_out_byte_for_byte(content):
    reasoning, text = split_thinking(content)
    tail = content.lstrip()
    assert content in (text, f"{reasoning}</think>{text}") or tail in (
        f"<think>{reasoning}</think>{text}",
        f"<think>{reasoning}",
    )


def test_reasoning_field_keeps_tags_in_the_content():
    reply = decoded(body("use </think> to close", message={"reasoning_content": "r"}))
    assert reply.text == "use </think> to close"


def test_content_in_parts():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "4"},
        {"type": "text", "text": "2"},
    ]
    reply = decoded(body(parts))
    assert (reply.text, reply.reasoning) == ("42", "hm")


def test_null_content_with_reasoning_only_is_a_reply():
    reply = decoded(body(None, "length", message={"reasoning_content": "long thoughts"}))
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", "long thoughts", "length")


def test_hidden_reasoning_that_used_all_tokens_is_a_reply():
    assert decoded(body("", "length", usage=(9, 100))).text == ""


def test_no_room_for_an_answer_is_no_answer():
    with pytest.raises(ServerSaidError) as caught:
        decoded(body("", "length", usage=(5000, 0)))
    assert classify(caught.value).cause == "context"
    assert not classify(caught.value).retry


def test_refusal_is_the_text():
    assert decoded(body(None, message={"refusal": "I cannot."})).text == "I cannot."


@pytest.mark.parametrize("content", ["", None])
@pytest.mark.parametrize("usage", [None, (9, 0)])
def test_nothing_at_all_is_empty(content, usage):
    with pytest.raises(EmptyReply):
        decoded(body(content, usage=usage))


def test_missing_usage_is_estimated():
    assert decoded(body("x" * 10, usage=None)).usage == Usage(None, 3, None, estimated=True)


def test_missing_usage_is_counted_from_logprobs():
    entry = {"token": "ab", "logprob": -0.1, "bytes": [97, 98], "top_logprobs": [{"token": "ab", "logprob": -0.1}]}
    reply = decoded(body("ababab", usage=None, logprobs={"content": [entry] * 3}), logprobs=1)
    assert reply.usage == Usage(None, 3, None, estimated=True)


@pytest.mark.parametrize("finish", ["error", "abort", "parse_error"])
def test_faulty_ends_are_faults(finish):
    with pytest.raises(Malformed, match=finish):
        decoded(body("half a", finish))


def test_content_filter_is_an_error_not_an_answer():
    with pytest.raises(ServerSaidError) as caught:
        decoded(body("half a", "content_filter"))
    assert caught.value.status == 400
    assert b"content_filter" in caught.value.body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"error": {"message": "overloaded", "code": 503}}, 503),
        ({"error": {"message": "overloaded", "code": "server_error"}}, None),
        ({"error": "overloaded"}, None),
        ({"object": "error", "message": "overloaded", "type": "x", "code": 500, "param": None}, 500),
    ],
)
def test_error_in_an_answer_of_status_200(data, status):
    with pytest.raises(ServerSaidError, match="overloaded") as caught:
        decoded(json.dumps(data).encode())
    assert caught.value.status == status


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b"<html>busy</html>", body()[:-20], b'{"choices": []}', b'{"choices": [{}]}',
     b'{"choices": [{"message": {"content": 7}}]}', b'{"choices": "x"}', b"\xff\xfe", b"[" * 100_000,
     b'{"x": ' * 100_000, b'{"choices": [{"message": {"content": "\\ud800"}}]}', b'{"error": null}'],
)  # fmt: skip
def test_rubbish_is_malformed(data):
    with pytest.raises(Malformed):
        decoded(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_random_bytes_raise_only_what_is_declared(data, logprobs):
    with pytest.raises(DECLARED):
        decoded(data, logprobs)


WHOLE = body(
    "<think>hm</think>4é",
    logprobs={
        "content": [
            {"token": "4", "logprob": -0.1, "bytes": [52], "top_logprobs": [{"token": "4", "logprob": -0.1, "id": 3}]},
            {"token": "", "logprob": -1.5, "bytes": [], "top_logprobs": []},
        ]
    },
)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_damaged_replies_raise_only_what_is_declared(data):
    spoilt = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        if data.draw(st.booleans()):
            spoilt[at] = data.draw(st.integers(0, 255))
        else:
            del spoilt[at : at + data.draw(st.integers(1, 40))]
    with contextlib.suppress(*DECLARED):
        assert isinstance(decoded(bytes(spoilt), 2, 100), Reply)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "message", "content", "error", "usage", "logprobs", "top_logprobs", "token", "logprob", "bytes",
             "finish_reason", "completion_tokens", "reasoning_content", "delta", "code", "object"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(json_values)
def test_any_json_raises_only_what_is_declared(value):
    for wrapped in (value, {"choices": [value]}, {"choices": [{"message": {"content": "x"}, "logprobs": value}]}):
        with contextlib.suppress(*DECLARED):
            assert isinstance(decoded(json.dumps(wrapped).encode(), 3, 1000), Reply)


# ---------------------------------------------------------------- log-probs of each server


def alternatives(**probabilities: float) -> list[dict]:
    return [
        {"token": token, "logprob": math.log(p), "bytes": list(token.encode())} for token, p in probabilities.items()
    ]


def test_vllm_sampled_token_outside_the_top_comes_first():
    entry = {"token": "rare", "logprob": math.log(0.01), "bytes": list(b"rare"),
             "top_logprobs": alternatives(rare=0.01, a=0.6, b=0.2)}  # fmt: skip
    end = {"token": "<|im_end|>", "logprob": -0.01, "bytes": list(b"<|im_end|>"),
           "top_logprobs": alternatives(**{"<|im_end|>": 0.99})}  # fmt: skip
    trace = decoded(body("rare", logprobs={"content": [entry, end]}), 3, 50_000).trace
    assert trace.tokens == ("rare", "<|im_end|>")
    assert trace.end
    assert trace.top == 3
    assert trace.tail[0] == pytest.approx(0.19)
    assert trace.logprob[0] == pytest.approx(math.log(0.01))
    # 0.19 may be one token, as b has 0.2; a cap of 0.01 (the sampled token's) would be wrong.
    expected = -sum(p * math.log(p) for p in (0.01, 0.6, 0.2, 0.19))
    assert trace.entropy_low[0] == pytest.approx(expected)


def test_llama_cpp_sampled_token_outside_the_top_is_not_listed():
    entry = {"id": 5, "token": "rare", "bytes": list(b"rare"), "logprob": math.log(0.05),
             "top_logprobs": alternatives(a=0.6, b=0.2)}  # fmt: skip
    end = {"id": 2, "token": "", "bytes": [], "logprob": -0.01, "top_logprobs": alternatives(**{"": 0.99})}
    trace = decoded(body("rare", logprobs={"content": [entry, end]}), 2, 50_000).trace
    assert trace.tail[0] == pytest.approx(0.15)
    assert trace.end
    assert trace.top == 2


def test_lmdeploy_sampled_token_is_never_listed_and_pieces_are_raw():
    entry = {"token": "Ġthe", "bytes": list("Ġthe".encode()), "logprob": math.log(0.7),
             "top_logprobs": alternatives(**{"Ġa": 0.2, "Ġan": 0.05})}  # fmt: skip
    trace = decoded(body(" the", logprobs={"content": [entry]}), 3, 50_000).trace
    assert trace.tokens == (" the",)
    assert trace.tail[0] == pytest.approx(0.05)
    assert trace.top == 3
    assert not trace.end


@pytest.mark.parametrize("logprobs", [None, {"content": None}, {"content": []}, {"tokens": ["a"]}])
def test_logprobs_asked_and_not_given(logprobs):
    with pytest.raises(MissingLogprobs):
        decoded(body("4", logprobs=logprobs), 5)


def test_logprobs_not_asked_are_not_traced():
    entry = {"token": "4", "logprob": -0.1, "top_logprobs": []}
    assert decoded(body("4", logprobs={"content": [entry]})).trace is None
