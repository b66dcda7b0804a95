"""What a miniature task offers to the loop: questions by level, teacher's answers for SFT, and what an answer did.

True levels 1 to 4 (written 0 to 3 here) are known by construction. The training arms never see them: AEPO's bins come
from the accuracy of the rollouts, as they must with real questions.

A question belongs to one split by the hash of its prompt: four fifths to training (SFT and RL), a tenth to tuning, a
tenth to the final evaluation. No question of one split is ever drawn for another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from examples.miniature.vocabulary import ANSWER, END, Vocabulary

LEVELS = 4
Split = Literal["train", "tune", "test"]


@dataclass(frozen=True)
class Question:
    """``prompt``: token numbers, at most the task's ``prompt_length``. ``answer``: the token that is right."""

    level: int
    prompt: tuple[int, ...]
    answer: int

    @property
    def split(self) -> Split:
        tenth = hashlib.sha256(bytes(self.prompt)).digest()[0] * 10 // 256
        return "test" if tenth == 0 else "tune" if tenth == 1 else "train"


@dataclass(frozen=True)
class Behaviour:
    """What an answer did, counted exactly: ``useful`` units of work, ``rechecks`` of what was known already (useless),
    and whether the final answer was ``verified``, that is, rests on work that settles it."""

    useful: int
    rechecks: int
    verified: bool


class Task(Protocol):
    """A task. ``trace`` is a teacher's answer, of a verbosity that does not depend on the difficulty."""

    name: str
    vocabulary: Vocabulary
    prompt_length: int
    answer_length: int

    def question(self, rng: random.Random, level: int) -> Question: ...

    def trace(self, rng: random.Random, question: Question) -> list[int]: ...

    def behaviour(self, answer: Sequence[int]) -> Behaviour: ...


def draw(task: Task, rng: random.Random, level: int, split: Split) -> Question:
    """A question of that level and split."""
    while True:
        question = task.question(rng, level)
        if question.split == split:
            return question


def questions(task: Task, rng: random.Random, count: int, split: Split) -> list[Question]:
    """``count`` different questions of a split, the levels in turn, so that each has its quarter."""
    found: dict[tuple[int, ...], Question] = {}
    while len(found) < count:
        question = draw(task, rng, len(found) % LEVELS, split)
        found.setdefault(question.prompt, question)
    return list(found.values())


def is_right(answer: Sequence[int], question: Question) -> bool:
    """Whether a whole answer (token numbers, generated part, no padding) ends in ANSWER, the right state, END."""
    return len(answer) >= 3 and answer[-1] == END and answer[-3] == ANSWER and answer[-2] == question.answer
