"""A causal transformer of 0.35 M parameters: 3 layers, width 96, RoPE, and a token shift at the input.

The token shift (the previous token's own embedding is added) makes the look-up circuits appear within some hundred
steps instead of after a long plateau. RoPE sees only distances, so training may pad on the right and sampling on the
left: both give the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.miniature.vocabulary import PAD

WIDTH, HEADS, LAYERS = 96, 3, 3
ROPE_BASE = 200.0
"""Small, because sequences are shorter than 200 tokens."""

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer: [rows, heads, slots, width of a head]."""


class Block(nn.Module):
    """Attention and MLP, pre-norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def heads_of(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both rotated) and values, each [rows, heads, tokens, width of a head]."""
        rows, tokens, _ = hidden.shape
        split = self.query_key_value(self.before_attention(hidden)).view(rows, tokens, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        return rotate(query, cosine, sine), rotate(key, cosine, sine), value

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The block's output from its input and the attention's result."""
        hidden = hidden + self.project(attended.transpose(1, 2).flatten(2))
        return hidden + self.down(functional.gelu(self.up(self.before_mlp(hidden)), approximate="tanh"))


class LanguageModel(nn.Module):
    """``slots``: longest prompt plus longest answer."""

    def __init__(self, tokens: int, slots: int, width: int = WIDTH, heads: int = HEADS, layers: int = LAYERS) -> None:
        super().__init__()
        self.heads, self.slots, self.head_width = heads, slots, width // heads
        self.own, self.previous = nn.Embedding(tokens, width), nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, tokens, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                embedding = name.startswith(("own", "previous", "out"))
                nn.init.normal_(parameter, std=0.3 if embedding else 0.5 / math.sqrt(width))
        frequency = ROPE_BASE ** -(torch.arange(0, self.head_width, 2) / self.head_width)
        angle = torch.arange(slots)[:, None] * frequency
        self.register_buffer("cosine", torch.cos(angle), persistent=False)
        self.register_buffer("sine", torch.sin(angle), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states [rows, tokens, width] of right-padded rows i64[rows, tokens]."""
        hidden = self.own(tokens) + self.previous(functional.pad(tokens, (1, 0), value=PAD)[:, :-1])
        cosine, sine = self.cosine[: tokens.shape[1]], self.sine[: tokens.shape[1]]
        for block in self.blocks:
            query, key, value = block.heads_of(hidden, cosine, sine)
            hidden = block.finish(hidden, functional.scaled_dot_product_attention(query, key, value, is_causal=True))
        return self.norm(hidden)

    def step(self, tokens: Tensor, previous: Tensor, start: int, bias: Tensor, cache: Cache) -> Tensor:
        """Hidden state of the last of ``tokens`` i64[rows, n], which fill the cache's slots from ``start`` on.

        ``previous``: the token before each. ``bias`` [rows, 1, n, start + n]: 0 where a slot may be seen, else -inf.
        """
        end = start + tokens.shape[1]
        hidden = self.own(tokens) + self.previous(previous)
        for block, (keys, values) in zip(self.blocks, cache, strict=True):
            query, key, value = block.heads_of(hidden, self.cosine[start:end], self.sine[start:end])
            keys[:, :, start:end], values[:, :, start:end] = key, value
            scores = query @ keys[:, :, :end].transpose(2, 3) / math.sqrt(self.head_width) + bias
            hidden = block.finish(hidden, torch.softmax(scores, -1) @ values[:, :, :end])
        return self.norm(hidden[:, -1])

    def empty_cache(self, rows: int, slots: int) -> Cache:
        def empty() -> Tensor:
            return torch.empty(rows, self.heads, slots, self.head_width)

        return [(empty(), empty()) for _ in self.blocks]


def rotate(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """RoPE on the last dimension, halves as pairs."""
    left, right = vectors.chunk(2, -1)
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], -1)


def pack(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows prompt + answer, padded on the right, i64[rows, tokens], and where the answer is, bool[rows, tokens]."""
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    tokens = torch.full((len(lengths), max(lengths)), PAD)
    own = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        tokens[row, : lengths[row]] = torch.tensor([*prompt, *answer])
        own[row, len(prompt) : lengths[row]] = True
    return tokens, own


def answer_logits(model: LanguageModel, tokens: Tensor, own: Tensor) -> Tensor:
    """Logits of the answers' tokens in the order of ``tokens[own]``: [answer tokens, vocabulary]."""
    hidden = model(tokens[:, :-1])
    logits: Tensor = model.out(hidden[own[:, 1:]])
    return logits


def log_probs(model: LanguageModel, tokens: Tensor, own: Tensor) -> Tensor:
    """Log-probability of each answer token, in the order of ``tokens[own]``."""
    distribution = functional.log_softmax(answer_logits(model, tokens, own), -1)
    return distribution.gather(1, tokens[own][:, None])[:, 0]
