"""The official scorers' rules: their known quirks by hand, and the verdicts that their authors published."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ares_eval.tasks import official
from ares_eval.types import AnswerSpec, Verdict
from ares_eval.verify import verify

DATA = Path(os.environ.get("ARES_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
recorded = pytest.mark.skipif(not (DATA / "recorded").is_dir(), reason="no recorded replies here (ARES_SHARED_DATA)")

ABCD = AnswerSpec("choice", choices=("red fox", "blue whale", "green frog", "grey wolf"))


def decide(rule: str, response: str, reference: str | tuple[str, ...], spec: AnswerSpec, seed: str = "s") -> Verdict:
    return official.decide(rule, response, verify(response, reference, spec), reference, spec, seed)


@pytest.mark.parametrize(
    ("response", "reference", "spec", "value"),
    [
        # A refusal is given the option nearest in edit distance, and may be right.
        ("I am sorry, I cannot see a picture.", "blue whale", ABCD, "incorrect"),
        ("The answer is \\boxed{blu wale}", "blue whale", ABCD, "correct"),
        ("The answer is \\boxed{(C) something else}", "green frog", ABCD, "correct"),
        ("\\boxed{B}", "blue whale", ABCD, "correct"),
        # Integers are truncated, floats rounded to the precision and compared as texts.
        ("\\boxed{7.9}", "7", AnswerSpec("number"), "correct"),
        ("\\boxed{-0.5}", "0", AnswerSpec("number"), "correct"),
        ("\\boxed{1.24}", "1.2", AnswerSpec("number", {"digits": 1}), "correct"),
        ("\\boxed{1.25}", "1.3", AnswerSpec("number", {"digits": 1}), "incorrect"),
        ("\\boxed{0.8}", "0.80", AnswerSpec("number", {"digits": 2}), "incorrect"),
        ("I do not know.", "3", AnswerSpec("number"), "incorrect"),
    ],
)
def test_mathvista(response: str, reference: str, spec: AnswerSpec, value: str) -> None:
    if spec is ABCD:
        spec = AnswerSpec("choice", {"reference": "text"}, ABCD.choices)
    assert decide("mathvista", response, reference, spec).value == value


def test_a_rule_names_itself_and_what_it_compared() -> None:
    verdict = decide("mathvista", "\\boxed{7.9}", "7", AnswerSpec("number"))
    assert (verdict.method, verdict.normalised, verdict.reason) == ("official:mathvista", ("7", "7"), None)
    assert verdict.extracted == "7.9"


def test_thinking_is_not_read_and_unfinished_thinking_is_no_answer() -> None:
    spec = AnswerSpec("choice", choices=("x", "y", "z"))
    assert decide("mmlu_pro", "<think>the answer is (A)</think>So the answer is (B).", "B", spec).value == "correct"
    assert decide("mmlu_pro", "<think>the answer is (B)", "B", spec).value == "incorrect"


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("The answer is (B). Later the answer is (C).", "B"),  # the first, not the last
        ("Answer: D", "D"),
        ("It is C or maybe none", "C"),
        ("\\boxed{C}", "C"),
        ("no idea at all", official._MMLU_PRO_GUESS),
    ],
)
def test_mmlu_pro(response: str, letter: str) -> None:
    spec = AnswerSpec("choice", choices=tuple("abcdefghij"))
    assert decide("mmlu_pro", response, letter, spec).value == "correct"


def test_mmlu_pro_gives_every_reply_without_an_answer_the_same_letter() -> None:
    import random

    random.seed(12345)
    assert random.choice([chr(65 + i) for i in range(10)]) == official._MMLU_PRO_GUESS


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("(A) looks wrong, so I take (D).", "D"),
        ("I would say B ", "B"),
        ("In this photo one sees a big blue whale in the sea", "B"),
        ("First a red fox then, in the end, a grey wolf was seen", "D"),
        ("The answer is \\boxed{C}", "C"),
    ],
)
def test_mmmu_takes_what_is_named_last(response: str, letter: str) -> None:
    assert decide("mmmu", response, letter, ABCD).value == "correct"


def test_mmmu_guesses_where_nothing_is_named_and_the_guess_repeats() -> None:
    guesses = [decide("mmmu", "hm", "A", ABCD, seed=f"t/{n}/0") for n in range(400)]
    shares = Counter(str(verdict.normalised and verdict.normalised[0]) for verdict in guesses)
    assert set(shares) == set("ABCD")
    assert min(shares.values()) > 60
    again = [decide("mmmu", "hm", "A", ABCD, seed=f"t/{n}/0") for n in range(400)]
    assert [verdict.value for verdict in guesses] == [verdict.value for verdict in again]


@pytest.mark.parametrize(
    ("response", "references", "value"),
    [
        ("So the ratio is 3.4286", ("24/7", "3.43"), "correct"),
        ("The final answer is about 1,249 units", ("1249",), "correct"),
        ("It is a Transformation of sorts", ("Transformation",), "correct"),
        ("The answer is 12", ("13",), "incorrect"),
    ],
)
def test_mmmu_open(response: str, references: tuple[str, ...], value: str) -> None:
    assert decide("mmmu", response, references, AnswerSpec("text")).value == value


@pytest.mark.parametrize(
    ("response", "reference", "kind", "value"),
    [
        ('{"solution": "long", "short answer": "8.0004"}', "8.0", "number", "correct"),
        ('{"solution": "long", "short answer": "8.002"}', "8.0", "number", "incorrect"),
        ("\\boxed{2π}", "6.283", "number", "correct"),
        ('{"short answer": "(B) two"}', "B", "choice", "correct"),
        ('{"short answer": "an even function"}', "even", "text", "correct"),
    ],
)
def test_dynamath(response: str, reference: str, kind: str, value: str) -> None:
    spec = AnswerSpec(kind, choices=("one", "two") if kind == "choice" else ())
    assert decide("dynamath", response, reference, spec).value == value


def test_olympiadbench_takes_a_percentage_for_its_number() -> None:
    spec = AnswerSpec("number", {"tolerance": 1e-8})
    assert verify("\\boxed{25}", "0.25", spec).value == "incorrect"
    assert decide("olympiadbench", "\\boxed{25}", "0.25", spec).value == "correct"
    assert decide("olympiadbench", "\\boxed{26}", "0.25", spec).value == "incorrect"
    assert decide("olympiadbench", "\\boxed{\\frac14}", "0.25", spec).value == "correct"
    several = AnswerSpec("list", {"tolerance": 0.01})
    assert decide("olympiadbench", "\\boxed{5.234, 0.3}", "0.303, 5.233", several).value == "correct"
    assert decide("olympiadbench", "\\boxed{5.234, 0.3}", "0.303, 5.233, 1", several).value == "incorrect"


def test_bbh_and_bbeh_compare_texts() -> None:
    text = AnswerSpec("text", {"closed": True})
    assert decide("bbh", "So the answer is ) ) >.", ") ) >", text).value == "correct"
    assert decide("bbh", "So the answer is Yes, it does.", "Yes", AnswerSpec("yesno")).value == "incorrect"
    assert decide("bbh", "(B)", "(B)", AnswerSpec("choice", choices=("x", "y"))).value == "correct"
    assert decide("bbh", "Hence \\boxed{(B)}.", "(B)", AnswerSpec("choice", choices=("x", "y"))).value == "correct"
    assert decide("bbeh", "The answer is: (a)", "A", text).value == "correct"
    assert decide("bbeh", "The answer is: 4.0", "4", AnswerSpec("number")).value == "correct"
    assert decide("bbeh", "The answer is: [1,2]", "1, 2", text).value == "correct"


def test_edit_distance() -> None:
    cases = [("", "", 0), ("kitten", "sitting", 3), ("abc", "", 3), ("flaw", "lawn", 2)]
    assert [official.edit_distance(one, other) for one, other, _ in cases] == [distance for *_, distance in cases]
    assert official.edit_distance("a" * 10_000, "b" * 10_000) == official.MAX_DISTANCE_CHARS


def test_boxes_are_their_content() -> None:
    assert official.unboxed("so \\boxed{\\frac{1}{2}} and \\boxed{B}.") == "so \\frac{1}{2} and B."
    assert official.unboxed("\\boxed{open") == "open"


# ---------------------------------------------------------------- against the authors' own verdicts


def rows(pattern: str) -> Iterator[dict[str, Any]]:
    for file in sorted((DATA / "recorded").glob(pattern)):
        for line in file.read_text("utf-8").splitlines():
            yield json.loads(line)


@recorded
def test_mathvista_of_the_authors_extractions_is_the_authors_verdict() -> None:
    differ = []
    for row in rows("mathvista/*.jsonl"):
        if row.get("recorded_correct") is None:
            continue
        choice = row["question_type"] == "multi_choice"
        kind = "choice" if choice else {"integer": "number", "float": "number"}.get(row["answer_type"], "list")
        policy = {"digits": int(row["precision"])} if row["answer_type"] == "float" else {}
        spec = AnswerSpec(kind, policy, tuple(row["choices"]) if choice else ())
        extraction = row["recorded_extraction"]
        verdict = Verdict("unverifiable", "m", extracted="" if extraction is None else str(extraction), type=kind)
        answered = official.Answered("", verdict, (str(row["gold"]),), spec, "s")
        right, _ = official.RULES["mathvista"](answered)
        if right != row["recorded_correct"]:
            differ.append((row["id"], extraction, row["gold"]))
    assert differ == []


@recorded
def test_mmmu_pro_agrees_with_the_authors_but_for_their_guesses() -> None:
    from ares_eval.tasks.templates import written_list

    judged = guessed = 0
    for row in rows("mmmu_pro/*.jsonl"):
        options = tuple(str(option) for option in written_list(row["options"]))
        spec = AnswerSpec("choice", choices=options)
        response = row["response"] if isinstance(row["response"], str) else ""
        found = decide("mmmu_pro", response, row["gold"], spec)
        other = decide("mmmu_pro", response, row["gold"], spec, seed="another")
        if found.normalised != other.normalised:
            guessed += 1
            continue
        judged += 1
        assert (found.value == "correct") == row["recorded_correct"], row["id"]
    assert judged > 1000
    assert guessed < 60


@recorded
def test_mmlu_pro_finds_what_the_authors_found() -> None:
    spec = AnswerSpec("choice", choices=tuple("abcdefghij"))
    differ = Counter[bool]()
    for row in rows("mmlu_pro/*.jsonl"):
        # Where the phrase is missing, the recorded letter is a guess of the run that made the file.
        if row["recorded_extraction"] is not None and re.search(r"answer is \(?[A-J]", row["response"]):
            found = official.RULES["mmlu_pro"](
                official.Answered(row["response"], Verdict("correct", "m"), (), spec, "")
            )
            differ[found[1] == row["recorded_extraction"]] += 1
    assert differ[True] > 3500
    assert not differ[False]
