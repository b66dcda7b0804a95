"""The bodies of chat replies, whole and in chunks, in each server's dialect. Pure: no clock, no socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.loopback import logprobs
from tests.loopback.text import BLOCK, joined

CREATED = 1_760_000_000


@dataclass(frozen=True, slots=True)
class Choice:
    """One generated answer, already cut to its length, in segments: reasoning (with its tags, where it has any), filler
    and the rest."""

    reasoning: tuple[bytes, ...]
    filler: tuple[bytes, ...]
    tail: tuple[bytes, ...]
    finish_reason: str

    @property
    def tokens(self) -> int:
        """Generated tokens, reasoning included."""
        return len(self.reasoning) + len(self.filler) + len(self.tail)

    @property
    def text(self) -> str:
        """The visible text."""
        return joined([*self.filler, *self.tail])


@dataclass(frozen=True, slots=True)
class Form:
    """How a reply is to be written."""

    dialect: str
    model: str
    reply_id: str
    reasoning: str = "none"
    logprobs: bool = False
    top: int | None = None
    key: str = ""
    token_ids: bool = False
    hidden_reasoning: int = 0
    prompt_tokens: int = 0
    chunk_tokens: int = 1
    return_ids: bool = False
    """vLLM's and lmdeploy's ``return_token_ids``."""
    return_logprob: bool = False
    """lmdeploy's ``return_logprob``."""
    prompt_logprobs: tuple[bytes, ...] | None = None
    """vLLM's ``prompt_logprobs``: the prompt's tokens."""
    prompt_top: int = 0
    """Alternatives at each of them, besides the token itself."""


def usage(form: Form, choices: list[Choice]) -> dict[str, Any]:
    """Token counts as the dialect gives them; llama.cpp counts one choice only."""
    counted = choices[:1] if form.dialect == "llamacpp" else choices
    completion = sum(choice.tokens + form.hidden_reasoning for choice in counted)
    made: dict[str, Any] = {
        "prompt_tokens": form.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": form.prompt_tokens + completion,
    }
    match form.dialect:
        case "openai":
            reasoning = sum(len(choice.reasoning) + form.hidden_reasoning for choice in choices)
            made["prompt_tokens_details"] = {"cached_tokens": 0, "audio_tokens": 0}
            made["completion_tokens_details"] = {"reasoning_tokens": reasoning, "audio_tokens": 0,
                                                 "accepted_prediction_tokens": 0,
                                                 "rejected_prediction_tokens": 0}  # fmt: skip
        case "vllm":
            made["prompt_tokens_details"] = None
        case _:
            made["prompt_tokens_details"] = {"cached_tokens": 0}
    return made


def whole(form: Form, choices: list[Choice]) -> bytes:
    """A plain reply."""
    body = _head(form, "chat.completion")
    body["choices"] = [_choice(form, number, choice) for number, choice in enumerate(choices)]
    body["usage"] = usage(form, choices)
    if form.dialect == "llamacpp":
        body["timings"] = {"prompt_n": form.prompt_tokens, "predicted_n": choices[0].tokens, "predicted_ms": 1.0}
    if form.dialect == "vllm" and form.prompt_logprobs is not None:
        body["prompt_logprobs"] = prompt_logprobs(form.prompt_logprobs, form.key, form.prompt_top)
    return msgspec.json.encode(body)


def prompt_logprobs(tokens: tuple[bytes, ...], key: str, top: int) -> list[dict[str, Any] | None]:
    """vLLM's list over the prompt's tokens, by token id, the token itself before the best; the first has none."""
    made: list[dict[str, Any] | None] = []
    for position in logprobs.positions(tokens, f"{key} prompt"):
        ranked = [(position.token, position.chosen, position.rank)]
        ranked += [(token, logprob, rank) for rank, (token, logprob) in enumerate(position.top(top))]
        entries: dict[str, Any] = {}
        for token, logprob, rank in ranked:
            entry = {"logprob": logprob, "rank": rank + 1, "decoded_token": logprobs.shown(token)}
            entries.setdefault(str(logprobs.token_id(token)), entry)
        made.append(entries if made else None)
    return made


def empty(form: Form) -> bytes:
    """A reply that says nothing and cost nothing."""
    body = _head(form, "chat.completion")
    message = {"role": "assistant", "content": ""}
    body["choices"] = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    body["usage"] = {"prompt_tokens": form.prompt_tokens, "completion_tokens": 0, "total_tokens": form.prompt_tokens}
    return msgspec.json.encode(body)


def chunks(form: Form, choices: list[Choice], include_usage: bool) -> Iterator[tuple[bytes, int]]:
    """A streamed reply: events, each with the number of tokens it brings."""

    def event(body: dict[str, Any]) -> bytes:
        if include_usage:
            body.setdefault("usage", None)
        return b"data: " + msgspec.json.encode(body) + b"\n\n"

    def delta(number: int, words: dict[str, Any], finish: str | None = None, entries: bytes = b"") -> bytes:
        choice: dict[str, Any] = {"index": number, "delta": words, "logprobs": None, "finish_reason": finish}
        if entries:
            choice["logprobs"] = {"content": msgspec.Raw(b"[" + entries + b"]")}
        return event(_head(form, "chat.completion.chunk") | {"choices": [choice]})

    for number, choice in enumerate(choices):
        yield delta(number, {"role": "assistant", "content": ""}), 0
        for field, segment in _segments(form, choice):
            made = logprobs.positions(segment, form.key) if form.logprobs and _has_entries(form, field) else []
            at = 0
            for piece in groups(segment, form.chunk_tokens):
                part = made[at : at + len(piece)]
                entries = logprobs.render(part, form.dialect, form.top, form.token_ids) if part else b""
                yield delta(number, {field: joined(list(piece))}, entries=entries), len(piece)
                at += len(piece)
        last = b""
        if form.logprobs and choice.finish_reason == "stop":
            last = logprobs.end_entry(form.dialect, form.top)
        yield delta(number, {}, choice.finish_reason, last), 0
    if include_usage:
        yield event(_head(form, "chat.completion.chunk") | {"choices": [], "usage": usage(form, choices)}), 0
    yield b"data: [DONE]\n\n", 0


def groups(tokens: tuple[bytes, ...], size: int) -> Iterator[tuple[bytes, ...]]:
    """The tokens by ``size``; a half character waits for its other half, as servers do."""
    group: list[bytes] = []
    for token in tokens:
        group.append(token)
        if len(group) >= size:
            try:
                b"".join(group).decode()
            except UnicodeDecodeError:
                continue
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


def _segments(form: Form, choice: Choice) -> Iterator[tuple[str, tuple[bytes, ...]]]:
    """What is sent under which name of the delta or message, block by block: a block's entries come from a cache."""
    if choice.reasoning:
        yield "content" if form.reasoning == "think" else form.reasoning, choice.reasoning
    for start in range(0, len(choice.filler), BLOCK):
        yield "content", choice.filler[start : start + BLOCK]
    yield "content", choice.tail


def _has_entries(form: Form, field: str) -> bool:
    """OpenAI gives log-probs of the content only; the others of all that was generated."""
    return field == "content" or form.dialect != "openai"


def _head(form: Form, kind: str) -> dict[str, Any]:
    body: dict[str, Any] = {"id": form.reply_id, "object": kind, "created": CREATED, "model": form.model}
    if form.dialect in ("openai", "llamacpp"):
        body["system_fingerprint"] = "fp_loopback"
    return body


def _choice(form: Form, number: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text}
    if choice.reasoning and form.reasoning == "think":
        message["content"] = joined(list(choice.reasoning)) + choice.text
    elif choice.reasoning:
        message[form.reasoning] = joined(list(choice.reasoning))
    if form.dialect == "openai":
        message |= {"refusal": None, "annotations": []}
    entries = None
    if form.logprobs and not (form.dialect == "llamacpp" and form.top == 0):
        parts = [
            logprobs.content(segment, form.key, form.dialect, form.top, form.token_ids)
            for field, segment in _segments(form, choice)
            if _has_entries(form, field)
        ]
        if choice.finish_reason == "stop":
            parts.append(logprobs.end_entry(form.dialect, form.top))
        entries = {"content": msgspec.Raw(b"[" + b",".join(part for part in parts if part) + b"]")}
    made = {"index": number, "message": message, "logprobs": entries, "finish_reason": choice.finish_reason}
    tokens = (*choice.reasoning, *choice.filler, *choice.tail)
    if form.return_ids and form.dialect in ("vllm", "lmdeploy"):
        ids = [logprobs.token_id(token) for token in tokens]
        made["token_ids" if form.dialect == "vllm" else "output_ids"] = ids
    if form.return_logprob and form.dialect == "lmdeploy":
        made["output_token_logprobs"] = [
            (each.chosen, logprobs.token_id(each.token))
            for _, segment in _segments(form, choice)
            for each in logprobs.positions(segment, form.key)
        ]
    return made
