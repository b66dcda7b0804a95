"""OpenAI chat bodies, out and in.

``encode_request`` makes the bytes of a request. ``decode_reply`` reads an answer once, into typed structs that hold
only what is needed, and makes a Reply of it or raises one of four errors; whatever a server sends, nothing else comes
out. The pieces of a reply are kept byte for byte: nothing is stripped or repaired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ares_eval.inference.logprobs import MissingLogprobs, Token, token_trace
from ares_eval.inference.parameters import ParameterChanges
from ares_eval.types import PreparedPicture, Reply, Sampling, Usage, WireMessage

CHARACTERS_PER_TOKEN = 4
"""For counts that the server does not give; such counts are marked as estimated."""

MOST_TOKENS = 2**18
"""Longest trace of a reply; no model writes as much, and arrays of a hostile one would fill the memory."""

THINK, END_THINK = "<think>", "</think>"

FAULTY_ENDS = frozenset({"error", "abort", "parse_error"})
"""Finish reasons by which servers (lmdeploy, routers) say that the reply is broken, not that it is done."""


class Malformed(Exception):
    """The answer is no chat reply: broken JSON, another shape, or cut by a fault."""


class EmptyReply(Exception):
    """A reply without content, without reasoning and without tokens used."""


class ServerSaidError(Exception):
    """An error in an answer of status 200, or inside a stream. ``body``: the error as a JSON body of its own."""

    def __init__(self, message: str, body: bytes, status: int | None = None) -> None:
        super().__init__(message)
        self.body = body
        self.status = status


# ---------------------------------------------------------------- out


def encode_request(
    model: str,
    messages: Sequence[WireMessage],
    sampling: Sampling,
    changes: ParameterChanges,
    data_urls: Mapping[str, str],
) -> bytes:
    """The JSON body of a chat request.

    ``data_urls`` holds, by digest, the data URL of every picture in the messages (KeyError where one is missing).
    A message of texts alone is sent as a plain string. ``extra_body`` comes last and overrides.
    """
    body: dict[str, Any] = {"model": model, "messages": [_message(message, data_urls) for message in messages]}
    limit = sampling.max_tokens if changes.max_tokens is None else changes.max_tokens
    wanted: dict[str, Any] = {
        "max_tokens": limit,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "reasoning_effort": sampling.reasoning_effort,
        "stream_options": {"include_usage": True} if sampling.stream else None,
    }
    for name, value in wanted.items():
        if value is not None and name not in changes.dropped:
            body[changes.name(name)] = value
    if sampling.stream:
        body["stream"] = True
    if sampling.logprobs > 0:
        body["logprobs"] = True
        body["top_logprobs"] = sampling.logprobs
    body.update(sampling.extra_body)
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(body))


def data_urls(pictures: Sequence[PreparedPicture]) -> dict[str, str]:
    """What ``encode_request`` needs of pictures, by digest; blocks, raises PictureError."""
    return {picture.digest: picture.data_url() for picture in pictures}


def _message(message: WireMessage, data_urls: Mapping[str, str]) -> dict[str, Any]:
    if all(isinstance(part, str) for part in message.parts):
        return {"role": message.role, "content": "".join(str(part) for part in message.parts)}
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if not isinstance(part, str):
            content.append({"type": "image_url", "image_url": {"url": data_urls[part.digest]}})
        elif part:
            content.append({"type": "text", "text": part})
    return {"role": message.role, "content": content}


def _encodable(value: Any) -> Any:
    """Lone surrogates (from a dataset's broken escapes) have no UTF-8: they are sent as U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value


# ---------------------------------------------------------------- in


class Piece(msgspec.Struct):
    """A part of a content list: text, or (Mistral) thinking, itself a string or a list of texts."""

    type: str = "text"
    text: str | None = None
    thinking: str | list[Piece] | None = None


class Said(msgspec.Struct):
    """A message, or the delta of one."""

    content: str | list[Piece] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class Logprobs(msgspec.Struct):
    content: list[Token] | None = None


class Choice(msgspec.Struct):
    index: int | None = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Details(msgspec.Struct):
    reasoning_tokens: int | None = None


class Counts(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    completion_tokens_details: Details | None = None
    reasoning_tokens: int | None = None


class Body(msgspec.Struct):
    """A reply, a chunk of one, or an error in its place."""

    choices: list[Choice] | None = None
    usage: Counts | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    error: Any = None
    object: str | None = None
    message: Any = None
    code: Any = None


_DECODER = msgspec.json.Decoder(Body)


def decode_body(data: bytes) -> Body:
    """One JSON body; raises Malformed, or ServerSaidError for an error object in place of a reply."""
    try:
        body = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the answer is no chat reply: {str(error)[:200]}") from None
    if body.error or (body.choices is None and (body.object == "error" or body.message is not None)):
        said = body.error if isinstance(body.error, Mapping) else {"message": body.error or body.message}
        code = said.get("code", body.code)
        status = code if isinstance(code, int) and 400 <= code <= 599 else None
        raise ServerSaidError(str(said.get("message"))[:2000], data[:65536], status)
    return body


def decode_reply(body: bytes, *, logprobs: int, vocabulary: int | None) -> Reply:
    """The reply in a plain (not streamed) answer of status 200.

    ``logprobs``: how many alternatives were asked for, ``vocabulary``: the model's number of tokens, if known. Raises
    Malformed, EmptyReply, ServerSaidError and MissingLogprobs. Latency and attempts are left to the caller.
    """
    decoded = decode_body(body)
    if not decoded.choices or decoded.choices[0].message is None:
        raise Malformed("the answer holds no message")
    choice = decoded.choices[0]
    said = decoded.choices[0].message
    content, thinking = content_text(said.content)
    return assemble(
        content=content or (said.refusal or ""),
        reasoning=said.reasoning_content or said.reasoning or thinking,
        finish_reason=choice.finish_reason or None,
        usage=decoded.usage,
        tokens=choice.logprobs.content if choice.logprobs else None,
        model=decoded.model,
        fingerprint=decoded.system_fingerprint,
        logprobs=logprobs,
        vocabulary=vocabulary,
    )


def content_text(content: str | list[Piece] | None) -> tuple[str, str]:
    """The text and the thinking in a content."""
    if content is None or isinstance(content, str):
        return content or "", ""
    text = "".join(piece.text or "" for piece in content if piece.thinking is None)
    thinking = "".join(
        piece.thinking if isinstance(piece.thinking, str) else "".join(inner.text or "" for inner in piece.thinking)
        for piece in content
        if piece.thinking is not None
    )
    return text, thinking


def assemble(
    *,
    content: str,
    reasoning: str,
    finish_reason: str | None,
    usage: Counts | None,
    tokens: list[Token] | None,
    model: str | None,
    fingerprint: str | None,
    logprobs: int,
    vocabulary: int | None,
) -> Reply:
    """A Reply from its pieces, the same for plain and streamed answers; raises as ``decode_reply`` does."""
    if finish_reason in FAULTY_ENDS:
        raise Malformed(f"the server ended the reply with finish_reason {finish_reason!r}")
    if finish_reason == "content_filter":
        raise _error("the reply was stopped by the content filter", "content_filter")
    counts = _usage(usage, tokens, content, reasoning)
    if not content and not reasoning and not counts.completion:
        if finish_reason != "length":
            raise EmptyReply("the reply has no content, no reasoning and no tokens")
        if not counts.estimated:  # lmdeploy's answer to a prompt that fills the context
            raise _error("the prompt leaves no room: not one token was generated", "context_length_exceeded")
    text = content
    if not reasoning:
        reasoning, text = split_thinking(content)
    trace = None
    if logprobs > 0:
        if tokens and len(tokens) > MOST_TOKENS:
            raise Malformed(f"log-probs of {len(tokens)} tokens")
        if tokens:
            trace = token_trace(
                tokens, text=content or reasoning, finish_reason=finish_reason, asked=logprobs, vocabulary=vocabulary
            )
        elif content or reasoning or counts.completion:
            raise MissingLogprobs("log-probs were asked for and the server sent none")
    return Reply(
        text=text,
        reasoning=reasoning,
        finish_reason=finish_reason,
        usage=counts,
        model=model,
        fingerprint=fingerprint,
        trace=trace,
    )


def _error(message: str, code: str) -> ServerSaidError:
    """What a finish reason says, as the refusal that other servers make of it."""
    return ServerSaidError(message, msgspec.json.encode({"error": {"message": message, "code": code}}), 400)


def split_thinking(content: str) -> tuple[str, str]:
    """(reasoning, text) of a content that carries its reasoning in ``<think>`` tags; ("", content) where it does not.

    The text begins after the last closing tag, as the chat templates of Qwen3 and DeepSeek-R1 have it; both pieces are
    exact slices. The opening tag may be missing (those templates put it into the prompt). A block that is not
    closed is reasoning to its end.
    """
    opened = content.lstrip().startswith(THINK)
    start = content.index(THINK) + len(THINK) if opened else 0
    close = content.rfind(END_THINK)
    if close >= start:
        return content[start:close], content[close + len(END_THINK) :]
    return (content[start:], "") if opened else ("", content)


def _usage(counts: Counts | None, tokens: list[Token] | None, content: str, reasoning: str) -> Usage:
    prompt = _count(counts.prompt_tokens) if counts else None
    completion = _count(counts.completion_tokens) if counts else None
    details = counts.completion_tokens_details if counts else None
    thought = _count(details.reasoning_tokens) if details else None
    if thought is None and counts:
        thought = _count(counts.reasoning_tokens)
    if completion is not None:
        return Usage(prompt, completion, thought)
    made = len(tokens) if tokens else -(-(len(content) + len(reasoning)) // CHARACTERS_PER_TOKEN)
    return Usage(prompt, made, thought, estimated=True)


def _count(value: int | None) -> int | None:
    return value if value is not None and value >= 0 else None
