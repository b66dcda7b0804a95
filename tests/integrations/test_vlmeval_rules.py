"""The judge without a model: answers in the form that VLMEvalKit's scorers read, or none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ares_eval.integrations.vlmeval_process import Question
from ares_eval.integrations.vlmeval_rules import answer
from ares_eval.verify import Verifier

MATCH = "match an answer with several options of a single-choice question. ..."
EXTRACT = "extract the answer from the model response and type it at the end of the prompt."
VERSE = "You should extract the answer from the response as 'Extracted Answer'."
SCORE = "[Standard Answer] is the standard answer to the question ... Judgement:"
LETTERS = "You are a information extractor that extracts multiple choice letter answer choices"
SHORT = "Free-form answer: x\nInstruction: y"
YES_NO = "The options are only Yes / No."
GRADE = 'Reply as JSON with "extract_answer" and "score".'
OPTIONS = {"A": "red", "B": "green", "C": "blue", "D": None}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(1) as made:
        yield made


@pytest.mark.parametrize(
    ("prompt", "row", "reply"),
    [
        # Replies of reasoning models in which VLMEvalKit's own finder sees no letter.
        (MATCH, OPTIONS | {"prediction": "so A is wrong and hence \\boxed{B}"}, "B"),
        (MATCH, OPTIONS | {"prediction": "A and C fall out.\n**Answer: B**"}, "B"),
        (MATCH, OPTIONS | {"prediction": "First I look. " * 40 + "Thus the answer is (C)."}, "C"),
        (MATCH, OPTIONS | {"prediction": "I cannot say."}, None),
        (MATCH, OPTIONS | {"prediction": "<think>B, surely"}, None),
        (EXTRACT, {"choices": "['red', 'blue']", "prediction": "It must be \\boxed{blue}."}, "B"),
        (EXTRACT, {"choices": "[]", "answer_type": "integer", "prediction": "Adding up, \\boxed{1{,}400}"}, "1400"),
        (EXTRACT, {"choices": "[]", "answer_type": "float", "prediction": "The answer is 2.50 cm"}, "2.5"),
        (EXTRACT, {"choices": "[]", "answer_type": "integer", "prediction": "no idea"}, None),
        (EXTRACT, {"choices": "__import__('os')", "prediction": "The answer is \\boxed{7}."}, "7"),
        (VERSE, {"prediction": "Hence, Answer: 2x+1"}, "2x+1"),
        (SCORE, {"extract": "0.5 m", "answer": "0.5"}, "1"),
        (SCORE, {"extract": "\\frac{2}{4}", "answer": "1/2"}, "1"),
        (SCORE, {"extract": "3", "answer": "4"}, "0"),
        (LETTERS, {"prediction": "\\boxed{B, D}"}, "BD"),
        (LETTERS, {"prediction": "The answer is C."}, "C"),
        (SHORT, {"answer_type": "float", "prediction": "The answer is 22/7."}, "3.143"),
        (SHORT, {"answer_type": "multiple choice", "prediction": "The answer is (D)."}, "D"),
        (YES_NO, {"prediction": "The answer is no."}, "No"),
        (YES_NO, {"prediction": "\\boxed{Yes}"}, "Yes"),
        ("Rate the caption from 1 to 10.", {"prediction": "8"}, None),
    ],
)
def test_replies(verifier: Verifier, prompt: str, row: dict[str, Any], reply: str | None) -> None:
    assert answer(Question(prompt, row=row), verifier) == reply


def test_grading(verifier: Verifier) -> None:
    right = answer(Question(GRADE, row={"answer": "12", "prediction": "The answer is 12.0"}), verifier)
    assert right is not None and json.loads(right)["score"] == 1
    wrong = answer(Question(GRADE, row={"answer": "12", "prediction": "The answer is 13"}), verifier)
    assert wrong is not None and json.loads(wrong)["score"] == 0
    assert answer(Question(GRADE, row={"answer": "", "prediction": "13"}), verifier) is None
