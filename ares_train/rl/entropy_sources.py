"""Token entropies while rolling out, by name (``aepo.branch.entropy_source``): branching must know them before the
actor does.

| name | from | quality, cost |
|---|---|---|
| ``exact`` | our CPU rollout server | exact |
| ``server_topk`` | the top K of each step, by our vLLM server | a lower bound; one top-k a step |
| ``rescore`` | a second request that scores the answer as a prompt, temperature 1 | a lower bound; one more prefill |
| ``surprisal`` | -log p of each sampled token | unbiased (E[-log p] = H) and very noisy; free |

Values of two sources must never be compared; the trainer logs how the chosen one fits the actor's exact entropies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ares_eval.analysis.entropy import one_bucket

SERVER_FIELD = "ares_entropy"
"""``extra_fields`` of an answer of our vLLM server: a list of floats, one per response token."""

EXACT_FIELD = "token_entropy"
"""The same of our CPU server (ares_train.verl_cpu.rollout_server)."""


class EntropyMissing(RuntimeError):
    """The rollout server did not say what the chosen entropy source needs."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a source may look at: the request's prompt (token ids), what came back, and how to ask again.

    ``ask(prompt_ids, **sampling)`` sends another request for the same pictures to the same replica.
    """

    prompt: Sequence[int]
    tokens: Sequence[int]
    log_probs: Sequence[float] | None
    extra: dict[str, Any]
    topk: int
    ask: Callable[..., Awaitable[Any]]


async def exact(answer: Answered) -> np.ndarray:
    """f32[T] of the CPU server."""
    return _told(answer, EXACT_FIELD, "rollout.name=hf_cpu")


async def server_topk(answer: Answered) -> np.ndarray:
    """f32[T] of our vLLM server."""
    return _told(answer, SERVER_FIELD, "rollout.name=vllm, with ares-train's runner")


async def rescore(answer: Answered) -> np.ndarray:
    """f32[T] from the prompt log-probs of prompt plus answer: K known probabilities a token and one bucket for the
    rest."""
    whole = [*answer.prompt, *answer.tokens]
    scored = await answer.ask(whole, prompt_logprobs=answer.topk, max_tokens=1, temperature=1.0, logprobs=False)
    rows = scored.extra_fields.get("prompt_logprobs")
    if rows is None or len(rows) < len(whole):
        raise EntropyMissing(
            "the rollout server returned no prompt log-probs: branch.entropy_source=rescore needs rollout.name=vllm"
        )
    # verl drops the first token's empty entry, so entry i is the distribution of token i + 1.
    first = len(answer.prompt) - 1
    own = rows[first : first + len(answer.tokens)]
    return entropy_of_top(np.asarray(own, dtype=np.float64))


async def surprisal(answer: Answered) -> np.ndarray:
    """f32[T], minus the log-probability of each sampled token."""
    if answer.log_probs is None or len(answer.log_probs) < len(answer.tokens):
        raise EntropyMissing("no log-probs came back: branch.entropy_source=surprisal needs calculate_log_probs=True")
    return -np.asarray(answer.log_probs[: len(answer.tokens)], dtype=np.float32)


SOURCES: dict[str, Callable[[Answered], Awaitable[np.ndarray]]] = {
    "exact": exact,
    "server_topk": server_topk,
    "rescore": rescore,
    "surprisal": surprisal,
}


def entropy_of_top(log_probs: np.ndarray) -> np.ndarray:
    """f32[T] from the K largest log-probs f64[T, K] of each step (NaN: none), the rest as one symbol: a lower bound."""
    return one_bucket(np.exp(log_probs)).astype(np.float32)


def forget(extra: dict[str, Any]) -> None:
    """Take the token entropies out of an answer's ``extra_fields``: rows carry what is needed in a shorter form."""
    for name in (EXACT_FIELD, SERVER_FIELD, "prompt_logprobs", "prompt_ids"):
        extra.pop(name, None)


def _told(answer: Answered, field: str, how: str) -> np.ndarray:
    values = answer.extra.get(field)
    if values is None:
        raise EntropyMissing(f"the rollout server sends no {field}; this entropy source is for {how}")
    if len(values) < len(answer.tokens):
        raise EntropyMissing(f"the rollout server sent {len(values)} entropies for {len(answer.tokens)} tokens")
    return np.asarray(values[: len(answer.tokens)], dtype=np.float32)
