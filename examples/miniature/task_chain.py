"""*chain*: follow N operators from a start state. One careful pass settles it; any further thinking is useless.

The method word announces the stride: slow writes every operator, mixed one or two at a time, fast two or three; what is
skipped is done in the head, mostly wrongly. After a pass the answer may re-check (reflection, a whole new pass, SAME or
DIFF with the result before). The teacher's wrong answers are dropped, so re-checks go with right answers in the SFT
data (they repair skipped steps): the seed of overthinking. Levels differ in N.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from examples.miniature.task import Behaviour, Question
from examples.miniature.vocabulary import ANSWER, BEGIN, END, EQUALS, HEDGES, METHODS, REFLECTIONS, VERBS, Vocabulary

OPERATORS = ((1, 2), (3, 4), (5, 7), (8, 10))
"""Number of operators (from, to) by level."""

STRIDES = ((1,), (1, 2), (2, 3))
SLIPS = {1: 0.01, 2: 0.12, 3: 0.35}
"""Strides of the three methods, and how often the teacher is wrong about a step of that stride."""

PASSES = 5
"""At most one pass and four re-checks."""


class Chain:
    """See the head of this file."""

    name = "chain"
    vocabulary = Vocabulary(states=10, operators=30)
    prompt_length = 1 + 1 + OPERATORS[-1][1] + 1
    answer_length = 80

    def question(self, rng: random.Random, level: int) -> Question:
        words = self.vocabulary
        state = start = rng.randrange(words.states)
        operators = rng.sample(range(words.operators), rng.randint(*OPERATORS[level]))
        for operator in operators:
            state = words.table[operator][state]
        prompt = (BEGIN, words.state(start), *map(words.operator, operators), EQUALS)
        return Question(level, prompt, words.state(state))

    def trace(self, rng: random.Random, question: Question) -> list[int]:
        """A right answer that fits; methods, hesitations and re-checks are drawn per answer, whatever the level."""
        while True:
            answer, right = self._attempt(rng, question)
            if right and len(answer) <= self.answer_length:
                return answer

    def _attempt(self, rng: random.Random, question: Question) -> tuple[list[int], bool]:
        words = self.vocabulary
        verbosity = rng.random()
        recheck = 0.15 + 0.75 * verbosity
        out, result = self._pass(rng, question, rng.randrange(3), 0.3 * verbosity)
        for done in range(PASSES - 1):
            if rng.random() > recheck * (1 if done == 0 else 0.6):
                break
            again, other = self._pass(rng, question, rng.choices(range(3), (2, 1, 1))[0], 0.3 * verbosity)
            verdict = words.same if other == result else words.diff
            out += [rng.choice(words.words(REFLECTIONS)), rng.choice(words.words(VERBS)), *again, verdict]
            result = other
        return [*out, ANSWER, result, END], result == question.answer

    def _pass(self, rng: random.Random, question: Question, method: int, hesitate: float) -> tuple[list[int], int]:
        words = self.vocabulary
        operators = question.prompt[2:-1]
        out, state, done = [words.words(METHODS)[method]], question.prompt[1], 0
        while done < len(operators):
            stride = min(rng.choice(STRIDES[method]), len(operators) - done)
            while rng.random() < hesitate:
                out.append(rng.choice(words.words(HEDGES)))
            for operator in operators[done : done + stride]:
                state = words.state(words.table[operator - words.operator(0)][state - words.state(0)])
            if rng.random() < SLIPS[stride]:
                state = words.state(rng.randrange(words.states))
            done += stride
            out += [operators[done - 1], state]
        return out, state

    def behaviour(self, answer: Sequence[int]) -> Behaviour:
        """useful: steps written in the first pass; rechecks: passes after it; verified: some pass was slow."""
        words = self.vocabulary
        methods = words.words(METHODS)
        operators = range(words.operator(0), words.operator(0) + words.operators)
        passes = useful = 0
        slow = False
        for token in answer:
            if token in methods:
                passes += 1
                slow |= token == methods[0]
            elif passes <= 1 and token in operators:
                useful += 1
        return Behaviour(useful, max(0, passes - 1), slow)
