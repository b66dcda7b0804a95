"""One sampling step over a batch of rows: truncation, log-probabilities, entropies and the draw. Pure, float64.

Each row brings its own uniform number and its token is found by the inverse of the cumulative distribution in the order
of the vocabulary. So a row's token depends on its logits and its number only, and the last bits in which a batched
matrix product differs from a single one matter only where the number falls within such a difference of a boundary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

GREEDY = 1e-6
"""A temperature up to this is greedy decoding; log-probabilities and entropies are then those of temperature 1."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How one answer is drawn. ``top_k`` 0 and ``top_p`` 1 truncate nothing; ``max_tokens`` >= 1."""

    temperature: float
    top_k: int
    top_p: float
    max_tokens: int
    log_probs: bool

    @classmethod
    def of(cls, params: Mapping[str, Any], default_max_tokens: int, room: int) -> Settings:
        """From verl's sampling parameters; at most ``room`` tokens fit the context.

        Raises ValueError for a parameter that is unknown here, out of range, or asks for what hf_cpu does not do.
        """
        rest = dict(params)
        temperature = float(rest.pop("temperature", 1.0))
        top_p = float(rest.pop("top_p", 1.0))
        top_k = int(rest.pop("top_k", -1) or -1)
        asked = rest.pop("max_tokens", None)
        also = rest.pop("max_new_tokens", None)
        penalty = float(rest.pop("repetition_penalty", 1.0))
        log_probs = bool(rest.pop("logprobs", False))
        if rest:
            raise ValueError(f"hf_cpu does not know the sampling parameter {', '.join(sorted(rest))}")
        if penalty != 1.0:
            raise ValueError(f"hf_cpu has no repetition penalty: set it to 1.0, not {penalty}")
        if not 0.0 <= temperature < float("inf") or not 0.0 < top_p <= 1.0:
            raise ValueError(f"temperature {temperature} must be >= 0 and finite, top_p {top_p} in (0, 1]")
        if room < 1:
            raise ValueError("the prompt leaves no room for an answer: raise max_model_len or shorten the prompt")
        wanted = int(asked if asked is not None else also if also is not None else default_max_tokens)
        return cls(temperature, max(0, top_k), top_p, max(1, min(wanted, room)), log_probs)


@dataclass(frozen=True, slots=True)
class Draw:
    """One token a row. ``entropy`` [B], nats, of the whole vocabulary at the row's temperature, before truncation.
    ``log_prob`` [B] of the drawn token under the distribution that it was drawn from."""

    token: torch.Tensor
    log_prob: torch.Tensor
    entropy: torch.Tensor


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor
) -> Draw:
    """Draw a token a row from ``logits`` [B, V]; the other arguments are [B], ``uniform`` in [0, 1)."""
    greedy = temperature <= GREEDY
    scaled = logits.double() / torch.where(greedy, torch.ones_like(temperature), temperature).double().unsqueeze(-1)
    whole = scaled.log_softmax(-1)
    entropy = -torch.special.xlogy(whole.exp(), whole.exp()).sum(-1)
    # Greedy decoding truncates nothing: its log-probabilities are the model's own.
    kept = truncate(scaled, torch.where(greedy, 0, top_k), torch.where(greedy, 1.0, top_p))
    log_probs = kept.log_softmax(-1)
    token = torch.where(greedy, scaled.argmax(-1), inverse_cdf(log_probs.exp(), uniform))
    return Draw(token, log_probs.gather(-1, token.unsqueeze(-1)).squeeze(-1), entropy)


def truncate(logits: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """``logits`` [B, V] with -inf outside the ``top_k`` largest (ties with the last one stay), and then outside the
    smallest set of the most probable tokens whose probability reaches ``top_p``. Source: vLLM's order of the two."""
    size = logits.shape[-1]
    if bool((top_k > 0).any()):
        ranked = logits.sort(-1, descending=True).values
        last = torch.where(top_k > 0, top_k, size).clamp(max=size) - 1
        logits = logits.masked_fill(logits < ranked.gather(-1, last.unsqueeze(-1)), -torch.inf)
    if bool((top_p < 1.0).any()):
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = ranked.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        outside = (before >= top_p.unsqueeze(-1)) & (top_p < 1.0).unsqueeze(-1)
        logits = logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
    return logits


def inverse_cdf(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first token of each row [B, V] whose cumulative probability exceeds ``uniform`` [B]; never one of zero."""
    cumulative = probabilities.cumsum(-1)
    wanted = uniform.double().unsqueeze(-1) * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, wanted, right=True).squeeze(-1)
    last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).to(torch.int8).argmax(-1)
    return torch.minimum(found, last)
