"""Tokens of the miniature tasks: states, operators (each a fixed permutation of the states) and words of thought.

A word of thought carries no information about the answer. Which one of its class comes next is drawn evenly, so that a
reflection ("wait check") is two tokens of log(4) = 1.39 nats each: a stretch of sustained entropy, as in reasoning.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

PAD, BEGIN, EQUALS, ANSWER, END = range(5)

HEDGES = ("hmm", "so", "now", "well", "ok")
REFLECTIONS = ("wait", "but", "however", "alternatively")
VERBS = ("check", "verify", "redo", "test")
METHODS = ("slow", "mixed", "fast")
VERDICTS = ("SAME", "DIFF")

TABLE_SEED = 7
"""The operators are part of the tasks' definition: the same in every run."""


@dataclass(frozen=True)
class Vocabulary:
    """``states`` + ``operators`` + words, numbered from 5. ``table[operator][state]`` is the state that follows."""

    states: int
    operators: int
    table: tuple[tuple[int, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rng = random.Random(TABLE_SEED)
        rows = tuple(tuple(rng.sample(range(self.states), self.states)) for _ in range(self.operators))
        object.__setattr__(self, "table", rows)

    def state(self, state: int) -> int:
        return 5 + state

    def operator(self, operator: int) -> int:
        return 5 + self.states + operator

    def words(self, words: tuple[str, ...]) -> range:
        """Token numbers of one of the classes above."""
        start = 5 + self.states + self.operators
        for known in (HEDGES, REFLECTIONS, VERBS, METHODS, VERDICTS):
            if known == words:
                return range(start, start + len(words))
            start += len(known)
        raise ValueError(f"no such class of words: {words}")

    @property
    def same(self) -> int:
        return self.words(VERDICTS)[0]

    @property
    def diff(self) -> int:
        return self.words(VERDICTS)[1]

    @property
    def size(self) -> int:
        return self.words(VERDICTS).stop

    @property
    def triggers(self) -> frozenset[int]:
        """Tokens that open or carry a reflection or a hesitation: the tasks' trigger words."""
        return frozenset((*self.words(HEDGES), *self.words(REFLECTIONS), *self.words(VERBS)))
