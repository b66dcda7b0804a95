"""Token by token: sampling with exact log-probs and exact entropy, stop strings, and text that grows without rewrites.

Log-probs and entropies are of the model's own distribution (temperature 1, nothing cut off), in nats, in float32, over
the whole width of its output. The sampled token follows temperature, then top-k, then top-p, as in vLLM. With
the same seed, prompt, parameters and machine the draws are the same.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ares_eval.inference.servers.hf_model import ChatModel

if TYPE_CHECKING:
    import torch


class Cancelled(Exception):
    """The client has gone; nobody wants the rest."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 takes the most probable; ``top_k`` 0 and ``top_p`` 1 cut nothing.

    ``logprobs``: alternatives reported per token; None for no log-probs at all. ``draws``: answers wanted.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    draws: int = 1


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token: the text it adds (empty for a piece of a character and for the end token), and its odds."""

    id: int
    text: str
    logprob: float
    entropy: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Draw:
    """One answer as it grows. ``finish`` is None while it does, then ``stop`` or ``length``."""

    tokens: list[Token] = field(default_factory=list)
    text: str = ""
    finish: str | None = None


def choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The next token's id from logits of shape (V,)."""
    import torch

    if sampling.temperature == 0:
        return int(logits.argmax())
    scaled = logits / sampling.temperature
    if 0 < sampling.top_k < scaled.shape[0]:
        least = torch.topk(scaled, sampling.top_k).values[-1]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    probabilities = torch.softmax(scaled, dim=0)
    if sampling.top_p < 1:
        ordered, order = torch.sort(probabilities, descending=True)
        # A token stays while the mass before it is below top_p; the first one always does.
        cut = torch.cumsum(ordered, dim=0) - ordered >= sampling.top_p
        cut[0] = False
        probabilities = probabilities.index_fill(0, order[cut], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def generate(
    chat: ChatModel,
    inputs: Mapping[str, Any],
    sampling: Sampling,
    on_token: Callable[[int, str, Token], None],
    cancelled: threading.Event,
) -> list[Draw]:
    """All draws of one prompt, side by side in one batch. ``on_token(draw, text, token)`` is called
    for every token, with the text that may go out by then.

    ``inputs`` come from ``ChatModel.encode``. Raises Cancelled soon after ``cancelled`` is set.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria

    first_seed = secrets.randbits(62) if sampling.seed is None else sampling.seed
    rows = [_Row(chat, sampling, (first_seed + number) % 2**63) for number in range(sampling.draws)]

    class Choose(LogitsProcessor):  # type: ignore[misc]
        """Takes the choice out of transformers' hands: every other token is masked."""

        def __call__(self, _ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            if cancelled.is_set():
                raise Cancelled
            chosen = torch.full_like(scores, -torch.inf)
            for number, row in enumerate(rows):
                if row.draw.finish is None:
                    text = row.step(scores[number])
                    on_token(number, text, row.draw.tokens[-1])
                chosen[number, row.last] = 0.0
            return chosen

    class Finished(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
            return torch.tensor([row.draw.finish is not None for row in rows], device=ids.device)

    settings = GenerationConfig(
        max_new_tokens=sampling.max_tokens,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=sampling.draws,
        pad_token_id=chat.model.generation_config.pad_token_id,
    )
    with torch.inference_mode():
        chat.model.generate(
            **inputs,
            generation_config=settings,
            logits_processor=LogitsProcessorList([Choose()]),
            stopping_criteria=[Finished()],
        )
    return [row.draw for row in rows]


class _Row:
    """One draw in the making: its random numbers, its token ids, and how much of its text is out."""

    def __init__(self, chat: ChatModel, sampling: Sampling, seed: int) -> None:
        import torch

        self.chat, self.sampling = chat, sampling
        self.generator = torch.Generator(device=chat.model.device).manual_seed(seed)
        self.draw = Draw()
        self.last = 0
        self._ids: list[int] = []
        self._from, self._read = 0, 0
        self._pending = ""

    def step(self, scores: torch.Tensor) -> str:
        """Choose and keep one token, given logits of shape (V,); the text that may go out now is returned."""
        import torch

        logits = scores.float()
        logprobs = torch.log_softmax(logits, dim=0)
        self.last = choose(logits, self.sampling, self.generator)
        self._ids.append(self.last)
        ended = self.last in self.chat.ends
        full = len(self._ids) >= self.sampling.max_tokens
        # Pieces of a character that the end token cuts off are left out: they belong to no token that could carry them.
        grown = "" if ended else self._grown(flush=full)
        self._keep(logprobs, grown)
        return self._release(grown, ended, full)

    def _keep(self, logprobs: torch.Tensor, text: str) -> None:
        import torch

        wanted = self.sampling.logprobs
        top: tuple[tuple[int, float], ...] = ()
        entropy = 0.0
        if wanted is not None:
            # Masked tokens have probability 0 and log-prob -inf; their product counts as 0.
            entropy = float(torch.special.entr(logprobs.exp()).sum())
            if wanted:
                values, ids = torch.topk(logprobs, min(wanted, logprobs.shape[0]))
                top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        self.draw.tokens.append(Token(self.last, text, float(logprobs[self.last]), entropy, top))

    def _grown(self, *, flush: bool) -> str:
        """The text that the newest token adds; nothing while it ends within a character.

        Tokens are decoded together with those before them, since decoders glue words and characters together.
        """
        decode = self.chat.tokenizer.decode
        before = decode(self._ids[self._from : self._read], skip_special_tokens=True)
        now = decode(self._ids[self._from :], skip_special_tokens=True)
        if len(now) <= len(before) or (now.endswith("\ufffd") and not flush):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return str(now[len(before) :])

    def _release(self, grown: str, ended: bool, full: bool) -> str:
        """Add to the text up to a stop string, and hold back what may be the beginning of one."""
        self._pending += grown
        held = 0
        found = [(place, stop) for stop in self.sampling.stop if (place := self._pending.find(stop)) >= 0]
        if found:
            self._pending = self._pending[: min(found)[0]]
            self.draw.finish = "stop"
        elif ended or full:
            self.draw.finish = "stop" if ended else "length"
        else:
            held = max((_overlap(self._pending, stop) for stop in self.sampling.stop), default=0)
        out = self._pending[: len(self._pending) - held]
        self._pending = self._pending[len(out) :]
        self.draw.text += out
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
