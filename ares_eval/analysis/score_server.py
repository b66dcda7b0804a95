"""Entropy bounds of recorded replies from a vLLM server's prompt log-probs.

The question and its reply go back as a prompt whose last message is to be continued; the server answers with the top k
log-probs at every position of it (``prompt_logprobs``), from which the same bounds follow as from a reply's own. The
server splits the reply into tokens itself, so a trace made here may differ from the recorded one in its tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ares_eval.analysis.scoring import CannotScore
from ares_eval.inference.logprobs import entropy_bounds
from ares_eval.inference.servers.ask import ask
from ares_eval.inference.transport import CHAT_PATH, MAX_ANSWER_BYTES, Endpoint
from ares_eval.types import Record, TokenTrace

ESTIMATOR = "prompt-topk-bounds"

TIMEOUT = 600.0
"""Seconds for one reply: a prefill of 32,768 tokens on a busy server."""


class ScorerRefused(Exception):
    """The server cannot score at all; the message holds its words."""


@dataclass(frozen=True, slots=True)
class Position:
    """One prompt token: its text, its log-prob, and the log-probs of the k best at its place."""

    text: str
    logprob: float
    top: tuple[float, ...]


class ServerScorer:
    """Scores replies by asking ``endpoint`` for ``top`` prompt log-probs; ``vocabulary`` bounds the tail."""

    workers = 8
    """Requests under way at once: the server batches them."""

    def __init__(self, endpoint: Endpoint, model: str, *, top: int = 20, vocabulary: int | None = None) -> None:
        self.endpoint, self.model, self.top, self.vocabulary = endpoint, model, top, vocabulary

    def score(
        self, messages: Sequence[Mapping[str, str]], record: Record, tokens: tuple[str, ...] | None
    ) -> TokenTrace:
        """The bounds of one reply. ScorerRefused where the server takes no such request."""
        import numpy as np

        reply = "".join(tokens) if tokens is not None else record.text or ""
        if not reply.strip():
            raise CannotScore("the reply is empty")
        if tokens is None and record.reasoning:
            raise CannotScore("reasoning was set apart and its tokens are not recorded")
        entries = self._ask([*messages, {"role": "assistant", "content": reply}])
        positions = reply_positions(entries, reply, self.top)
        # The actual token may stand outside the top k; known probabilities hold it once.
        width = max(len(p.top) for p in positions)
        known = np.full((len(positions), width + 1), np.nan)
        cap = np.full(len(positions), np.inf)
        for i, position in enumerate(positions):
            values = np.exp(np.minimum(position.top, 0.0))
            known[i, : len(values)] = values
            if len(values) >= self.top:  # fewer are no list of the best, and bound nothing
                cap[i] = values.min()
            if position.logprob not in position.top:
                known[i, width] = np.exp(min(position.logprob, 0.0))
        low, high, tail = entropy_bounds(known, cap, self.vocabulary)
        return TokenTrace(
            tokens=tuple(p.text for p in positions),
            logprob=np.array([p.logprob for p in positions]),
            entropy_low=low,
            entropy_high=high,
            tail=tail,
            top=self.top,
            estimator=ESTIMATOR,
            vocabulary=self.vocabulary,
        )

    def _ask(self, messages: Sequence[Mapping[str, str]]) -> Any:
        body = {
            "model": self.model,
            "messages": list(messages),
            "add_generation_prompt": False,
            "continue_final_message": True,
            "max_tokens": 1,
            "temperature": 1.0,
            "prompt_logprobs": self.top,
        }
        url, key = self.endpoint.base_url + CHAT_PATH, self.endpoint.api_key
        answer = ask(url, body, api_key=key, timeout=TIMEOUT, max_body=MAX_ANSWER_BYTES)
        if not answer.ok:
            if answer.status in (400, 413) and "context" in answer.complaint().lower():
                raise CannotScore("longer than the scorer's context")
            raise ScorerRefused(answer.complaint())
        found = answer.body.get("prompt_logprobs") if isinstance(answer.body, dict) else None
        if not isinstance(found, list):
            raise ScorerRefused("the server gives no prompt_logprobs: it is no vLLM")
        return found


def reply_positions(entries: Sequence[Any], reply: str, top: int) -> list[Position]:
    """The positions of the reply's tokens, which come last, from ``prompt_logprobs``; CannotScore where its text is
    not found in them or an entry is none."""
    positions = [_position(entry, top) for entry in entries]
    text = "".join(position.text for position in positions)
    # Chat templates may strip what is to be continued.
    wanted = reply.strip()
    start = text.rfind(wanted)
    if start < 0:
        raise CannotScore("the server's prompt does not hold the reply's text")
    found, at = [], 0
    for position in positions:
        stop = at + len(position.text)
        if stop > start and at < start + len(wanted):
            found.append(position)
        at = stop
    return found


def _position(entry: Any, top: int) -> Position:
    """One entry: token id -> {logprob, rank, decoded_token}, the actual token first; null for the first token."""
    if entry is None:
        return Position("", 0.0, ())
    try:
        values = [(float(value["logprob"]), str(value.get("decoded_token") or "")) for value in entry.values()]
        logprob, text = values[0]
    except (AttributeError, TypeError, ValueError, KeyError, IndexError):
        shown = json.dumps(entry, default=str)[:80]
        raise CannotScore(f"the server's prompt log-probs have another form: {shown}") from None
    # An actual token outside the best is one entry more, and the least of all.
    return Position(text, logprob, tuple(sorted((value for value, _ in values), reverse=True)[:top]))
