"""Every benchmark as the hub has it, in small: invented questions in the real configs, splits and column names.

``write(folder)`` makes ORG/NAME/... for the loopback hub and returns what the loopback model must know to answer
everything right. No row is taken from any benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ares_eval.tasks import catalog
from ares_eval.tasks.definition import read_definition
from tests.tasks import tiny

ROWS = 6
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Made:
    """Rows of one split of one config, and what answers them: (text of the question, answer as it is said)."""

    path: str
    config: str | None
    split: str
    rows: Rows
    said: list[tuple[str, str]]


def picture(number: int) -> dict[str, Any]:
    """A cell of the Image feature; every third one is large enough to be sent untouched."""
    size = (600, 500) if number % 3 == 0 else (40 + number, 30)
    return {"bytes": tiny.png(*size, colour=(10 * number % 255, 90, 160)), "path": f"{number}.png"}


def asked(name: str, number: int) -> str:
    """A question that occurs nowhere else."""
    return f"In the {name} exercise {number}, how many pebbles lie beside the {number}th {name} stone"


def made(
    path: str, config: str | None, split: str, row: Callable[[int], tuple[dict[str, Any], str, str]], count: int = ROWS
) -> Made:
    """``row(number)`` gives (columns, text by which the model knows the question, answer)."""
    rows, said = [], []
    for number in range(1, count + 1):
        columns, text, answer = row(number)
        rows.append(columns)
        said.append((text, answer))
    return Made(path, config, split, rows, said)


def everything() -> Iterator[Made]:
    """All benchmarks of `tasks/`."""
    yield from _text()
    yield from _pictures()
    yield from _of_configs()


def _text() -> Iterator[Made]:
    def plain(name: str, question: str, answer: str, **more: Any) -> Callable[[int], tuple[dict[str, Any], str, str]]:
        def row(n: int) -> tuple[dict[str, Any], str, str]:
            text = f"{asked(name, n)}?"
            filled = {key: value(n) if callable(value) else value for key, value in more.items()}
            return {question: text, answer: str(n + 3), **filled}, text, str(n + 3)

        return row

    yield made(
        "openai/gsm8k",
        "main",
        "test",
        lambda n: (
            {"question": f"{asked('gsm', n)}?", "answer": f"Some steps.\n#### {n},000"},
            f"{asked('gsm', n)}?",
            f"{n}000",
        ),
    )
    maths = plain("math", "problem", "answer", solution="", subject="Algebra", level=2, unique_id=lambda n: f"test/{n}")
    yield made("HuggingFaceH4/MATH-500", None, "test", maths)
    aime = plain("aime", "problem", "answer", id=lambda n: n, solution="", url="", year="2024")
    yield made("HuggingFaceH4/aime_2024", None, "train", aime)
    yield made("math-ai/aime25", None, "test", plain("aimetwo", "problem", "answer", id=lambda n: str(n)))
    yield made(
        "math-ai/amc23",
        None,
        "test",
        lambda n: (
            {"id": n, "question": f"{asked('amc', n)}?", "answer": float(n), "url": ""},
            f"{asked('amc', n)}?",
            str(n),
        ),
    )
    yield made("math-ai/minervamath", None, "test", plain("minerva", "question", "answer"))
    hmmt = plain("hmmt", "problem", "answer", problem_idx=lambda n: n, problem_type=["Algebra"])
    yield made("MathArena/hmmt_feb_2025", None, "train", hmmt)
    yield made(
        "TIGER-Lab/MMLU-Pro",
        None,
        "test",
        lambda n: (
            {
                "question_id": n,
                "question": f"{asked('mmlu', n)}?",
                "options": [str(n + i) for i in range(3 + n)],
                "answer": "C",
                "answer_index": 2,
                "cot_content": "",
                "category": "biology",
                "src": "x",
            },
            f"{asked('mmlu', n)}?",
            "C",
        ),
    )
    yield made("Idavidrein/gpqa", "gpqa_diamond", "train", _gpqa)
    yield made(
        "BBEH/bbeh",
        None,
        "train",
        lambda n: (
            {"task": f"bbeh_{n % 2}", "input": f"{asked('bbeh', n)}?", "target": "proved, disproved", "mini": n % 2},
            f"{asked('bbeh', n)}?",
            "proved, disproved",
        ),
    )
    only = _mathverse("Text Only")
    yield made(
        "AI4Math/MathVerse",
        "testmini_text_only",
        "testmini_text_only",
        lambda n: ({**only(n)[0], "image": ""}, *only(n)[1:]),
    )


def _gpqa(n: int) -> tuple[dict[str, Any], str, str]:
    row = {"Question": f"{asked('gpqa', n)}?", "Correct Answer": f"{n} moles ", "Record ID": f"rec{n}"}
    row |= {f"Incorrect Answer {i}": f"{n + i} moles" for i in (1, 2, 3)}
    row |= {"High-level domain": "Chemistry", "Subdomain": "Chemistry (general)"}
    return row, f"{asked('gpqa', n)}?", f"{n} moles"


def _mathverse(version: str) -> Callable[[int], tuple[dict[str, Any], str, str]]:
    def row(n: int) -> tuple[dict[str, Any], str, str]:
        seen = version == "Vision Only"
        name = "verse" + version.replace(" ", "").lower()
        question = "" if seen else f"{asked(name, n)}?\nChoices:\nA:{n}\nB:{n + 1}\nC:{n + 2}\nD:{n + 3}"
        prompt = "According to the question shown in the image, provide the correct option letter" if seen else question
        columns = {
            "sample_index": f"{version}{n}",
            "problem_index": str(n),
            "problem_version": version,
            "question": question,
            "image": picture(n),
            "answer": "A",
            "question_type": "multi-choice",
            "metadata": {"split": "testmini", "source": "x", "subject": "Plane Geometry", "subfield": "Angle"},
            "query_wo": prompt,
            "query_cot": prompt,
            "question_for_eval": question,
        }
        return columns, prompt, "A"

    return row


def _pictures() -> Iterator[Made]:
    versions = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
    each = [made("", None, "", _mathverse(version)) for version in versions]
    mixed = [row for rows in zip(*(one.rows for one in each), strict=True) for row in rows]
    yield Made("AI4Math/MathVerse", "testmini", "testmini", mixed, [said for one in each for said in one.said])
    yield made("AI4Math/MathVista", None, "testmini", _mathvista)
    for split in ("test", "testmini"):
        yield made("MathLLMs/MathVision", None, split, _mathvision)
    for variant in range(1, 11):
        yield made("DynaMath/DynaMath_Sample", None, f"sample_variant{variant}", _dynamath(variant))
    yield made(
        "lscpku/LogicVista",
        None,
        "test",
        lambda n: (
            {"question": f"{asked('logic', n)}?", "answer": "" if n == 3 else "A, C", "image": picture(n)},
            f"{asked('logic', n)}?",
            "A, C",
        ),
    )
    wemath: Rows = []
    said: list[tuple[str, str]] = []
    for key in ("2steps_1", "2steps_2", "2steps_multi"):
        for n in range(1, ROWS + 1):
            question = f"{asked('wemath ' + key, n)}?"
            wemath.append(
                {
                    "ID": f"2steps_{n}",
                    "split": "testmini",
                    "knowledge concept": "Angles",
                    "question": question,
                    "option": f"A. {n};B. {n + 1}; C. No correct answer",
                    "answer": "B",
                    "image_path": picture(n),
                    "key": key,
                    "question number": n,
                    "knowledge concept description": "",
                }
            )
            said.append((question, "B"))
    yield Made("We-Math/We-Math", None, "testmini", wemath, said)
    charts = made("princeton-nlp/CharXiv", None, "validation", _charxiv)
    yield replace(charts, said=[*charts.said, *DESCRIBED])
    yield made(
        "Lin-Chen/MMStar",
        None,
        "val",
        lambda n: (
            {
                "index": n,
                "question": f"{asked('mmstar', n)}?\nOptions: A: {n}, B: {n + 1}, C: {n + 2}, D: none",
                "image": picture(n),
                "answer": "D",
                "category": "math",
                "l2_category": "geometry",
                "meta_info": {"source": "x", "split": "val", "image_path": "x.png"},
            },
            f"{asked('mmstar', n)}?",
            "D",
        ),
    )
    yield made(
        "hiyouga/geometry3k",
        None,
        "test",
        lambda n: (
            {
                "images": [picture(n)],
                "problem": f"<image>{asked('geometry', n)}?",
                "answer": f"{n} \\sqrt {{ 2 }}",
                "id": n,
                "choices": ["1", "2", "3", "4"],
                "ground_truth": "A",
            },
            f"{asked('geometry', n)}?",
            f"{n}\\sqrt{{2}}",
        ),
    )
    yield made(
        "ares0728/ARES-hard-validation",
        None,
        "train",
        lambda n: (
            {"problem": f"{asked('hard', n)}?", "answer": str(n), "images": [picture(n)] if n % 2 else []},
            f"{asked('hard', n)}?",
            str(n),
        ),
    )


def _mathvista(n: int) -> tuple[dict[str, Any], str, str]:
    question = f"{asked('vista', n)}?"
    kind, answer, precision = [("integer", str(n), None), ("float", f"{n}.5", 1.0), ("text", "pear", None)][n % 3]
    choice = kind == "text"
    metadata = dict.fromkeys(("category", "context", "grade", "language", "source", "split", "task"), "x")
    row = {
        "pid": str(n),
        "question": question,
        "image": f"images/{n}.jpg",
        "decoded_image": picture(n),
        "choices": ["apple", "pear"] if choice else None,
        "unit": None,
        "precision": precision,
        "answer": answer,
        "question_type": "multi_choice" if choice else "free_form",
        "answer_type": kind,
        "metadata": {**metadata, "img_height": 1, "img_width": 1, "skills": ["algebra"]},
        "query": "",
    }
    return row, question, "B" if choice else answer


def _mathvision(n: int) -> tuple[dict[str, Any], str, str]:
    question = f"{asked('vision', n)}?\n<image1>"
    row = {
        "id": str(n),
        "question": question,
        "options": ["1", "2", "3", "4", "5"] if n % 2 else [],
        "image": f"images/{n}.jpg",
        "decoded_image": picture(n),
        "answer": "E" if n % 2 else str(n),
        "solution": None,
        "level": 1 + n % 5,
        "subject": "counting",
    }
    return row, question, str(row["answer"])


def _dynamath(variant: int) -> Callable[[int], tuple[dict[str, Any], str, str]]:
    def row(n: int) -> tuple[dict[str, Any], str, str]:
        question = f"{asked('dynamath', 100 * n + variant)}?"
        columns = {
            "id": str(n),
            "question": question,
            "image": f"{n}.png",
            "decoded_image": picture(n),
            "ground_truth": f"{n}.25",
            "answer_type": "float",
            "subject": "algebra",
            "knowledge_level": "high school",
        }
        return columns, question, f"{n}.25"

    return row


DESCRIBED = [
    ("what is the label of the x-axis?", "Time"),
    ("how many lines are there?", "4"),
    ("do any lines intersect?", "Yes"),
    ("What is the layout of the subplots?", "1 by 1"),
]
"""What descriptive templates 2, 10, 11 and 18 ask, and the answers in every row."""


def _charxiv(n: int) -> tuple[dict[str, Any], str, str]:
    question = f"{asked('chart', n)}?"
    row: dict[str, Any] = {
        "image": picture(n),
        "category": "cs",
        "year": "20",
        "original_id": f"20{n}",
        "figure_path": f"{n}.jpg",
        "num_subplots": 1,
        "subplot_row": 0,
        "subplot_col": 0,
        "subplot_loc": None,
        "reasoning_q": question,
        "reasoning_a": str(n),
        "reasoning_q_source": 1,
        "reasoning_a_type": 4,
    }
    for position, (template, (_, answer)) in enumerate(zip((2, 10, 11, 18), DESCRIBED, strict=True), 1):
        row |= {f"descriptive_q{position}": template, f"descriptive_a{position}": answer}
    return row, question, str(n)


def _of_configs() -> Iterator[Made]:
    for config in _configs("bbh"):
        yield made(
            "SaylorTwift/bbh",
            config,
            "test",
            lambda n, config=config: (  # type: ignore[misc]
                {"input": f"{asked('bbh ' + config, n)}?\nOptions:\n(A) {n}\n(B) {n + 1}", "target": "(B)"},
                f"{asked('bbh ' + config, n)}?",
                "(B)",
            ),
        )
    for config in _configs("mmmu"):
        yield made("MMMU/MMMU", config, "validation", _mmmu(config))
    yield made("MMMU/MMMU_Pro", "standard (10 options)", "test", _mmmu_pro)
    seen = "Write out the multiple-choice question in the image and then solve it."
    yield made(
        "MMMU/MMMU_Pro",
        "vision",
        "test",
        lambda n: (
            {
                "id": f"test_Art_{n}",
                "image": picture(n),
                "options": repr([str(n), "b", "c"]),
                "answer": "A",
                "subject": "Art",
            },
            seen,
            "A",
        ),
    )
    for config in (*_configs("olympiadbench"), *_configs("olympiadbench_text")):
        yield made("Hothan/OlympiadBench", config, "train", _olympiad(config))


def _configs(task: str) -> tuple[str, ...]:
    hub = read_definition(catalog.find(task)).hub
    assert hub is not None
    return hub.configs


def _mmmu(config: str) -> Callable[[int], tuple[dict[str, Any], str, str]]:
    def row(n: int) -> tuple[dict[str, Any], str, str]:
        question, open_ended = f"<image 1> {asked('mmmu ' + config, n)}?", n % 3 == 0
        columns = {
            "id": f"validation_{config}_{n}",
            "question": question,
            "options": "[]" if open_ended else repr([f"{n} <image 2>", "none", "all"]),
            "explanation": "",
            **{f"image_{i}": picture(n + i) if i < 3 else None for i in range(1, 8)},
            "img_type": "['Tables']",
            "answer": "['24/7', '3.429']" if open_ended else "C",
            "topic_difficulty": "Easy",
            "question_type": "open" if open_ended else "multiple-choice",
            "subfield": "x",
        }
        return columns, question, "3.429" if open_ended else "C"

    return row


def _mmmu_pro(n: int) -> tuple[dict[str, Any], str, str]:
    question = f"{asked('pro', n)} in <image 1>?"
    row = {
        "id": f"test_Art_{n}",
        "question": question,
        "options": repr([str(n + i) for i in range(10)]),
        "explanation": "?",
        **{f"image_{i}": picture(n) if i == 1 else None for i in range(1, 8)},
        "img_type": "['Tables']",
        "answer": "J",
        "topic_difficulty": "Hard",
        "subject": "Art",
    }
    return row, question, "J"


def _olympiad(config: str) -> Callable[[int], tuple[dict[str, Any], str, str]]:
    number = (*_configs("olympiadbench"), *_configs("olympiadbench_text")).index(config)

    def row(n: int) -> tuple[dict[str, Any], str, str]:
        question = f"{asked('olympiad', 100 * number + n)}?"
        several = n % 2 == 0
        pictured = "MM" in config
        columns = {
            "id": 1000 * number + n,
            "question": question + (" See <image_1>." if pictured else ""),
            "solution": [""],
            "final_answer": ["$3$,$5$"] if several else [f"${n}.5$"],
            "context": "A tower." if "physics" in config else None,
            **{f"image_{i}": picture(n) if pictured and i == 1 else None for i in range(1, 6)},
            "modality": "Multimodal" if pictured else "Text-only",
            "difficulty": "Competition",
            "is_multiple_answer": several,
            "unit": None,
            "answer_type": "Numerical",
            "error": None if several else "1e-1",
            "question_type": "Open-ended",
            "subfield": "Algebra",
            "subject": "Physics" if "physics" in config else "Math",
            "language": "English",
        }
        return columns, question, "5, 3" if several else f"{n}.55"

    return row


# ---------------------------------------------------------------- as files


def write(folder: Path, only: str = "") -> dict[str, str]:
    """ORG/NAME/... of every dataset (or of those of one ORG/NAME) below ``folder``; questions and their answers."""
    known: dict[str, str] = {}
    files: dict[str, list[Made]] = {}
    for one in everything():
        if only in ("", one.path):
            files.setdefault(one.path, []).append(one)
            known.update(one.said)
    for path, members in files.items():
        configs: dict[str, list[str]] = {}
        for number, one in enumerate(members):
            name = f"data/{number}-{one.split}.parquet"
            parquet(folder / path / name, one.rows)
            configs.setdefault(one.config or "default", []).append(f"  - split: {one.split}\n    path: {name}")
        entries = [f"- config_name: {json.dumps(name)}\n  data_files:\n" + "\n".join(c) for name, c in configs.items()]
        (folder / path / "README.md").write_text("---\nconfigs:\n" + "\n".join(entries) + "\n---\n", "utf-8")
    return known


def parquet(path: Path, rows: Rows) -> None:
    """Rows as the hub's parquet files hold them; picture columns are structs of bytes and path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = {name: None for row in rows for name in row}
    fields = []
    for name in names:
        values = [row.get(name) for row in rows]
        pictured = name.startswith(("image_", "decoded_image")) or name in ("image", "images")
        if name == "images":
            fields.append(pa.field(name, pa.list_(image)))
        elif pictured and not any(isinstance(value, str) for value in values):
            fields.append(pa.field(name, image))
        elif all(value is None for value in values):
            fields.append(pa.field(name, pa.string()))
        else:
            fields.append(pa.field(name, pa.array(values).type))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path)
