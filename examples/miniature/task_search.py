"""*search*: find the candidate that a chain of operators takes to the target. More thinking helps when it is hard.

Prompt: target state, C candidate states, k operators; exactly one candidate ends at the target. An answer tries
candidates in any order (candidate, then operator and resulting state k times, then SAME or DIFF), with a reflection
between trials, may give up with a guess at any time, and may try a candidate again after it has hit (a useless
re-check). Levels differ in C and k.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from examples.miniature.task import Behaviour, Question
from examples.miniature.vocabulary import ANSWER, BEGIN, END, EQUALS, HEDGES, REFLECTIONS, VERBS, Vocabulary

CANDIDATES = ((1, 2), (3, 4), (5, 6), (9, 12))
CHAIN = (1, 1, 2, 3)
"""Number of candidates (from, to) and of operators, by level."""

UNTRIED = 0.15
"""Share of the teacher's answers that guess at once."""


class Search:
    """See the head of this file. Longest answer: 12 trials of 8 tokens with reflections of 2, and hesitations."""

    name = "search"
    vocabulary = Vocabulary(states=16, operators=20)
    prompt_length = 1 + 1 + CANDIDATES[-1][1] + CHAIN[-1] + 1
    answer_length = 144

    def question(self, rng: random.Random, level: int) -> Question:
        words = self.vocabulary
        candidates = rng.sample(range(words.states), rng.randint(*CANDIDATES[level]))
        operators = rng.sample(range(words.operators), CHAIN[level])
        hit = rng.choice(candidates)
        target = hit
        for operator in operators:
            target = words.table[operator][target]
        prompt = (
            BEGIN,
            words.state(target),
            *map(words.state, candidates),
            *map(words.operator, operators),
            EQUALS,
        )
        return Question(level, prompt, words.state(hit))

    def trace(self, rng: random.Random, question: Question) -> list[int]:
        """An answer that fits; hesitation, re-checks of a hit and giving up are drawn per answer, not by level."""
        while True:
            answer = self._attempt(rng, question)
            if len(answer) <= self.answer_length:
                return answer

    def _attempt(self, rng: random.Random, question: Question) -> list[int]:
        words = self.vocabulary
        chain = CHAIN[question.level]
        candidates, operators = question.prompt[2 : -1 - chain], question.prompt[-1 - chain : -1]
        order = rng.sample(candidates, len(candidates))
        verbosity, give_up = rng.random(), rng.uniform(0.05, 0.6)
        hesitate, recheck = 0.25 * verbosity, 0.1 + 0.6 * verbosity
        out: list[int] = []

        def hesitation() -> None:
            while rng.random() < hesitate:
                out.append(rng.choice(words.words(HEDGES)))

        def reflection() -> None:
            out.extend((rng.choice(words.words(REFLECTIONS)), rng.choice(words.words(VERBS))))
            hesitation()

        def trial(candidate: int) -> bool:
            out.append(candidate)
            state = candidate
            for operator in operators:
                state = words.state(words.table[operator - words.operator(0)][state - words.state(0)])
                out.extend((operator, state))
            hit = state == question.prompt[1]
            out.append(words.same if hit else words.diff)
            return hit

        if rng.random() < UNTRIED:
            return [ANSWER, order[0], END]
        hesitation()
        given = order[0]
        for index, candidate in enumerate(order):
            given = candidate
            if trial(candidate):
                while rng.random() < recheck:
                    reflection()
                    trial(candidate)
                break
            if index + 1 < len(order) and rng.random() < give_up:
                given = order[index + 1]
                break
            reflection()
        return [*out, ANSWER, given, END]

    def behaviour(self, answer: Sequence[int]) -> Behaviour:
        """useful: trials up to and with the first hit; rechecks: those after it; verified: the answer given has hit."""
        words = self.vocabulary
        states = range(words.state(0), words.operator(0))
        useful = rechecks = 0
        hits: set[int] = set()
        candidate: int | None = None
        for token in answer:
            if candidate is None and token in states:
                candidate = token
            elif candidate is not None and token in (words.same, words.diff):
                if hits:
                    rechecks += 1
                else:
                    useful += 1
                if token == words.same:
                    hits.add(candidate)
                candidate = None
        whole = len(answer) >= 3 and answer[-1] == END and answer[-3] == ANSWER
        return Behaviour(useful, rechecks, whole and answer[-2] in hits)
