"""The starting checkpoint: supervised fine-tuning (here: from scratch) on the teacher's answers.

The data's verbosity does not depend on the difficulty, and answers that give up stay in, so that the policy that RL
starts from neither adapts its thinking nor explores enough on hard questions. Every batch is drawn afresh: no answer is
seen twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from examples.miniature.model import LanguageModel, answer_logits, pack
from examples.miniature.task import LEVELS, Task, draw

WARM_UP = 100


@dataclass(frozen=True)
class SFTSettings:
    """``hold``: share of the steps at the full rate before it falls linearly to a twentieth."""

    steps: int = 1600
    batch: int = 64
    learning_rate: float = 3e-3
    hold: float = 0.5
    seed: int = 0


MICRO_BATCHES = 4
"""Rows of a batch are sorted by length and run in this many parts: less padding, the same gradient."""


def new_model(task: Task) -> LanguageModel:
    return LanguageModel(task.vocabulary.size, task.prompt_length + task.answer_length)


def train(
    task: Task, settings: SFTSettings, progress: Callable[[int, float], None] = lambda _step, _loss: None
) -> LanguageModel:
    """A trained model. ``progress`` is told the step and the mean loss in nats per answer token."""
    torch.manual_seed(settings.seed)
    rng = random.Random(settings.seed)
    model = new_model(task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    for step in range(1, settings.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate(step, settings)
        asked = [draw(task, rng, rng.randrange(LEVELS), "train") for _ in range(settings.batch)]
        pairs = sorted(
            ((question.prompt, task.trace(rng, question)) for question in asked), key=lambda p: sum(map(len, p))
        )
        total = sum(len(answer) for _, answer in pairs)
        optimizer.zero_grad()
        loss = 0.0
        size = -(-len(pairs) // MICRO_BATCHES)
        for start in range(0, len(pairs), size):
            tokens, own = pack(*zip(*pairs[start : start + size], strict=True))
            part = functional.cross_entropy(answer_logits(model, tokens, own), tokens[own], reduction="sum") / total
            part.backward()
            loss += float(part.detach())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress(step, loss)
    return model


def rate(step: int, settings: SFTSettings) -> float:
    """The learning rate's factor: linear warm-up, a plateau, linear decay to 0.05."""
    held = settings.hold * settings.steps
    decay = 1.0 if step <= held else max(0.05, (settings.steps - step) / (settings.steps - held))
    return min(1.0, step / WARM_UP) * decay
