"""Small tables in VLMEvalKit's columns, replies to them and a stub judge: invented rows, 40 x 40 pictures.

Used by the tests and, unchanged, by the process that runs VLMEvalKit's own code for comparison (vlmeval_reference.py).
"""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def picture(colour: int) -> str:
    """A PNG of one colour, base64."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (colour % 256, 90, 200 - colour % 200)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _vista(question: str, kind: str, answer_type: str, choices: str, option: str, answer: str, reply: str) -> Any:
    row = {"question": question, "question_type": kind, "answer_type": answer_type, "choices": choices}
    return row | {
        "answer_option": option,
        "answer": answer,
        "task": "t1",
        "skills": "['a', 'b']",
        "prediction": reply,
    }


def _choice(question: str, options: str, answer: str, reply: str, **more: Any) -> dict[str, Any]:
    letters = dict(zip("ABCDEFGHIJ", options.split("|"), strict=False))
    return {"question": question, **letters, "answer": answer, "prediction": reply, **more}


_VERSE = "{'split': 'testmini', 'source': 'X', 'subject': 'Plane Geometry', 'subfield': 'Angle'}"


def _verse(question: str, answer: str, reply: str) -> dict[str, Any]:
    row = {"question": question, "question_for_eval": question, "query_cot": question, "answer": answer}
    return row | {"problem_version": "Vision Only", "metadata": _VERSE, "prediction": reply}


def _olympiad(source: str, gold: str, reply: str, error: str = "") -> dict[str, Any]:
    row = {"question": "Find $x$.", "source": source, "final_answer": f"['{gold}']", "answer_type": "Numerical"}
    more = {"is_multiple_answer": False, "unit": "", "context": "", "error": error}
    return row | more | {"prediction": f"Work. So the final answer is \\boxed{{{reply}}}."}


_SOURCES = [
    "OE_MM_maths_en_COMP OE_MM_maths_zh_CEE OE_MM_maths_zh_COMP OE_MM_physics_en_COMP OE_MM_physics_zh_CEE",
    "OE_TO_maths_en_COMP OE_TO_maths_zh_CEE OE_TO_maths_zh_COMP OE_TO_physics_en_COMP OE_TO_physics_zh_CEE",
]


def _wemath() -> Rows:
    rows = []
    for steps in (2, 3):
        for number, reply in zip([*range(1, steps + 1), "multi"], "ABBA", strict=False):
            row = _choice("Which?", "one|two|three", "A", f"The answer is {reply}.", id=f"q{steps}")
            rows.append(
                row | {"key": f"{steps}steps_{number}", "knowledge concept": f"k{number}", "requirement": "Go."}
            )
    return rows


_GRADE = 'Grade as JSON with keys "extract_answer" and "score". Reference: {ref}. Response: {PREDICTION}'

TABLES: dict[str, Rows] = {
    "MathVista_MINI": [
        _vista("Which?", "multi_choice", "text", "['red', 'blue']", "B", "blue", "The answer is B."),
        _vista("Which?", "multi_choice", "text", "['red', 'blue']", "A", "red", "It looks blue to me."),
        _vista("How many?", "free_form", "integer", "[]", "", "14", "14"),
        _vista("How much?", "free_form", "float", "[]", "", "1.5", "I count 1.5 in all."),
        _vista("How many?", "free_form", "integer", "[]", "", "3", "There are 5."),
    ],
    "MathVision_MINI": [
        {"question": "2+3?", "choices": "[]", "answer": "5", "category": "algebra", "prediction": "5"},
        {"question": "Half?", "choices": "[]", "answer": "0.5", "category": "algebra", "prediction": "\\frac{1}{2}"},
        {"question": "Which?", "choices": "['1','2']", "answer": "B", "category": "logic", "prediction": "Answer: B"},
        {"question": "What?", "choices": "[]", "answer": "7", "category": "logic", "prediction": "I think it is eight"},
    ],
    "MathVerse_MINI_Vision_Only": [
        _verse("According to the question shown, choose.\nChoices:\nA:2\nB:3", "B", "So the answer is B"),
        _verse("According to the question shown, compute.", "2*x", "Answer: x*2"),
    ],
    "DynaMath": [
        {
            "question": "How long?",
            "answer_type": kind,
            "answer": answer,
            "varid": variant,
            "qid": 1,
            "subject": "plane geometry",
            "knowledge_level": "high school",
            "prediction": reply,
        }
        for variant, (kind, answer, reply) in enumerate(
            [
                ("multiple choice", "B", '{"solution": "s", "short answer": "B"}'),
                ("float", "2.5", '{"solution": "s", "short answer": "2.500"}'),
                ("float", "2.5", "about two and a half"),
            ],
            1,
        )
    ],
    "LogicVista": [
        {
            "question": "Which come next? A, B, C or D",
            "answer": answer,
            "skill": f"['{skill}']",
            "capability": "diagram",
            "imagesource": "x",
            "prediction": reply,
        }
        for answer, skill, reply in [
            ("A", "inductive", "The answer is A"),
            ("B, C", "deductive", "B and C"),
            ("D", "numerical", "Answer: A"),
            ("A", "spatial", "The answer is A."),
            ("C", "mechanical", "no idea"),
        ]
    ],
    "MMMU_DEV_VAL": [
        _choice("See <image 1> and say.", "one|two|three", "B", "B", split="validation", category="Art"),
        _choice("Is <image 1> a cat?", "yes|no", "A", "The answer is B.", split="validation", category="Math"),
        {"question": "Name <image 1>.", "answer": "7", "split": "dev", "category": "Math", "prediction": "7"},
    ],
    "MMMU_Pro_10c": [
        _choice("See <image 1>.", "a1|b2|c3|d4|e5|f6|g7|h8|i9|j0", "J", "J", category="Art"),
        _choice("See <image 1>?", "a1|b2|c3|d4|e5|f6|g7|h8|i9|j0", "E", "D", category="Art"),
    ],
    "MMMU_Pro_V_COT": [
        _choice("", "a1|b2|c3", "C", "I look.\nAnswer: C", category="Art"),
        _choice("", "a1|b2|c3", "A", "I look at A and B.\nAnswer: B", category="Law"),
    ],
    "MMStar": [
        _choice("What?", "cat|dog|cow|hen", "A", "A", category="c1"),
        _choice("Which animal?", "cat|dog|cow|hen", "D", "I see a hen", category="c2"),
        _choice("Which one?", "cat|dog|cow|hen", "C", "Options A and B are wrong, so \\boxed{C}", category="c2"),
    ],
    "WeMath": _wemath(),
    "OlympiadBench": [
        _olympiad(source, "5", reply, error)
        for source, reply, error in zip(
            " ".join(_SOURCES).split(),
            ["5", "5.0", "6", "5", "4.9", "5", "5", "7", "5", "5"],
            ["", "1e-8,1e-8", "", "", "0.2", "", "", "", "", ""],
            strict=True,
        )
    ],
    "CharXiv_reasoning_val": [
        {
            "question": "How many lines?",
            "answer": answer,
            "grading_query": _GRADE.replace("{ref}", answer),
            "inst_category": category,
            "prediction": reply,
        }
        for answer, category, reply in [("3", 1, "Answer: 3"), ("blue", 2, "Answer: red"), ("12", 3, "Answer: 12.0")]
    ],
    "MM-Math": [
        {
            "question": "Find it.",
            "answer": answer,
            "difficulty": 1,
            "year": "nine",
            "knowledge_l1": "k1",
            "knowledge_l2": "k2",
            "prediction": reply,
        }
        for answer, reply in [("5", "5"), ("\\sqrt{2}", "\\sqrt{2}"), ("3", "the angle is 4")]
    ],
    "POPE": [
        {"question": f"Is it {i}?", "answer": answer, "category": "adversarial", "prediction": reply}
        for i, (answer, reply) in enumerate([("Yes", "yes"), ("No", "Yes, it is."), ("No", "I doubt that.")])
    ],
    "ChartQA_TEST": [
        {"question": "Value?", "answer": answer, "split": "test_human", "prediction": reply}
        for answer, reply in [("10", "10.2"), ("cat", "Cat"), ("7", "9")]
    ],
    "MMBench_DEV_EN": [
        _choice("Which?", "|".join(options), letter, reply, category="c", **{"l2-category": "l", "split": "dev"})
        | {"index": index}
        for index, options, letter, reply in [
            (1, ("cat", "dog"), "A", "A"),
            (1_000_001, ("dog", "cat"), "B", "B"),
            (2, ("red", "tan"), "A", "A"),
            (1_000_002, ("tan", "red"), "B", "A"),
        ]
    ],
}
"""Name -> rows with the reply in ``prediction``; ``index`` counts from 1 where a row has none."""


def rows(name: str) -> Rows:
    """The rows with index and picture."""
    return [{"index": i, "image": picture(i * 37), **row} for i, row in enumerate(TABLES[name], 1)]


def write(folder: Path, name: str) -> Path:
    """``<folder>/<name>.tsv`` without the replies."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.tsv"
    table = [{key: value for key, value in row.items() if key != "prediction"} for row in rows(name)]
    columns = list(dict.fromkeys(key for row in table for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(table)
    return path


def predictions(name: str) -> dict[str, str]:
    """Index -> reply."""
    return {str(row["index"]): row["prediction"] for row in rows(name)}


def stub_judge(prompt: str) -> str:
    """A judge that says the same to the same prompt, in the form its scorer reads."""
    if "single-choice question" in prompt:
        return "B"
    if "The options are only Yes / No." in prompt:
        return "No"
    if "multiple choice letter" in prompt:
        return "A"
    if "Judgement:" in prompt:
        return "1"
    if "Extracted Answer" in prompt:
        return "B"
    if "Instruction: " in prompt:
        return "2.500" if "floating" in prompt else "B"
    if "extract_answer" in prompt:
        return json.dumps({"extract_answer": "3", "score": 1 if "Response: Answer: 3" in prompt else 0})
    return "5" if "Model respone" in prompt else "?"
