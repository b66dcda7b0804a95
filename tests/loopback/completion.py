"""`/v1/completions`: plain text in and out, with `echo` and `logprobs` for log-likelihoods.

A prompt token's log-prob depends on the seed, the token and all before it, never on what comes after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.loopback import shapes
from tests.loopback.chat import CREATED
from tests.loopback.logprobs import positions, shown
from tests.loopback.text import tokenise, unit

DEFAULT_TOKENS = 16
DEEPEST = 12.0
"""Log-probs of prompt tokens lie between minus this and 0, in nats."""


def prompts_of(prompt: str | list[Any]) -> list[str]:
    """The prompts of a request as texts; token ids become made-up words."""
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return ["".join(f" t{number}" for number in prompt)]
    return [each if isinstance(each, str) else "".join(f" t{number}" for number in each) for each in prompt]


def whole(
    asked: shapes.Completion, answers: Sequence[Sequence[bytes]], dialect: str, seed: int, reply_id: str
) -> bytes:
    """The reply; ``answers`` holds the tokens generated for each prompt."""
    prompts = prompts_of(asked.prompt)
    most = DEFAULT_TOKENS if asked.max_tokens is None else asked.max_tokens
    choices, prompt_tokens, completion_tokens = [], 0, 0
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        before = tokenise(prompt)
        after = list(answer[:most])
        prompt_tokens += len(before)
        completion_tokens += len(after)
        tokens = [*before, *after] if asked.echo else after
        entries = None
        if asked.logprobs is not None and dialect != "llamacpp":
            entries = legacy(before if asked.echo else [], after, asked.logprobs, seed)
        choices.append(
            {
                "index": number,
                "text": b"".join(tokens).decode(errors="replace"),
                "logprobs": entries,
                "finish_reason": "length" if len(answer) > most else "stop",
            }
        )
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    body = {"id": reply_id, "object": "text_completion", "created": CREATED, "model": asked.model}
    return msgspec.json.encode(body | {"choices": choices, "usage": usage})


def legacy(before: Sequence[bytes], after: Sequence[bytes], k: int, seed: int) -> dict[str, list[Any]]:
    """The legacy log-prob object: tokens, token_logprobs, top_logprobs, text_offset; the first token has none."""
    tokens, chosen, tops, offsets = [], [], [], []
    at = 0
    running = hashlib.blake2b(digest_size=8)
    for number, token in enumerate(before):
        running.update(token)
        logprob = -DEEPEST * unit(seed, "prompt", running.hexdigest()) ** 2
        chosen.append(logprob if number else None)
        tops.append({shown(token): logprob} if number and k else None)
        tokens.append(token)
    for position in positions(after, str(seed)):
        chosen.append(position.chosen)
        top = {shown(token): logprob for token, logprob in position.top(k)}
        tops.append(top | {shown(position.token): position.chosen} if k else None)
        tokens.append(position.token)
    for token in tokens:
        offsets.append(at)
        at += len(token.decode(errors="replace"))
    return {
        "tokens": [shown(token) for token in tokens],
        "token_logprobs": chosen,
        "top_logprobs": tops,
        "text_offset": offsets,
    }
