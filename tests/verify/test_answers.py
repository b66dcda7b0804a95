"""Rules of the comparators, each with examples of its own: what is the same, what only looks the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ares_eval.types import AnswerSpec
from ares_eval.verify import Verifier

RIGHT, WRONG, OPEN = "correct", "incorrect", "unverifiable"


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=1) as one:
        yield one


def judged(verifier: Verifier, kind: str, response: str, reference: str, *choices: str, **policy: object) -> str:
    return verifier.verify(response, reference, AnswerSpec(kind, policy, choices)).value


NUMBERS = [
    # tiny, huge and long numbers are compared exactly
    (r"\boxed{0.00000003}", "0.00000004", WRONG),
    (r"\boxed{3e-20}", "2e-20", WRONG),
    ("1.5×10⁻⁹", "1.5e-9", RIGHT),
    (r"\boxed{987654321987654321987654321}", "987654321987654321987654322", WRONG),
    (r"\boxed{0.99999999999999999999}", "1", WRONG),
    (r"\boxed{" + "7" * 6000 + "}", "7" * 5999 + "8", WRONG),
    # separators, currency, scripts
    (r"\boxed{1{,}234}", "1234", RIGHT),
    (r"\boxed{12\,345}", "12345", RIGHT),
    (r"\boxed{12 345}", "12345", RIGHT),
    (r"\boxed{1.234,56}", "1234.56", RIGHT),
    (r"\boxed{\$1,234.50}", "1234.5", RIGHT),
    (r"\boxed{４２}", "42", RIGHT),
    (r"\boxed{−7}", "-7", RIGHT),
    # percent and units
    (r"\boxed{35\%}", "0.35", RIGHT),
    (r"\boxed{3}", r"3\%", WRONG),
    (r"\boxed{5 \text{ cm}}", "5 m", WRONG),
    (r"\boxed{500 cm}", "5 m", RIGHT),
    (r"\boxed{15\text{ cm}^2}", "15 cm^3", WRONG),
    (r"\boxed{15 cm^2}", "15", RIGHT),
    (r"\boxed{9 km/h}", "9 m/s", WRONG),
    (r"\boxed{45°}", r"45^\circ", RIGHT),
    (r"\boxed{45 \text{ degrees}}", "45°", RIGHT),
    # numerals in other bases are not their digits
    (r"\boxed{312_5}", "312_7", WRONG),
    (r"\boxed{312}", "312_5", WRONG),
    # fractions, rounding
    (r"\boxed{\frac{6}{4}}", "1.5", RIGHT),
    (r"\boxed{0.333333}", "1/3", RIGHT),
    (r"\boxed{0.33}", "1/3", WRONG),
    (r"\boxed{3.14}", r"\pi", WRONG),
    # where the answer stands
    ("答案：42", "42", RIGHT),
    ("정답은 42입니다.", "42", RIGHT),
    ("答えは42です", "42", RIGHT),
    ("#### 42", "42", RIGHT),
    ("<answer>42</answer>", "42", RIGHT),
    ('{"steps": "6*7", "answer": 42}', "42", RIGHT),
    ("<|begin_of_box|>42<|end_of_box|>", "42", RIGHT),
    (r"\boxed{42} " + "as shown above " * 2000, "42", RIGHT),
    (r"\boxed{60.}", "60", RIGHT),
    (r"\boxed{\text{The answer is } 9}", "9", RIGHT),
    (r"first \boxed{2}, corrected: \boxed{3}", "3", RIGHT),
    ("first \\boxed{2}\n\nthen \\boxed{3}", "2", WRONG),
    (r"\boxed{7} Wait, that is a mistake. The answer is 8.", "8", RIGHT),
    ("The answer is not 7", "7", WRONG),
    ("The answer is 7 or 8.", "7", WRONG),
    ("There are 12 of them in 3 boxes, so 36 altogether.", "36", RIGHT),
    ("The year was **1961**, two years later than 1959.\n\nIn 1965 it ended.", "1961", RIGHT),
    # no answer at all
    (r"\boxed{}", "7", WRONG),
    (r"<think>so \boxed{7}</think> I cannot answer.", "7", WRONG),
    (r"<think>so \boxed{7}", "7", WRONG),
]


@pytest.mark.parametrize(("response", "reference", "value"), NUMBERS)
def test_numbers(verifier: Verifier, response: str, reference: str, value: str) -> None:
    assert judged(verifier, "number", response, reference) == value


def test_number_policies(verifier: Verifier) -> None:
    assert judged(verifier, "number", "2.346", "2.35", digits=2) == RIGHT
    assert judged(verifier, "number", "2.344", "2.35", digits=2) == WRONG
    assert judged(verifier, "number", "10.0005", "10", tolerance=0.001) == RIGHT
    assert judged(verifier, "number", "10.005", "10", tolerance=0.001) == WRONG
    assert judged(verifier, "number", "103", "100", relative=0.05) == RIGHT
    assert judged(verifier, "number", r"\boxed{50\%}", "50", percent=True) == RIGHT


FORMULAS = [
    (r"\boxed{2\frac{1}{3}}", r"\frac{7}{3}", RIGHT),
    (r"\boxed{2\cdot\frac{1}{3}}", r"\frac{7}{3}", WRONG),
    (r"\boxed{2 3/4}", "23/4", WRONG),
    (r"\boxed{½}", r"\frac12", RIGHT),
    (r"\boxed{2π}", r"2\pi", RIGHT),
    (r"\boxed{(a-b)(a+b)}", "a^2-b^2", RIGHT),
    (r"\boxed{(a-b)^2}", "a^2-b^2", WRONG),
    (r"\boxed{1+\tan^2 u}", r"\sec^2 u", RIGHT),
    (r"\boxed{y^2+1}", "x^2+1", WRONG),
    (r"\boxed{BA}", "AB", WRONG),
    (r"\boxed{x}", "|x|", WRONG),
    (r"\boxed{\sqrt{x^2}}", "|x|", RIGHT),
    (r"\boxed{e^{i\pi}}", "-1", RIGHT),
    (r"\boxed{\sin(30^\circ)}", "0.5", RIGHT),
    (r"\boxed{\frac{1}{2^{99}}}", r"\frac{1}{2^{98}}", WRONG),
    (r"\boxed{1/1500!}", "1/1502!", WRONG),
    (r"\boxed{2^{90000000}+1}", "2^{90000000}-1", WRONG),
    (r"\boxed{(p+q+r+s)^{50}}", "(s+r+q+p)^{50}", RIGHT),
    (r"\boxed{9^{9^9}}", "9^{9^9}+1", WRONG),
    (r"\boxed{50000!}", "50000!+1", WRONG),
    (r"\boxed{31^{\mathrm{st}}}", "31", RIGHT),
    (r"\boxed{\int_0^1 2t\,dt}", "1", RIGHT),
    (r"\boxed{\sum_{k=1}^{4} k}", "10", RIGHT),
    (r"\boxed{7:05 \text{ a.m.}}", "7:05 AM", RIGHT),
    (r"\boxed{7:05 \text{ p.m.}}", "7:05 AM", WRONG),
]


@pytest.mark.parametrize(("response", "reference", "value"), FORMULAS)
def test_formulas(verifier: Verifier, response: str, reference: str, value: str) -> None:
    assert judged(verifier, "latex", response, reference) == value


STRUCTURES = [
    ("(2,1)", "(1,2)", WRONG),
    ("(1,2,3)", "(1,2)", WRONG),
    ("[0,1)", "[0,1]", WRONG),
    (r"(3,\infty)\cup(-\infty,1)", r"(-\infty,1)\cup(3,\infty)", RIGHT),
    (r"(-\infty,1)", r"(-\infty,1)\cup(3,\infty)", WRONG),
    (r"x\ne 2", r"(-\infty,2)\cup(2,\infty)", RIGHT),
    (r"|u| \le 4", "[-4,4]", RIGHT),
    (r"-2t > 6", "t < -3", RIGHT),
    (r"-2t > 6", "t > -3", WRONG),
    (r"\{u \mid 2 < u < 5\}", "(2,5)", RIGHT),
    (r"(a-1, a+1)", "a-1 < x < a+1", RIGHT),
    (r"\mathbb{R}", r"(-\infty,+\infty)", RIGHT),
    (r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", WRONG),
    (r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", RIGHT),
    ("(1,2,3)", r"\begin{pmatrix}1\\2\\3\end{pmatrix}", RIGHT),
    ("u=4, v=3", "u=3, v=4", WRONG),
    ("v=4, u=3", "u=3, v=4", RIGHT),
    ("(3,4)", "u=3, v=4", RIGHT),
    ("4,3", "u=3, v=4", WRONG),
    ("u=1 or u=6", r"\{6, 1\}", RIGHT),
    ("3u+6v=9", "u+2v=3", RIGHT),
    ("3u+6v=8", "u+2v=3", WRONG),
    ("v=5-2u", "2u+v-5=0", RIGHT),
    ("g(t)=t^2+C", "g(t)=t^2+c", RIGHT),
    ("g(s)=s^2", "g(t)=t^2", RIGHT),
    ("t^2", "g(t)=t^2", RIGHT),
    ("3:2", "2:3", WRONG),
    (r"2 \pm \sqrt{7}", r"2+\sqrt{7}, 2-\sqrt{7}", RIGHT),
    (r"2+\sqrt{7}", r"2 \pm \sqrt{7}", WRONG),
    ("(5+2m, 1-m) \\text{ for some integer } m", "(a, b) = (5+2k, 1-k)", RIGHT),
]


@pytest.mark.parametrize(("answer", "reference", "value"), STRUCTURES)
def test_structures(verifier: Verifier, answer: str, reference: str, value: str) -> None:
    assert judged(verifier, "structured", rf"Hence \boxed{{{answer}}}.", reference) == value


LISTS = [
    ("1, 2, 3", "3, 2, 1", RIGHT),
    ("1, 2", "1, 2, 3", WRONG),
    ("1, 2, 3", "1, 2", WRONG),
    ("[2, 1]", "[1, 2]", WRONG),
    (r"\{3, 1, 2\}", "1, 2, 3", RIGHT),
    ("45, 678", "45678", WRONG),
    (r"0, \pm 4", "-4, 0, 4", RIGHT),
    (r"\frac12 \text{ and } \frac14", "0.25, 0.5", RIGHT),
    (r"\text{circle and square}", "square, circle", RIGHT),
    (r"\text{circle and triangle}", "square, circle", WRONG),
]


@pytest.mark.parametrize(("answer", "reference", "value"), LISTS)
def test_lists(verifier: Verifier, answer: str, reference: str, value: str) -> None:
    assert judged(verifier, "list", rf"\boxed{{{answer}}}", reference) == value


def test_boxes_of_one_statement_are_one_list(verifier: Verifier) -> None:
    assert judged(verifier, "list", r"\boxed{4} and \boxed{9}", "9, 4") == RIGHT


OTHERS = [
    ("yesno", "Yes, because it is so.", "yes", RIGHT),
    ("yesno", "It is not true.", "false", RIGHT),
    ("yesno", "No. Some would say yes.", "no", RIGHT),
    ("yesno", r"\boxed{\text{False}}", "True", WRONG),
    ("date", "March 5, 2020", "2020-03-05", RIGHT),
    ("date", "5 May 2020", "2020-03-05", WRONG),
    ("text", "02/03/2021", "03/02/2021", WRONG),
    ("multipart", "(a) 8, (b) 2", "(a) 2; (b) 8", WRONG),
    ("multipart", "(b) 8 and (a) 2", "(a) 2; (b) 8", RIGHT),
    ("multipart", "The maximum is 9, the minimum $-1$.", "max 9, min -1", RIGHT),
    ("text", "It was painted by Ada Berg in 1920.", "Ada Berg", RIGHT),
    ("text", "It is Monday, not Sunday.", "Sunday", OPEN),
    ("text", "So the answer is stable.", "unstable", WRONG),
    ("text", "Something else entirely, described at length", "Ada Berg", OPEN),
]


@pytest.mark.parametrize(("kind", "response", "reference", "value"), OTHERS)
def test_other_types(verifier: Verifier, kind: str, response: str, reference: str, value: str) -> None:
    assert judged(verifier, kind, response, reference) == value


def test_any_alias_is_accepted(verifier: Verifier) -> None:
    spec = AnswerSpec("text")
    assert verifier.verify("The USA", ("United States", "USA"), spec).value == RIGHT


def test_a_reference_named_in_the_question_is_no_evidence(verifier: Verifier) -> None:
    spec = AnswerSpec("text")
    verdict = verifier.verify("Oslo is older than Bergen by far.", "Oslo", spec, question="Is Oslo or Bergen older?")
    assert verdict.value == OPEN


def test_verdict_says_what_was_compared(verifier: Verifier) -> None:
    response = r"Thus \boxed{0.5}."
    verdict = verifier.verify(response, "1/2", AnswerSpec("number"))
    assert verdict.span is not None
    assert response[slice(*verdict.span)] == verdict.extracted == "0.5"
    assert verdict.method == "box>number:quantity"
    assert verdict.type == "number"
    assert not verdict.guessed
    assert verdict.version


@pytest.mark.parametrize(
    ("reference", "choices", "kind"),
    [("42", (), "number"), ("B", ("x", "y"), "choice"), ("yes", (), "yesno"), (r"\frac{a}{b}", (), "latex"),
     ("(1,2)", (), "structured"), ("a long story", (), "text")],
)  # fmt: skip
def test_guessed_types_are_marked(verifier: Verifier, reference: str, choices: tuple[str, ...], kind: str) -> None:
    verdict = verifier.verify("The answer is " + reference, reference, AnswerSpec("auto", {}, choices))
    assert verdict.guessed
    assert verdict.type == kind
    assert verdict.value == RIGHT


@pytest.mark.parametrize(
    ("response", "reference"),
    [("9 - 4 is 5.", "5"), ("A fortnight is 14 days.", "14"), ("It has the 3 sides", "3")],
)
def test_a_short_sentence_is_no_formula(response: str, reference: str) -> None:
    with Verifier(workers=1) as verifier:
        assert verifier.verify(response, reference, AnswerSpec("number")).value == "correct"


SENTENCES = [
    ("There are 4 boxes heavier than 30 kg.", "How many boxes are heavier than 30 kg?", "4", RIGHT),
    ("After removing all red cubes, there are five cubes left on the shelf.", "How many cubes are left?", "5", RIGHT),
    ("So, there are two bars with values lower than 0.", "How many bars have values lower than 0?", "0", WRONG),
    ("The tower's height is 52 m.\n\n17 men built it in 1901.", "What is the tower's height?", "52", RIGHT),
    ("It rose most between 1990 and 1995.", "When did it rise most?", "1995", WRONG),
    ("There are 12 of them in 3 boxes, so 36 altogether.", "How many are there in 3 boxes?", "36", RIGHT),
    ("one hundred and five", None, "105", RIGHT),
    ("He owns two hundred and thirty-one coins.", None, "231", RIGHT),
    ("The answer is three hundred.", None, "300", RIGHT),
    ("The answer is three hundred.", None, "3", WRONG),
    ("two million and six", None, "2000006", RIGHT),
    ("The sum is forty-two.", None, "42", RIGHT),
    ("negative four", None, "-4", RIGHT),
    ("minus 4", None, "4", WRONG),
    ("3 and a half", None, "3.5", RIGHT),
    ("3 and a half", None, "3", WRONG),
    ("There are 12 in total.", "How many eggs are there?", "12", RIGHT),
    ("A dozen is 12.", None, "12", RIGHT),
    ("about 5", None, "5", RIGHT),
    ("x is 5 so y is 7", "What is y?", "7", RIGHT),
    ("There is one teacher for every 20 pupils, so 1/20 of them teach", "What is the ratio?", "1", WRONG),
]  # fmt: skip


@pytest.mark.parametrize(("response", "question", "reference", "value"), SENTENCES)
def test_number_stated_by_a_sentence(
    verifier: Verifier, response: str, question: str | None, reference: str, value: str
) -> None:
    assert verifier.verify(response, reference, AnswerSpec("number"), question=question).value == value
