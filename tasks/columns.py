"""What a template cannot say of a row: questions, options, answers and pictures of benchmarks, for both readers.

Every function takes the row (a mapping of columns to values) and is named in a task's YAML with `!function`. Nothing
but the standard library, so that stock lm-eval can import it from beside the task files.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping
from typing import Any

Doc = Mapping[str, Any]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_CHARS = 100_000
"""Longest text that is parsed as a list: options are a few lines, not a book."""


def listed(text: Any) -> list[Any]:
    """A list, or one written as Python source (MMMU's options); nothing is evaluated. Raises ValueError."""
    if isinstance(text, (list, tuple)):
        return list(text)
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        raise ValueError(f"not a list: {text!r:.80}")
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"not a list: {text!r:.80}") from None
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"not a list: {text!r:.80}")
    return list(value)


def lettered(options: list[Any], form: str) -> str:
    """One line an option; ``form`` has the letter and the text, such as ``({}) {}``."""
    return "\n".join(form.format(letter, option) for letter, option in zip(LETTERS, options, strict=False))


def numbered_pictures(doc: Doc) -> list[Any]:
    """image_1, image_2, ... as far as the row has them, in the order of their numbers."""
    numbers = sorted(int(name[6:]) for name in doc if re.fullmatch(r"image_\d{1,3}", name))
    return [doc[f"image_{number}"] for number in numbers if doc[f"image_{number}"] is not None]


def pictures(doc: Doc) -> list[Any]:
    """``images`` (a list) or ``image``, whichever the row has."""
    found = doc.get("images", doc.get("image"))
    return [] if found is None else list(found) if isinstance(found, (list, tuple)) else [found]


# ---------------------------------------------------------------- MathVista, MathVerse, We-Math, MMStar


def mathvista_query(doc: Doc) -> str:
    """The authors' zero-shot query: a hint about the answer's form, the question with its unit, the choices."""
    kind, precision = doc["answer_type"], doc.get("precision")
    if doc["question_type"] == "multi_choice":
        hint = "answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
    elif kind == "integer":
        hint = "answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end."
    elif kind == "float":
        places, example = ("one decimal place", "1.2, 1.3, 1.4") if precision == 1 else ("", "")
        if precision == 2:
            places, example = "two decimal places", "1.23, 1.34, 1.45"
        if not places:
            raise ValueError(f"a float with precision {precision!r}")
        hint = (
            f"answer the question requiring a floating-point number with {places} and provide the final value, "
            f"e.g., {example}, at the end."
        )
    elif kind == "list":
        hint = (
            "answer the question requiring a Python list as an answer and provide the final list, "
            "e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end."
        )
    else:
        raise ValueError(f"answer type {kind!r}")
    unit = f" (Unit: {doc['unit']})" if doc.get("unit") else ""
    lines = [f"Hint: Please {hint}", f"Question: {doc['question']}{unit}"]
    if doc.get("choices"):
        lines += ["Choices:", lettered(doc["choices"], "({}) {}")]
    return "\n".join(lines)


_CHOICE_LINE = re.compile(r"^\s*([A-Z])\s*[:.]\s*(.*)$")


def mathverse_options(doc: Doc) -> list[str]:
    """The lines after ``Choices:``; none where they lie in the picture, or are not lettered from A without a gap."""
    tail = re.split(r"\bChoices?:", str(doc.get("question") or ""))
    found = [match for line in tail[-1].splitlines() if (match := _CHOICE_LINE.match(line))]
    if len(tail) < 2 or [match[1] for match in found] != list(LETTERS[: len(found)]) or len(found) < 2:
        return []
    return [match[2].strip() for match in found]


def mathverse_answer(doc: Doc) -> str:
    """The answer: letters separated by commas; free-form ones without a head such as ``Area $=113.1$``."""
    if doc["question_type"] == "multi-choice":
        return ", ".join(str(doc["answer"]).split())
    return re.sub(r"^\s*[A-Za-z][A-Za-z ]*\$\s*=", "$", str(doc["answer"]).strip())


def wemath_options(doc: Doc) -> list[str]:
    """``A. one; B. two;C. three`` as texts; none where the letters do not run from A without a gap."""
    marks = list(re.finditer(r"(?:^|(?<=[;\s]))([A-H])\s*\.\s*", doc["option"]))
    run: list[re.Match[str]] = []
    for mark in marks:
        if mark[1] == LETTERS[len(run)]:
            run.append(mark)
    if len(run) < 2:
        return []
    ends = [mark.start() for mark in run[1:]] + [len(doc["option"])]
    return [doc["option"][mark.end() : end].strip(" ;\n") for mark, end in zip(run, ends, strict=True)]


def mmstar_options(doc: Doc) -> list[str]:
    """The options of a question that ends ``Options: A: one, B: two, ...``; none where they are not to be told."""
    tail = doc["question"].rpartition("Options:")[2]
    marks = list(re.finditer(r"(?:^|[\s,])([A-D])\s*[:.]\s", tail))
    if [mark[1] for mark in marks] != list(LETTERS[: len(marks)]) or len(marks) < 2:
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(tail)]
    return [tail[mark.end() : end].strip(" ,\n") for mark, end in zip(marks, ends, strict=True)]


# ---------------------------------------------------------------- MMMU, MMMU-Pro


def mmmu_question(doc: Doc) -> str:
    """Question, options ``(A) ...`` and what is wanted; the marks of pictures stay where they are."""
    options = listed(doc["options"]) if doc.get("options") else []
    if not options:
        return f"{doc['question']}\n\nAnswer the question using a single word or phrase."
    choices = lettered(options, "({}) {}")
    return f"{doc['question']}\n\n{choices}\n\nAnswer with the option's letter from the given choices."


def mmmu_answer(doc: Doc) -> str | list[str]:
    """A letter, a text, or several accepted texts, which may be written as a list."""
    answer = doc["answer"]
    if isinstance(answer, str) and answer.lstrip().startswith("[") and not listed(doc.get("options") or []):
        try:
            return [str(text) for text in listed(answer)]
        except ValueError:
            return answer
    return [str(text) for text in answer] if isinstance(answer, (list, tuple)) else str(answer)


_LAST_LINE = (
    "The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes) "
    "where LETTER is one of options. Think step by step before answering."
)


def mmmu_pro_question(doc: Doc) -> str:
    """The authors' prompt with reasoning; in the vision setting the question and its options lie in the picture."""
    if doc.get("question") is None:
        return f"Write out the multiple-choice question in the image and then solve it. {_LAST_LINE}"
    choices = lettered(listed(doc["options"]), "{}. {}")
    return f"{doc['question']}\n{choices}\nAnswer the preceding multiple choice question. {_LAST_LINE}"


def mmmu_pro_pictures(doc: Doc) -> list[Any]:
    """The one picture of the vision setting, or image_1 to image_7."""
    return pictures(doc) if doc.get("question") is None else numbered_pictures(doc)


# ---------------------------------------------------------------- CharXiv

_REASONING = {
    1: "Your final answer must be grounded to some text that is explicitly written and relevant to the question in "
    "the chart. If you need to answer multiple terms, separate them with commas. Unless specified in the question "
    "(such as answering with a letter), answer the full names of subplots and/or labels.",
    2: "If there are options in the question, your final answer must conform to one of them. If there are additional "
    "instructions in the question, follow them. Otherwise a short phrase is enough.",
    3: "Your final answer must be grounded to a number that is explicitly written and relevant to the question in the "
    "chart, even if it is an approximate value. You may extract numbers within some text when needed.",
}


def charxiv_kind(doc: Doc) -> int:
    """1 text in the chart, 2 text in general, 3 number in the chart, 4 number in general."""
    kind = doc.get("reasoning_a_type", doc.get("inst_category"))
    if isinstance(kind, int) and not isinstance(kind, bool):
        return kind
    words = str(kind).lower()
    if words.strip().isdigit():
        return int(words)
    if "text" not in words and "number" not in words:
        return 4 if re.fullmatch(r"-?\d[\d,.]*", str(doc["reasoning_a"]).strip()) else 2
    return (3 if "number" in words else 1) + ("general" in words)


def charxiv_question(doc: Doc) -> str:
    """A reasoning question with the rules for its kind of answer."""
    kind = charxiv_kind(doc)
    rule = _REASONING.get(kind)
    if rule is None:
        decimals = len(str(doc["reasoning_a"]).strip().partition(".")[2])
        rule = "Your final answer must be " + (
            f"a number with {decimals} decimal places." if decimals else "an exact integer."
        )
    return f"{doc['reasoning_q']}\n* {rule}"


_NOT_THERE = "answer 'Not Applicable'"
_DESCRIPTIVE = {
    1: (
        "what is its title?",
        f"The title that is explicitly written; if there is none, or only a letter, {_NOT_THERE}.",
    ),
    2: (
        "what is the label of the x-axis?",
        f"The label that is explicitly written, also where the axis is shared; the bottom axis where there are two; if "
        f"there is no label, {_NOT_THERE}.",
    ),
    3: (
        "what is the label of the y-axis?",
        f"The label that is explicitly written, also where the axis is shared; the left axis where there are two; if "
        f"there is no label, {_NOT_THERE}.",
    ),
    4: ("what is the leftmost labeled tick on the x-axis?", "The tick as written, of the bottom axis, without units."),
    5: ("what is the rightmost labeled tick on the x-axis?", "The tick as written, of the bottom axis, without units."),
    6: (
        "what is the spatially lowest labeled tick on the y-axis?",
        "The tick as written, of the left axis, without units.",
    ),
    7: (
        "what is the spatially highest labeled tick on the y-axis?",
        "The tick as written, of the left axis, without units.",
    ),
    8: (
        "what is difference between consecutive numerical tick values on the x-axis?",
        f"If there are no ticks, they are not numerical or not evenly spaced, {_NOT_THERE}.",
    ),
    9: (
        "what is difference between consecutive numerical tick values on the y-axis?",
        f"If there are no ticks, they are not numerical or not evenly spaced, {_NOT_THERE}.",
    ),
    10: (
        "how many lines are there?",
        f"Without grid lines, ticks and auxiliary lines; if it is no line plot, {_NOT_THERE}.",
    ),
    11: (
        "do any lines intersect?",
        f"'Yes' or 'No', without grid lines, ticks and auxiliary lines; if it is no line plot, {_NOT_THERE}.",
    ),
    12: (
        "how many discrete labels are there in the legend?",
        f"Only labels relevant to this plot, wherever the legend lies; if there is no such legend, {_NOT_THERE}.",
    ),
    13: (
        "what are the names of the labels in the legend?",
        f"From top to bottom, then from left to right, separated by commas; if there is no such legend, {_NOT_THERE}.",
    ),
    14: (
        "what is the difference between the maximum and minimum values of the tick labels on the continuous legend "
        "(i.e., colorbar)?",
        f"Without a percentage sign; if there is no such legend, {_NOT_THERE}.",
    ),
    15: (
        "what is the maximum value of the tick labels on the continuous legend (i.e., colorbar)?",
        f"Without a percentage sign; if there is no such legend, {_NOT_THERE}.",
    ),
    16: ("what is the general trend of data from left to right?", "A few words, such as 'increases then stabilizes'."),
    17: ("what is the total number of explicitly labeled ticks across all axes?", "Shared axes count."),
    18: ("What is the layout of the subplots?", "'n by m', n rows and m columns; without subplots '1 by 1'."),
    19: ("What is the number of subplots?", "Without subplots '1'."),
}


def charxiv_descriptive_question(doc: Doc) -> str:
    """One of a figure's four descriptive questions, of the template that its number names."""
    template = int(doc[f"descriptive_q{doc['variant']}"])
    question, rule = _DESCRIPTIVE[template]
    if template not in (18, 19):
        question = _where(doc) + question
    return f"{question}\n* {rule}"


def _where(doc: Doc) -> str:
    place = doc.get("subplot_loc")
    row, column = doc.get("subplot_row"), doc.get("subplot_col")
    if isinstance(place, (list, tuple)) and len(place) == 2:
        row, column = place
    elif isinstance(place, str) and place.strip():
        return f"For {place}, "
    if row is None or column is None or int(row) == 0:
        return "For the current plot, "
    return f"For the subplot at row {int(row)} and column {int(column)}, "


def charxiv_descriptive_answer(doc: Doc) -> str:
    """The answer to that question."""
    return str(doc[f"descriptive_a{doc['variant']}"])


def charxiv_template(doc: Doc) -> int:
    """The number of that question's template, 1 to 19."""
    return int(doc[f"descriptive_q{doc['variant']}"])


# ---------------------------------------------------------------- text


GPQA_SEED = "ares-gpqa-1"


def gpqa_options(doc: Doc) -> list[str]:
    """The four answers in an order that hangs on nothing but the question's text and GPQA_SEED."""
    texts = [str(doc["Correct Answer"]), *(str(doc[f"Incorrect Answer {number}"]) for number in (1, 2, 3))]

    def place(pair: tuple[int, str]) -> str:
        return hashlib.sha256(f"{GPQA_SEED}\0{doc['Question']}\0{pair[0]}".encode()).hexdigest()

    return [text.strip() for _, text in sorted(enumerate(texts), key=place)]


def gpqa_question(doc: Doc) -> str:
    """The authors' zero-shot prompt without its demand for a form of the reply."""
    choices = lettered(gpqa_options(doc), "({}) {}")
    return f"What is the correct answer to this question: {str(doc['Question']).strip()}\n\nChoices:\n{choices}"


def gpqa_answer(doc: Doc) -> str:
    """The letter of the correct answer."""
    return LETTERS[gpqa_options(doc).index(str(doc["Correct Answer"]).strip())]


_KINDS = {
    "Numerical": "a numerical value",
    "Expression": "an expression",
    "Equation": "an equation",
    "Interval": "an interval",
}


def olympiadbench_question(doc: Doc) -> str:
    """The authors' English prompt for open-ended problems, the context (physics) and the problem."""
    several, unit = bool(doc.get("is_multiple_answer")), bool(doc.get("unit"))
    kinds = [
        next((text for kind, text in _KINDS.items() if kind in part), "") for part in str(doc["answer_type"]).split(",")
    ]
    told = ""
    if all(kinds):
        if not several:
            told = f"The answer of The problem should be {kinds[0]}. "
        elif len(set(kinds)) == 1:
            told = f"The problem has multiple answers, each of them should be {kinds[0]}. "
        else:
            told = f"The problem has multiple answers, with the answers in order being {', '.join(kinds)}. "
    boxed = "\\boxed{multiple answers connected with commas}" if several else "\\boxed{answer}"
    physics = str(doc.get("subject") or "").lower().startswith("phys") or "physics" in str(doc.get("config") or "")
    note = ", note that the unit of the answer should not be included in \\boxed{}" if unit else ""
    head = (
        f"The following is an open-ended problem from an International {'Physics' if physics else 'Math'} competition. "
        f"{told}Please calculate the answer according to the given requirements and the information provided. "
        "Please use LaTeX format to represent the variables and formulas used in the solution process and results. "
        f'Please end your solution with "So the final answer is {boxed}{"(unit)" if unit else ""}." '
        f"and give the result explicitly{note}."
    )
    context = f"{doc['context']}\n" if physics and doc.get("context") else ""
    return f"{head}\n{context}{doc['question']}"


def olympiadbench_answer(doc: Doc) -> str:
    """The final answer; several (which may come as one text or as a list) joined by commas."""
    found = doc["final_answer"]
    return ", ".join(str(text) for text in found) if isinstance(found, (list, tuple)) else str(found)


def olympiadbench_tolerance(doc: Doc) -> float:
    """The row's allowed error (the smallest where it has several), else the authors' 1e-8."""
    named = re.findall(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", str(doc.get("error") or ""))
    return min((float(text) for text in named), default=1e-8)


_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")


def minerva_is_number(doc: Doc) -> bool:
    """Whether the answer is a plain number, as ``7.5e7`` is."""
    return _NUMBER.fullmatch(minerva_answer(doc)) is not None


def minerva_answer(doc: Doc) -> str:
    """``answer`` where the row has it, else the content of the solution's last box."""
    if doc.get("answer") is not None:
        return str(doc["answer"])
    solution = str(doc["solution"])
    start = solution.rfind("\\boxed{")
    if start < 0:
        raise ValueError("no boxed answer in the solution")
    depth = 0
    for position in range(start + 6, len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[position], 0)
        if depth == 0:
            return solution[start + 7 : position].strip()
    raise ValueError("the solution's last box does not end")
