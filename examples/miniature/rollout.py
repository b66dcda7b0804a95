"""One step's rollouts: base answers to each question, then forks at their uncertain windows, as AEPO plans them.

Gives both what the policy update needs (token lists, log-probabilities) and `ares_train.aepo`'s view of the same batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ares_train.aepo.branching import plan_branches, top_up
from ares_train.aepo.config import AEPOConfig
from ares_train.aepo.entropy import group_tau, rollout_quantile
from ares_train.aepo.rollouts import Rollouts, rollouts
from ares_train.aepo.state import AEPOState
from examples.miniature.model import LanguageModel
from examples.miniature.sample import Answers, sample
from examples.miniature.task import Question, Task, is_right


@dataclass(frozen=True)
class Batch:
    """B rows: all base answers, question by question, then forks and the fresh answers that fill the budget."""

    asked: list[Question]
    tokens: list[list[int]]
    log_prob: np.ndarray
    rollouts: Rollouts


def roll(
    model: LanguageModel,
    task: Task,
    asked: Sequence[Question],
    per_question: int,
    config: AEPOConfig,
    state: AEPOState,
    generator: torch.Generator,
) -> Batch:
    """``per_question`` answers to each question (with ``branch.mode=extra``: and the forks on top)."""
    base_count = config.branch.n_base or per_question
    owner = np.repeat(np.arange(len(asked)), base_count)
    base = sample(model, [asked[int(index)].prompt for index in owner], task.answer_length, generator)
    parts = [base]
    parents = [np.full(len(owner), -1)]
    starts = [np.zeros(len(owner), dtype=np.int64)]
    owners = [owner]
    if config.branch.mode != "off":
        forked = forks(base, len(asked), base_count, task, config, state)
        if forked:
            more_owner, parent, start = (np.array(column) for column in zip(*forked, strict=True))
            prefixes = [base.tokens[row][:position] if row >= 0 else [] for _, row, position in forked]
            prompts = [asked[index].prompt for index in more_owner]
            parts.append(sample(model, prompts, task.answer_length, generator, prefixes))
            owners.append(more_owner)
            parents.append(parent)
            starts.append(start)
    question = np.concatenate(owners)
    tokens = [answer for part in parts for answer in part.tokens]
    mask = padded([part.mask for part in parts])
    right = [is_right(answer, asked[index]) for answer, index in zip(tokens, question, strict=True)]
    made = rollouts(
        padded([part.entropy for part in parts]),
        mask,
        np.array(right),
        question,
        parent=np.concatenate(parents),
        fork_at=np.concatenate(starts),
        truncated=np.concatenate([part.truncated.numpy() for part in parts]),
        trigger=triggers(tokens, mask.shape, task),
        rollout_quantile=quantiles(parts, config),
    )
    return Batch([asked[int(index)] for index in question], tokens, padded([part.log_prob for part in parts]), made)


def forks(
    base: Answers,
    questions: int,
    base_count: int,
    task: Task,
    config: AEPOConfig,
    state: AEPOState,
) -> list[tuple[int, int, int]]:
    """(question, row of the parent or -1, position) of each further answer; with a budget, fresh ones fill it."""
    entropies = base.entropy.numpy()
    lengths = base.lengths.numpy()
    truncated = base.truncated.numpy()
    more: list[tuple[int, int, int]] = []
    for index in range(questions):
        rows = range(index * base_count, (index + 1) * base_count)
        measured = [entropies[row, : lengths[row]] for row in rows]
        plans = plan_branches(
            measured,
            group_tau(measured, config.window) if state.tau_rollout is None else state.tau_rollout,
            config.branch,
            config.window,
            task.answer_length,
            [bool(truncated[row]) for row in rows],
        ).plans
        more += [(index, rows[plan.parent], plan.position) for plan in plans]
        more += [(index, -1, 0)] * top_up(base_count, len(plans), config.branch)
    return more


def quantiles(parts: Sequence[Answers], config: AEPOConfig) -> np.ndarray:
    """Each answer's own quantile of its entropies, f64[B]; from them comes the threshold that later steps fork at."""
    found = []
    for part in parts:
        for entropy, length in zip(part.entropy.numpy(), part.lengths.tolist(), strict=True):
            found.append(rollout_quantile(entropy[:length], config.window))
    return np.array(found)


def padded(parts: list[torch.Tensor]) -> np.ndarray:
    """Batches of rows as one array, padded on the right with zeros."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part.numpy(), ((0, 0), (0, width - part.shape[1]))) for part in parts])


def triggers(tokens: Sequence[Sequence[int]], shape: tuple[int, ...], task: Task) -> np.ndarray:
    """Where a word of thought stands, bool[B, T]."""
    words = task.vocabulary.triggers
    found = np.zeros(shape, dtype=bool)
    for row, answer in enumerate(tokens):
        found[row, : len(answer)] = [token in words for token in answer]
    return found
