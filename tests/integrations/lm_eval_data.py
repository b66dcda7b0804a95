"""Small data sets in the Hub's columns, for built-in tasks of lm-eval, and a folder of YAML of our own. All invented.

``hub(folder)`` writes ORG/NAME/files as tests/loopback/hub.py serves them; ``ANSWERS`` is what the loopback server
knows. lm-eval's own YAML files are used as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ANSWERS: dict[str, str] = {}
"""Question to right answer, filled by ``hub``."""

NAMES = ["Ana", "Bo", "Cem", "Dee", "Eli", "Fay", "Gus", "Hal", "Ivy", "Jo"]


def hub(folder: Path) -> None:
    """Write every data set."""
    ANSWERS.clear()
    _jsonl(folder, "openai/gsm8k", {"main": {"train": _sums(9, 40), "test": _sums(6, 0)}})
    _jsonl(folder, "allenai/ai2_arc", {"ARC-Easy": dict.fromkeys(("train", "validation", "test"), _science())})
    _jsonl(folder, "allenai/winogrande", {"winogrande_xl": dict.fromkeys(("train", "validation"), _pronouns())})
    _jsonl(folder, "Rowan/hellaswag", {"default": dict.fromkeys(("train", "validation"), _endings())})
    _jsonl(folder, "EleutherAI/lambada_openai", {"default": {"test": _last_words()}})
    _jsonl(folder, "TIGER-Lab/MMLU-Pro", {"default": {"validation": _options(5, 50), "test": _options(2, 0)}})
    _jsonl(folder, "HuggingFaceH4/MATH-500", {"default": {"test": _maths()}})
    _jsonl(folder, "Idavidrein/gpqa", {"gpqa_diamond": {"train": _experts()}})
    _jsonl(folder, "EleutherAI/drop", {"default": dict.fromkeys(("train", "validation"), _passages())})
    _jsonl(folder, "mandarjoshi/trivia_qa", {"rc.nocontext": dict.fromkeys(("train", "validation"), _trivia())})
    _jsonl(folder, "truthfulqa/truthful_qa", {"multiple_choice": {"validation": _truths()}})
    _pictures(folder / "MMMU" / "MMMU")


def _jsonl(folder: Path, name: str, configs: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> None:
    place = folder / name
    listed = []
    for config, splits in configs.items():
        files = []
        for split, rows in splits.items():
            path = place / config / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            files.append({"split": split, "path": f"{config}/{split}.jsonl"})
        listed.append({"config_name": config, "data_files": files})
    _card(place, listed)


def _card(place: Path, configs: list[dict[str, Any]]) -> None:
    # JSON is YAML too.
    (place / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\nMade by a test.\n", encoding="utf-8")


def _sums(count: int, start: int) -> list[dict[str, str]]:
    rows = []
    for n in range(start, start + count):
        question = f"{NAMES[n % 10]} has {n + 2} apples and buys {n + 5} more. How many apples are there?"
        total = 2 * n + 7
        ANSWERS[question] = str(total)
        rows.append({"question": question, "answer": f"{n + 2} + {n + 5} = {total}.\n#### {total}"})
    return rows


def _science() -> list[dict[str, Any]]:
    labels = ["A", "B", "C", "D"]
    texts = ["the Sun", "a cold stone", "moonlight on water", "the wind"]
    return [
        {
            "id": f"q{n}",
            "question": f"Which of these gives warmth to garden number {n}?",
            "choices": {"text": texts[n % 4 :] + texts[: n % 4], "label": labels},
            "answerKey": labels[-n % 4],
        }
        for n in range(6)
    ]


def _pronouns() -> list[dict[str, str]]:
    return [
        {
            "sentence": f"The trophy of {NAMES[n]} does not fit the case because _ is too large.",
            "option1": "the trophy",
            "option2": "the case",
            "answer": str(n % 2 + 1),
        }
        for n in range(5)
    ]


def _endings() -> list[dict[str, Any]]:
    return [
        {
            "activity_label": "Cooking",
            "ctx_a": f"{NAMES[n]} puts a pot on the stove.",
            "ctx_b": "the water",
            "endings": ["boils [substeps] soon.", "sings a song.", "walks away quickly, as it does.", "is a bicycle."],
            "label": str(n % 4),
        }
        for n in range(5)
    ]


def _last_words() -> list[dict[str, str]]:
    return [{"text": f"{name} looked for the key everywhere and at last found the key"} for name in NAMES[:4]]


CATEGORIES = [
    "biology", "business", "chemistry", "computer science", "economics", "engineering", "health", "history", "law",
    "math", "other", "philosophy", "physics", "psychology",
]  # fmt: skip


def _options(count: int, start: int) -> list[dict[str, Any]]:
    """The first categories have one question more than the others: a mean by size is not a mean of means."""
    rows = []
    for place, category in enumerate(CATEGORIES):
        for n in range(count + (place < 4 and start == 0)):
            letter = "ABCDEFGHIJ"[(n + place) % 10]
            question = f"In {category}, which letter stands at place {n + start}?"
            ANSWERS[question] = letter
            rows.append(
                {
                    "question": question,
                    "options": [f"choice {one}" for one in "ABCDEFGHIJ"],
                    "answer": letter,
                    "answer_index": (n + place) % 10,
                    "cot_content": f"A: Let's think step by step. It is plain. The answer is ({letter}).",
                    "category": category,
                }
            )
    return rows


def _maths() -> list[dict[str, str]]:
    rows = []
    for n, value in enumerate(["\\frac{1}{2}", "12", "x^2+1", "\\sqrt{3}", "5"]):
        problem = f"Find the value of problem number {n} of this sheet."
        ANSWERS[problem] = f"${value}$. I hope it is correct"
        rows.append({"problem": problem, "solution": f"It is $\\boxed{{{value}}}$.", "answer": value})
    return rows


def _experts() -> list[dict[str, str]]:
    rows = []
    for n in range(5):
        question = f"Which particle is meant in experiment {n}?"
        ANSWERS[question] = "(B)"
        rows.append({"Question": question, "Correct Answer": f"the muon {n}"})
        rows[-1] |= {f"Incorrect Answer {i}": f"particle {i}{n}" for i in (1, 2, 3)}
    return rows


def _passages() -> list[dict[str, Any]]:
    none = {"day": "", "month": "", "year": ""}
    rows = []
    for n in range(5):
        question = f"How many points did team {n} score?"
        ANSWERS[question] = f"{n + 3} points"
        answer = {"number": str(n + 3), "date": none, "spans": [], "hit_id": "", "worker_id": ""}
        if n % 2:
            answer |= {"number": "", "spans": [f"{n + 3} points", "in all"]}
        validated = {"number": [answer["number"]], "date": [none], "spans": [answer["spans"]]}
        passage = f"Team {n} scored {n + 3} points in a game that nobody saw."
        rows.append({"section_id": "s", "query_id": str(n), "passage": passage, "question": question})
        rows[-1] |= {"answer": answer, "validated_answers": validated}
    return rows


def _trivia() -> list[dict[str, Any]]:
    rows = []
    for n in range(5):
        question = f"What is the capital of the {n}th island"
        ANSWERS[question] = f"Port {NAMES[n]}"
        aliases = [f"The answer is Port {NAMES[n]}", f"port {NAMES[n].lower()}"]
        rows.append({"question": question, "question_id": str(n), "answer": {"aliases": aliases, "value": aliases[0]}})
    return rows


def _truths() -> list[dict[str, Any]]:
    return [
        {
            "question": f"Does {NAMES[n]} ever sleep?",
            "mc1_targets": {"choices": ["Yes", "No"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["Yes, at night", "Never", "Yes", "No"], "labels": [1, 0, 1, 0]},
        }
        for n in range(4)
    ]


def _pictures(place: Path) -> None:
    import datasets
    from PIL import Image

    rows = []
    for n in range(4):
        question = f"Account {n}: compare <image 1> with <image 2>. Which is larger?"
        ANSWERS[question.replace("<image 1>", " ").replace("<image 2>", " ")] = "AB"[n % 2]
        picture = Image.new("RGB", (40 + n, 30), (40 * n, 90, 200))
        rows.append(
            {
                "id": f"validation_Accounting_{n}",
                "question": question if n != 3 else "Account 3: what is the sum in <image 2>?",
                "options": str(["the first", "the second"]) if n != 3 else "[]",
                "answer": "AB"[n % 2] if n != 3 else "12",
                "question_type": "multiple-choice" if n != 3 else "open",
                "image_1": picture,
                "image_2": picture.rotate(90, expand=True),
            }
        )
    features = datasets.Features(
        {name: datasets.Value("string") for name in ("id", "question", "options", "answer", "question_type")}
        | {f"image_{i}": datasets.Image() for i in range(1, 8)}
    )
    rows = [{f"image_{i}": None for i in range(1, 8)} | row for row in rows]
    (place / "Accounting").mkdir(parents=True)
    datasets.Dataset.from_list(rows, features=features).to_parquet(place / "Accounting" / "validation.parquet")
    _card(place, [{"config_name": "Accounting", "data_files": [
        {"split": "validation", "path": "Accounting/validation.parquet"}]}])  # fmt: skip


# ---------------------------------------------------------------- YAML of one's own

GROUP = """
group: our_group
task:
  - our_draws
  - our_prefix
  - task: our_choice
    num_fewshot: 1
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
  - {metric: exact_match, weight_by_size: false, filter_list: [most, first]}
metadata: {version: 7}
"""

DRAWS = """
task: our_draws
tag: our_tag
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
description: "You count things.\\n\\n"
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{number}}"
generation_kwargs: {until: ["ZZZ"], do_sample: true, temperature: 0.7, top_p: 0.9, max_gen_toks: 77, min_p: 0.05}
repeats: 3
num_fewshot: 2
fewshot_config: {sampler: first_n, split: test}
filter_list:
  - name: first
    filter: [{function: regex, regex_pattern: "answer is (\\\\d+)"}, {function: take_first}]
  - name: most
    filter: [{function: regex, regex_pattern: "(\\\\d+)"}, {function: majority_vote}, {function: take_first}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1}
"""

PREFIX = """
include: our_draws.yaml
task: our_prefix
repeats: 1
num_fewshot: 0
gen_prefix: "Surely"
"""

CHOICE = """
task: our_choice
tag: our_tag
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}} "
doc_to_target: "{{number % 2}}"
doc_to_choice: ["even, so it is", "odd"]
fewshot_split: test
num_fewshot: 0
metric_list:
  - {metric: acc}
  - {metric: acc_norm}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
metadata: {version: 1}
"""


def folder(place: Path) -> Path:
    """A folder of lm-eval YAML: a group of three kinds of task, and a tag."""
    place.mkdir()
    rows = []
    for n in range(7):
        question = f"How many stones lie in box {n}?"
        ANSWERS[question] = str(n + 20)
        rows.append({"question": question, "number": n + 20})
    data = place / f"{place.parent.name}_{place.name}_boxes.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, text in {"our_group": GROUP, "our_draws": DRAWS, "our_prefix": PREFIX, "our_choice": CHOICE}.items():
        (place / f"{name}.yaml").write_text(text.replace("DATA", str(data)), encoding="utf-8")
    return place
