"""Log-likelihoods over `/v1/completions`: the prompt echoed back with the log-prob of each of its tokens.

The question is a list of (context, continuation) pairs, the messages of a Request two by two. Tokens are told apart as
lm-eval does it with a tokenizer (lm_eval/api/model.py, TemplateLM._encode_pair): spaces at a context's end go to its
continuation, and the continuation's tokens are those of the whole text after as many as the context alone has. That
count is the server's own: contexts are asked for beside the whole texts. After an empty context every token needs one
before it, which only servers that begin a prompt with a start token have.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ares_eval.inference.logprobs import MissingLogprobs
from ares_eval.inference.wire import Counts, Malformed, decode_body
from ares_eval.types import Reply, Usage, WireMessage

NO_SUCH_ENDPOINT = (400, 404, 405, 422, 501)
"""Answers by which servers say that they have no plain completions, or none with what was asked."""


def is_refusal(cause: str, status: int | None) -> bool:
    """Whether a fault (its cause and status) means that this server gives no likelihoods at all."""
    return cause == "no_logprobs" or (status in NO_SUCH_ENDPOINT and cause != "context")


def refusal(task: str, reason: str) -> str:
    """The line that says so."""
    return (
        f"{task} asks for log-likelihoods, which need /v1/completions with echo and logprobs (vLLM has that): "
        f"this server does not offer it ({reason})"
    )


def pairs(messages: Sequence[WireMessage]) -> list[tuple[str, str]]:
    """(context, continuation) of each pair of messages, spaces moved. ValueError where they are no pairs of texts."""
    texts = []
    for message in messages:
        if any(not isinstance(part, str) for part in message.parts):
            raise ValueError("the likelihood of a text with pictures cannot be asked for")
        texts.append("".join(str(part) for part in message.parts))
    if len(texts) % 2:
        raise ValueError("likelihoods are asked for by pairs of messages")
    found = []
    for context, continuation in zip(texts[::2], texts[1::2], strict=True):
        kept = context.rstrip()
        found.append((kept, context[len(kept) :] + continuation))
    return found


def encode_request(model: str, messages: Sequence[WireMessage]) -> bytes:
    """The JSON body: every context once, then every whole text."""
    return msgspec.json.encode(
        {
            "model": model,
            "prompt": [*_contexts(pairs(messages)), *(context + text for context, text in pairs(messages))],
            "temperature": 0,
            "max_tokens": 1,
            "logprobs": 1,
            "echo": True,
        }
    )


def _contexts(asked: Sequence[tuple[str, str]]) -> list[str]:
    return [context for context in dict.fromkeys(context for context, _ in asked) if context]


class _Logprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    logprobs: _Logprobs | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]
    usage: Counts | None = None
    model: str | None = None
    system_fingerprint: str | None = None


_DECODER = msgspec.json.Decoder(_Body)


def decode_reply(body: bytes, messages: Sequence[WireMessage]) -> Reply:
    """The reply whose text is the JSON list of [log-likelihood, greedy], one for each pair.

    Raises Malformed, ServerSaidError, and MissingLogprobs where the server does not echo log-probs, or has no token
    before a text with an empty context.
    """
    asked = pairs(messages)
    contexts = _contexts(asked)
    try:
        decoded = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        decode_body(body)
        raise Malformed(f"the answer is no completion: {str(error)[:200]}") from None
    choices = sorted(decoded.choices, key=lambda choice: choice.index)
    if len(choices) != len(contexts) + len(asked):
        raise Malformed(f"{len(choices)} completions came for {len(contexts) + len(asked)} prompts")
    echoed = [_echo(choice) for choice in choices]
    lengths = {text: len(echo.tokens) - 1 for text, echo in zip(contexts, echoed, strict=False)}
    found = []
    for (context, continuation), echo in zip(asked, echoed[len(contexts) :], strict=True):
        start = lengths[context] if context else _start_token(echo, continuation)
        found.append(_likelihood(echo, start))
    usage = decoded.usage
    return Reply(
        text=msgspec.json.encode(found).decode(),
        finish_reason="stop",
        usage=Usage(usage.prompt_tokens, usage.completion_tokens) if usage else Usage(),
        model=decoded.model,
        fingerprint=decoded.system_fingerprint,
    )


def _echo(choice: _Choice) -> _Logprobs:
    echo = choice.logprobs
    if echo is None or echo.top_logprobs is None or len(echo.tokens) < 2:
        raise MissingLogprobs("the completion came without the log-probs of its prompt")
    if not len(echo.tokens) == len(echo.token_logprobs) == len(echo.top_logprobs):
        raise Malformed("the completion has not one log-prob a token")
    return echo


def _start_token(echo: _Logprobs, text: str) -> int:
    if text.startswith(echo.tokens[0]) or echo.token_logprobs[0] is not None:
        raise MissingLogprobs("a text with nothing before it has no likelihood here: this model has no start token")
    return 1


def _likelihood(echo: _Logprobs, start: int) -> tuple[float, bool]:
    """Sum over the tokens from ``start``, the generated one left out, and whether each was the likeliest."""
    assert echo.top_logprobs is not None
    total, greedy = 0.0, True
    chosen, tops = echo.token_logprobs[start:-1], echo.top_logprobs[start:-1]
    if start < 1 or not chosen:
        raise Malformed("a continuation has no token of its own")
    for logprob, top in zip(chosen, tops, strict=True):
        if logprob is None:
            raise MissingLogprobs("a token of the continuation came without its log-prob")
        total += logprob
        greedy = greedy and (not top or logprob == max(top.values()))
    return total, greedy
