"""A judge without a model: answers the questions of VLMEvalKit's scorers by our rules, or not at all.

Their scorers ask a language model to find a letter, a number or a text in a reply, and some to compare it with the
reference. `answer` knows those questions by their wording, reads the reply with ares_eval.verify, and gives what their
code expects to read. A question it does not know, or that rules cannot decide, gets no answer (None). Scores made this
way are marked "rule": they are nobody's official number.
"""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ares_eval.types import AnswerSpec, Json

if TYPE_CHECKING:
    from ares_eval.integrations.vlmeval_process import Question
    from ares_eval.verify import Verifier

NAME = "rule"


def judge(verifier: Verifier) -> Callable[[Sequence[Question]], list[str | None]]:
    """The rules as a judge of vlmeval_process."""
    return lambda questions: [answer(question, verifier) for question in questions]


def answer(question: Question, verifier: Verifier) -> str | None:
    """The reply to one question of a scorer, in the form that the scorer reads."""
    for marks, reply in _KNOWN:
        if all(mark in question.prompt for mark in marks):
            return reply(question.row, verifier)
    return None


# ---------------------------------------------------------------- letters


def _letter(row: Mapping[str, Json], _: Verifier) -> str | None:
    """Which of the row's options (columns A, B, ...) its reply chooses."""
    options = []
    for letter in string.ascii_uppercase:
        if row.get(letter) is None:
            break
        options.append(str(row[letter]))
    return _chosen(row, options)


def _letters(row: Mapping[str, Json], _: Verifier) -> str | None:
    """LogicVista: one or several letters, no options known."""
    from ares_eval.verify.comparators.choice import chosen
    from ares_eval.verify.comparators.options import options_of

    letters, _place = chosen(_reply(row), options_of(()), True)
    return "".join(sorted(letters)) if letters else None


def _chosen(row: Mapping[str, Json], options: Sequence[str]) -> str | None:
    from ares_eval.verify.comparators.choice import chosen
    from ares_eval.verify.comparators.options import options_of

    letters, _ = chosen(_reply(row), options_of(tuple(options)), False, str(row.get("question") or ""))
    return next(iter(letters)) if letters and len(letters) == 1 else None


def _yes_or_no(row: Mapping[str, Json], _: Verifier) -> str | None:
    from ares_eval.verify.comparators.yesno import polarity
    from ares_eval.verify.extract import candidates

    for place in candidates(_reply(row)):
        found = polarity(place.text)
        if found is not None:
            return "Yes" if found else "No"
    return None


# ---------------------------------------------------------------- values


def _extracted(row: Mapping[str, Json], _: Verifier) -> str | None:
    """MathVista and MathVision: a letter where there are choices, else a number or text as it is written."""
    options = _listed(row.get("choices"))
    if options:
        return _chosen(row, options)
    if row.get("answer_type") in ("integer", "float"):
        number = _number(_reply(row))
        if number is None:
            return None
        return str(round(number)) if row["answer_type"] == "integer" and number == round(number) else repr(number)
    return _stated(_reply(row))


def _stated_anything(row: Mapping[str, Json], _: Verifier) -> str | None:
    return _stated(_reply(row))


def _short(row: Mapping[str, Json], _: Verifier) -> str | None:
    """DynaMath: by the row's type of answer."""
    if row.get("answer_type") == "multiple choice":
        return _chosen(row, ())
    if row.get("answer_type") == "float":
        number = _number(_reply(row))
        return None if number is None else f"{number:.3f}"
    return _stated(_reply(row))


def _number(reply: str) -> float | None:
    from ares_eval.verify.extract import candidates
    from ares_eval.verify.quantity import parse_quantity
    from ares_eval.verify.reading import number_readings

    for place in candidates(reply):
        for reading in number_readings(place):
            quantity = parse_quantity(reading.text)
            if quantity is not None and quantity.value.denominator.bit_length() < 1000:
                return _float(quantity.value)
    return None


def _float(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None


def _stated(reply: str) -> str | None:
    from ares_eval.verify.extract import candidates
    from ares_eval.verify.normalise import trimmed

    return next((text for place in candidates(reply) if (text := trimmed(place.text))), None)


# ---------------------------------------------------------------- comparisons


def _same(row: Mapping[str, Json], verifier: Verifier) -> str | None:
    """MathVerse: 1 or 0 for the extracted answer and the reference."""
    extracted, reference = str(row.get("extract") or ""), str(row.get("answer") or "")
    right = _right(f"Answer: {extracted}", reference, row.get("question_for_eval"), verifier)
    return None if right is None else str(int(right))


def _graded(row: Mapping[str, Json], verifier: Verifier) -> str | None:
    """CharXiv: the answer and whether it is right, as JSON."""
    right = _right(_reply(row), str(row.get("answer") or ""), row.get("question"), verifier)
    if right is None:
        return None
    return json.dumps({"extract_answer": _stated(_reply(row)) or "", "score": int(right)})


def _right(reply: str, reference: str, question: Json, verifier: Verifier) -> bool | None:
    if not reference:
        return None
    verdict = verifier.verify(reply, reference, AnswerSpec(), question=str(question or "") or None)
    return {"correct": True, "incorrect": False}.get(verdict.value)


_KNOWN: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, Json], Verifier], str | None]], ...] = (
    (("match an answer with several options of a single-choice question",), _letter),
    (("你是一个帮助我匹配答案与单选题中多个选项的 AI 助手",), _letter),
    (("The options are only Yes / No.",), _yes_or_no),
    (("information extractor that extracts multiple choice letter",), _letters),
    (("extract the answer from the model response and type it at the end of the prompt",), _extracted),
    (("You should extract the answer from the response as 'Extracted Answer'",), _stated_anything),
    (("[Standard Answer] is the standard answer to the question", "Judgement:"), _same),
    (("Free-form answer: ", "\nInstruction: "), _short),
    (("extract_answer", "score", "JSON"), _graded),
)
"""What stands in a question (all of it) -> who answers."""


# ---------------------------------------------------------------- rows


def _reply(row: Mapping[str, Json]) -> str:
    return str(row.get("prediction") or "")


_LONGEST_LIST = 100_000


def _listed(cell: Json) -> list[str]:
    """A cell that holds a Python list of options."""
    if isinstance(cell, list):
        return [str(item) for item in cell]
    if not isinstance(cell, str) or len(cell) > _LONGEST_LIST or not re.match(r"\s*\[", cell):
        return []
    try:
        found = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(item) for item in found] if isinstance(found, list) else []
