"""Multiple choice: letters, texts and values, and what must not be taken for them."""

from __future__ import annotations

import pytest

from ares_eval.types import AnswerSpec
from ares_eval.verify.judgement import judge

PETS = ("cat", "dog", "horse", "cow")
SIZES = ("3", "4.5", "6", "12")
RIGHT, WRONG, OPEN = "correct", "incorrect", "unverifiable"


def judged(
    response: str, expected: str, choices: tuple[str, ...], question: str | None = None, **policy: object
) -> str:
    return judge(response, (expected,), AnswerSpec("choice", policy, choices), question).verdict().value


CASES = [
    ("B", "B", PETS, RIGHT),
    ("(b)", "B", PETS, RIGHT),
    # a label with its option in full; the value at the end
    ("It has fur.\nOption letter: B", "B", PETS, RIGHT),
    ("Two visitors came.\nA. liked fish\nB. liked bones\n\nThis one fetches sticks:\n\nB. dog", "B", PETS, RIGHT),
    ("Given that the first is 3 and the second 12, the third must be 6.", "C", SIZES, RIGHT),
    # the only letter of a closing sentence, where options are pictures
    ("The new bench stands in region B.", "B", ("A", "B", "C"), RIGHT),
    ("Wheel C turns fastest of all.", "B", (), WRONG),
    ("A bench stands in region C.", "C", ("A", "B", "C"), RIGHT),
    ("A bench can be built from it.", "A", (), OPEN),
    ("Wheel A turns faster than wheel B.", "A", (), OPEN),
    ("**B**", "B", PETS, RIGHT),
    ("B. dog", "B", PETS, RIGHT),
    (r"$\boxed{\text{(B)}}$", "B", PETS, RIGHT),
    (r"\boxed{\textbf{(B)}\ 4.5}", "B", SIZES, RIGHT),
    ("Answer: $B$", "B", PETS, RIGHT),
    ("选 B", "B", PETS, RIGHT),
    ("故选：B．", "B", PETS, RIGHT),
    ('{"answer": "B"}', "B", PETS, RIGHT),
    ("dog", "B", PETS, RIGHT),
    ("It is a dog.", "B", PETS, RIGHT),
    (r"\boxed{\frac{9}{2}}", "B", SIZES, RIGHT),
    ("12.0", "D", SIZES, RIGHT),
    ("The answer is 412", "D", SIZES, WRONG),
    ("I think A is wrong and hence \\boxed{B}", "B", PETS, RIGHT),
    ("The correct answer is C because A and B are wrong.", "C", PETS, RIGHT),
    ("Thus, choice C is correct. (Choices A and B are distractors.)", "C", PETS, RIGHT),
    ("<think>A? C?</think> Answer: B", "B", PETS, RIGHT),
    ("<think>The answer is B", "B", PETS, WRONG),
    ("A horse has four legs, so the answer is C.", "A", PETS, WRONG),
    ("It is not a cat, it is a dog.", "B", PETS, RIGHT),
    ("A or B", "A", PETS, WRONG),
    ("A B C D", "A", PETS, WRONG),
    ("ABCD", "A", PETS, WRONG),
    ("The answer is not A.", "A", PETS, WRONG),
    ("(C) dog", "C", PETS, RIGHT),
    (r"\boxed{7}", "A", SIZES, WRONG),
    ("I'm sorry, I can't tell from the picture.", "A", PETS, WRONG),
    ("They have fur and like to run about in the open.", "A", PETS, OPEN),
    ("the answer is catfish", "A", ("cat", "catfish"), WRONG),
    (r"\boxed{A. B}", "A", ("B", "A", "C"), RIGHT),
    ("False.", "B", (), RIGHT),
    ("False.", "A", (), WRONG),
    # letters in LaTeX of every kind
    (r"Answer: \( B \)", "B", SIZES, RIGHT),
    (r"Answer: \(B\)", "B", SIZES, RIGHT),
    (r"Answer: $\text{D}$", "D", SIZES, RIGHT),
    (r"Answer: \(\textbf{C}\)", "C", SIZES, RIGHT),
    ("So\n\\[\n\\text{Answer: C}\n\\]", "C", SIZES, RIGHT),
    # a Markdown heading is no answer
    ("#### D. Weigh the pets\nThe second one is heavier.\n\nAnswer: B", "B", PETS, RIGHT),
    ("They bark.\n#### B", "B", PETS, RIGHT),
    # the pronoun is neither a letter nor a numeral
    ("I'm sorry, I can't help with that.", "B", ("II", "I", "IV"), WRONG),
    ("I am sorry, but I cannot assist with this picture.", "A", ("Type I fuse", "Type II fuse"), WRONG),
    # none of the options, or a letter that no option has
    ("Both are dull, so the answer is (none of the above).", "A", ("dull (A) thing", "shiny"), WRONG),
    ("The answer is (G) parrot.", "A", PETS, WRONG),
    # a list of options is no answer; what is said before it is
    ("The answer is (D).\n\nTo summarise, all the answers:\nA. 17\nC. a bird\nD. cow", "D", PETS, RIGHT),
    ("Choose the correct letter:\n(A) cat\n(B) dog\n(C) horse\n(D) cow", "A", PETS, OPEN),
    ("(B) (C) (D)", "D", (), WRONG),
    (r"\boxed{\frac{1}{4}(xa-a^2)}", "B", ("x", r"$\frac{1}{4}a^2$", "y"), WRONG),
    ("(a) First the weight is found, then the height of", "A", PETS, OPEN),
    ("(b)", "B", PETS, RIGHT),
    # the only letter of a closing sentence, where options are pictures
    ("The new bench stands in region B.", "B", ("A", "B", "C"), RIGHT),
    ("Wheel C turns fastest of all.", "B", (), WRONG),
    ("A bench stands in region C.", "C", ("A", "B", "C"), RIGHT),
    ("A bench can be built from it.", "A", (), OPEN),
    ("Wheel A turns faster than wheel B.", "A", (), OPEN),
]


@pytest.mark.parametrize(("response", "reference", "choices", "value"), CASES)
def test_choice(response: str, reference: str, choices: tuple[str, ...], value: str) -> None:
    assert judged(response, reference, choices) == value


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("A, C", RIGHT),
        ("AC", RIGHT),
        ("C and A", RIGHT),
        (r"\boxed{A} and \boxed{C}", RIGHT),
        ("A", WRONG),
        ("A, B, C", WRONG),
    ],
)
def test_several_letters_are_a_set(response: str, value: str) -> None:
    assert judged(response, "A, C", PETS, multi=True) == value


def test_reference_may_be_an_options_text() -> None:
    assert judged("The answer is (D).", "12", SIZES, reference="text") == RIGHT
    assert judged("The answer is (C).", "12", SIZES, reference="text") == WRONG


@pytest.mark.parametrize(
    ("statement", "reference"),
    [
        ("The red bar is taller than the green bar.", "Yes"),
        ("The red bar is not taller than the green bar.", "No"),
        ("The red bar is shorter than the green bar.", "No"),
    ],
)
def test_a_statement_answers_its_question(statement: str, reference: str) -> None:
    question = "Question: Is the red bar taller than the green bar?\nChoices:\n(A) Yes\n(B) No"
    assert judged(statement, reference, ("Yes", "No"), question, reference="text") == RIGHT


def test_letters_give_the_same_verdict_in_any_place() -> None:
    for index, letter in enumerate("ABCD"):
        for form in (
            "{0}",
            "({0})",
            "{0}. {1}",
            "The answer is {0}",
            r"\boxed{{{0}}}",
            "**{0}**",
            "Option {0}",
            "答案是{0}",
        ):
            response = form.format(letter, PETS[index])
            for reference in "ABCD":
                assert judged(response, reference, PETS) == (RIGHT if reference == letter else WRONG), response
