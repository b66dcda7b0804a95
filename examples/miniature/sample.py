"""Answers from the model, all rows at once: key-value cache, finished rows dropped as the batch thins out.

Sampling is at temperature 1 from the whole distribution, so the recorded log-probability is the policy's own, and the
entropy is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from examples.miniature.model import Cache, LanguageModel
from examples.miniature.vocabulary import END, PAD

COMPACT_BELOW = 0.85
"""Rows are dropped once fewer than this share is alive: copying the cache for every finished row would cost more."""

MORE_SLOTS = 24
"""Slots that the cache grows by: most answers are short, and the few long ones need a long cache for few rows."""


@dataclass(frozen=True)
class Answers:
    """B answers: ``tokens`` lists without padding, and f32/bool [B, T] for the whole batch, padded on the right.

    ``truncated``: reached the longest answer without END.
    """

    tokens: list[list[int]]
    log_prob: Tensor
    entropy: Tensor
    mask: Tensor
    truncated: Tensor

    @property
    def lengths(self) -> Tensor:
        return self.mask.sum(1)


@torch.inference_mode()
def sample(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    longest: int,
    generator: torch.Generator,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> Answers:
    """One answer of at most ``longest`` tokens per prompt; ``prefixes`` are beginnings that are kept as they are."""
    rows = len(prompts)
    width = max(map(len, prompts))
    prompt = left_padded(prompts, width)
    bias = torch.zeros(rows, width + longest)
    bias[:, :width].masked_fill_(prompt == PAD, -torch.inf)
    forced, kept = torch.full((rows, longest), PAD), torch.zeros(rows, dtype=torch.long)
    for row, prefix in enumerate(prefixes or ()):
        forced[row, : len(prefix)] = torch.tensor(prefix, dtype=torch.long)
        kept[row] = len(prefix)

    tokens = torch.full((rows, longest), PAD)
    log_prob, entropy = torch.zeros(rows, longest), torch.zeros(rows, longest)
    room = width + MORE_SLOTS
    cache = model.empty_cache(rows, room)
    hidden = model.step(prompt, functional.pad(prompt, (1, 0), value=PAD)[:, :-1], 0, prompt_bias(bias, width), cache)
    row, last, alive = torch.arange(rows), prompt[:, -1], torch.ones(rows, dtype=torch.bool)
    for position in range(longest):
        distribution = functional.log_softmax(model.out(hidden), -1)
        probability = distribution.exp()
        token = torch.multinomial(probability, 1, generator=generator)[:, 0]
        token = torch.where(position < kept[row], forced[row, position], token)
        tokens[row, position] = token
        log_prob[row, position] = distribution.gather(1, token[:, None])[:, 0]
        entropy[row, position] = -(probability * distribution).sum(-1)
        alive &= token != END
        if not alive.any() or position + 1 == longest:
            break
        slot = width + position
        few = bool(alive.sum() < COMPACT_BELOW * len(row))
        if few or slot == room:
            room = slot + MORE_SLOTS
            cache = moved(cache, alive if few else torch.ones_like(alive), slot, room)
        if few:
            row, token, last, bias, alive = (each[alive] for each in (row, token, last, bias, alive))
        hidden = model.step(token[:, None], last[:, None], slot, bias[:, None, None, : slot + 1], cache)
        last = token
    ended = (tokens == END).int().cumsum(1)
    mask = (ended == 0) | ((ended == 1) & (tokens == END))
    used = int(mask.sum(1).max())
    mask = mask[:, :used]
    lists = [values[: int(length)] for values, length in zip(tokens.tolist(), mask.sum(1), strict=True)]
    return Answers(lists, log_prob[:, :used] * mask, entropy[:, :used] * mask, mask, ended[:, -1] == 0)


def left_padded(prompts: Sequence[Sequence[int]], width: int) -> Tensor:
    return torch.tensor([[PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts])


def prompt_bias(bias: Tensor, width: int) -> Tensor:
    """Causal bias among the prompt's slots. Padding may see itself, lest its softmax be undefined."""
    seen = torch.ones(width, width, dtype=torch.bool).tril()
    causal = torch.zeros(width, width).masked_fill_(~seen, -torch.inf)
    return (bias[:, None, None, :width] + causal).masked_fill_(torch.eye(width, dtype=torch.bool), 0.0)


def moved(cache: Cache, rows: Tensor, filled: int, slots: int) -> Cache:
    """The cache of ``rows`` bool[rows] with room for ``slots``; the ``filled`` ones are copied."""

    def kept(full: Tensor) -> Tensor:
        new = full.new_empty(int(rows.sum()), full.shape[1], slots, full.shape[3])
        new[:, :, :filled] = full[rows, :, :filled]
        return new

    return [(kept(keys), kept(values)) for keys, values in cache]
