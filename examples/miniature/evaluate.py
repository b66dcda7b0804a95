"""One checkpoint on questions that no training ever saw: several answers each at temperature 1.

Scores are kept per question (sums over its draws), so that intervals can resample questions and arms can be paired by
question. HWE tokens are counted against one threshold for all arms, that of the starting checkpoint: a threshold of
each checkpoint's own entropies would move with what it measures.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch

from ares_train.aepo.config import WindowConfig
from ares_train.aepo.entropy import tau_high
from ares_train.aepo.rollouts import Rollouts, rollouts
from ares_train.aepo.windows import flags
from examples.miniature.model import LanguageModel
from examples.miniature.sample import Answers, sample
from examples.miniature.task import Question, Split, Task, is_right, questions

EVALUATION_SEED = 20_251
MEASURES = ("right", "tokens", "hwe", "useful", "rechecks", "verified", "truncated")


@dataclass(frozen=True)
class EvaluationSettings:
    """``split``: "tune" while settings are chosen, "test" once they are frozen."""

    split: Split
    questions: int = 512
    draws: int = 4


@dataclass(frozen=True)
class Scores:
    """Per question of the split, in order: true ``level`` and, for each of MEASURES, the sum over its ``draws``."""

    draws: int
    level: list[int]
    sums: dict[str, list[int]]
    entropy: float
    """Mean over all tokens, in nats."""


def answers_of(model: LanguageModel, task: Task, settings: EvaluationSettings) -> tuple[list[Question], Answers]:
    """The split's questions and ``draws`` answers to each, draws of a question next to one another."""
    asked = questions(task, random.Random(EVALUATION_SEED), settings.questions, settings.split)
    generator = torch.Generator().manual_seed(EVALUATION_SEED)
    prompts = [question.prompt for question in asked for _ in range(settings.draws)]
    return asked, sample(model, prompts, task.answer_length, generator)


def measured(asked: list[Question], answers: Answers) -> Rollouts:
    """The answers as `ares_train.aepo` sees rollouts."""
    draws = len(answers.tokens) // len(asked)
    owner = np.repeat(np.arange(len(asked)), draws)
    right = [is_right(answer, asked[index]) for answer, index in zip(answers.tokens, owner, strict=True)]
    return rollouts(answers.entropy.numpy(), answers.mask.numpy(), np.array(right), owner)


def starting_tau(model: LanguageModel, task: Task, settings: EvaluationSettings, window: WindowConfig) -> float:
    """tau_high in nats of ``model``'s answers to the split's questions."""
    return tau_high(measured(*answers_of(model, task, settings)), window)


def evaluate(
    model: LanguageModel, task: Task, settings: EvaluationSettings, tau: float, window: WindowConfig
) -> Scores:
    """Scores of ``model``; ``tau`` in nats is the starting checkpoint's."""
    asked, answers = answers_of(model, task, settings)
    seen = measured(asked, answers)
    hwe = flags(seen, tau, window).n_he
    rows = []
    for row, answer in enumerate(answers.tokens):
        did = task.behaviour(answer)
        rows.append(
            (seen.correct[row], len(answer), hwe[row], did.useful, did.rechecks, did.verified, answers.truncated[row])
        )
    sums = np.array(rows, dtype=np.int64).reshape(len(asked), settings.draws, len(MEASURES)).sum(1)
    return Scores(
        settings.draws,
        [question.level for question in asked],
        {name: sums[:, index].tolist() for index, name in enumerate(MEASURES)},
        float(answers.entropy.sum() / answers.mask.sum()),
    )
