"""One run of reinforcement learning: GRPO's loop, with rewards, advantages and KL weights from `ares_train.aepo`.

Each step: questions of the training split (the same for every arm of a seed), rollouts, `shape`, one pass over the rows
in mini-batches with PPO's clipped ratio (clip-higher), the loss a mean over the tokens of the mini-batch. The KL
term is k3 against the starting checkpoint, weighted per token by AEPO.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ares_train.aepo.config import AEPOConfig
from ares_train.aepo.state import AEPOState
from ares_train.aepo.step import Shaped, shape
from examples.miniature.model import LanguageModel, log_probs, pack
from examples.miniature.rollout import Batch, roll
from examples.miniature.sft import new_model
from examples.miniature.task import LEVELS, Task, draw

RATIO_LOW, RATIO_HIGH = 0.8, 1.3
MICRO_ROWS = 32
"""Rows of similar length that run together: small enough for little padding, large enough for the matrix product."""


@dataclass(frozen=True)
class RLSettings:
    """Chosen on GRPO alone and the same for every arm."""

    steps: int = 24
    questions: int = 24
    rollouts: int = 8
    learning_rate: float = 3e-4
    minibatches: int = 4
    kl_coefficient: float = 0.01
    """Of the arms whose AEPOConfig has a KL term; the others have none."""


Weights = dict[str, Tensor]
Log = list[dict[str, Any]]


def train(
    task: Task,
    start: Weights,
    config: AEPOConfig,
    settings: RLSettings,
    seed: int,
    progress: Callable[[dict[str, Any]], None] = lambda _record: None,
) -> tuple[LanguageModel, Log]:
    """The trained model and one record per step. ``progress`` is given each record as it is made."""
    rng = random.Random(f"questions {seed}")
    generator = torch.Generator().manual_seed(seed)
    model, reference = new_model(task), new_model(task)
    model.load_state_dict(start)
    reference.load_state_dict(start)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0, betas=(0.9, 0.98))
    state = AEPOState()
    log: Log = []
    for step in range(1, settings.steps + 1):
        asked = [draw(task, rng, index % LEVELS, "train") for index in range(settings.questions)]
        batch = roll(model, task, asked, settings.rollouts, config, state, generator)
        shaped = shape(batch.rollouts, state, config)
        coefficient = 0.0 if config.kl.mode == "off" else settings.kl_coefficient
        divergence = update(model, reference, optimizer, batch, shaped, coefficient, settings.minibatches, generator)
        state = shaped.state
        log.append(record(step, task, batch, shaped, divergence))
        progress(log[-1])
    return model, log


def update(
    model: LanguageModel,
    reference: LanguageModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    shaped: Shaped,
    coefficient: float,
    minibatches: int,
    generator: torch.Generator,
) -> float:
    """One pass over the rows that are kept; the mean KL (k3, nats per token), 0 where there is no KL term.

    Rows of zero advantage have a zero gradient without a KL term: they count as tokens, but need no pass.
    """
    kept = torch.from_numpy(np.flatnonzero(shaped.keep))
    own = torch.from_numpy(batch.rollouts.own)
    lengths = torch.tensor([len(answer) for answer in batch.tokens])
    moves = torch.from_numpy(shaped.advantage != 0)
    total_divergence = 0.0
    for rows in kept[torch.randperm(len(kept), generator=generator)].chunk(minibatches):
        count = int(own[rows].sum())
        active = rows if coefficient > 0 else rows[moves[rows]]
        optimizer.zero_grad(set_to_none=False)
        for part in active[lengths[active].argsort()].split(MICRO_ROWS) if len(active) else ():
            loss, divergence = part_loss(model, reference, batch, shaped, part, coefficient)
            (loss / count).backward()
            total_divergence += divergence / count / minibatches
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return total_divergence


def part_loss(
    model: LanguageModel,
    reference: LanguageModel,
    batch: Batch,
    shaped: Shaped,
    rows: Tensor,
    coefficient: float,
) -> tuple[Tensor, float]:
    """Sums over the rows' own tokens: of clipped policy loss and weighted KL together, and of the unweighted KL."""
    index = rows.tolist()
    tokens, generated = pack([batch.asked[row].prompt for row in index], [batch.tokens[row] for row in index])
    width = max(len(batch.tokens[row]) for row in index)
    present = torch.from_numpy(batch.rollouts.mask[index, :width])
    own = torch.from_numpy(batch.rollouts.own[index, :width])[present]
    new = log_probs(model, tokens, generated)[own]
    old = torch.from_numpy(batch.log_prob[index, :width])[present][own]
    advantage = torch.from_numpy(shaped.advantage[index]).float()[:, None].expand(-1, width)[present][own]
    ratio = (new - old).exp()
    loss = -torch.minimum(ratio * advantage, ratio.clamp(RATIO_LOW, RATIO_HIGH) * advantage).sum()
    if coefficient == 0:
        return loss, 0.0
    with torch.inference_mode():
        anchor = log_probs(reference, tokens, generated)[own]
    gap = anchor.clone() - new
    divergence = (gap.exp() - gap - 1).clamp(max=10)
    weight = torch.from_numpy(shaped.kl_weight[index, :width])[present][own]
    return loss + coefficient * (divergence * weight).sum(), float(divergence.detach().sum())


def record(step: int, task: Task, batch: Batch, shaped: Shaped, divergence: float) -> dict[str, Any]:
    """What a step shows: per true level (base answers only) and per AEPO bin, and how the shaping acted."""
    rollouts = batch.rollouts
    level = np.array([question.level for question in batch.asked])
    tokens = rollouts.mask.sum(1)
    rechecks = np.array([task.behaviour(answer).rechecks for answer in batch.tokens])
    right = rollouts.correct > 0
    penalised = shaped.penalty > 0

    def by_level(values: np.ndarray) -> list[float]:
        return [rounded(values[rollouts.base & (level == each)].mean()) for each in range(LEVELS)]

    spread = [np.ptp(shaped.reward[rollouts.question == each]) for each in np.unique(rollouts.question)]
    out: dict[str, Any] = {
        "step": step,
        "right": by_level(rollouts.correct),
        "tokens": by_level(tokens),
        "hwe": by_level(shaped.n_he),
        "rechecks": by_level(rechecks),
        "entropy": rounded(rollouts.entropy.sum() / rollouts.mask.sum()),
        "tau": rounded(shaped.tau),
        "flagged": rounded(shaped.flagged.sum() / rollouts.mask.sum()),
        "bins": [rounded((shaped.bins == each).mean()) for each in range(3)],
        "lambda": [rounded(value) for value in shaped.lambdas],
        "penalised_right": rounded((penalised & right).mean()),
        "penalised_wrong": rounded((penalised & ~right).mean()),
        "flat_groups": rounded(np.mean(np.array(spread) < 1e-6)),
        "kl": rounded(divergence),
    }
    forked = rollouts.parent >= 0
    if forked.any():
        out["forks"] = rounded(forked.sum() / len(np.unique(rollouts.question)))
        out["prefix"] = rounded(1 - rollouts.own.sum() / rollouts.mask.sum())
        out["fork_advantage"] = rounded(rollouts.correct[forked].mean() - rollouts.correct[rollouts.base].mean())
    return out


def rounded(value: float | np.floating[Any]) -> float:
    """Three significant digits: enough for a plot, small in a file."""
    return float(f"{float(value):.3g}")
