"""Recorded replies to questions that cannot be asked here, since their pictures are not: judged without asking.

The task's own definition makes reference and answer spec of what the recording tells of the question; the verifier and
the benchmark's official rule judge the reply, as in a run.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ares_eval.tasks import catalog, official
from ares_eval.tasks.definition import read_definition
from ares_eval.tasks.samples import SampleMaker
from ares_eval.verify import Verifier
from tests.loopback.recorded import rows_of


@dataclass(frozen=True)
class Item:
    """A recorded reply: the row in the task's columns, and what the authors made of it (None: nothing recorded)."""

    run: str
    sample: str
    response: str
    doc: Mapping[str, Any]
    theirs: bool | None
    extraction: Any = None
    question: str | None = None


def judged(task: str, items: Iterator[Item]) -> Iterator[dict[str, Any]]:
    """Each reply with our verdict, the official rule's (None where the task has none) and the authors'."""
    definition = read_definition(catalog.find(task))
    maker, rule = SampleMaker(definition), definition.official.get("rule")
    with Verifier() as verifier:
        for item in items:
            spec, reference = maker.answer_of(item.doc), maker.reference_of(item.doc)
            verdict = verifier.verify(item.response, reference, spec, question=item.question)
            seed = f"{task}/{item.sample}/0"
            theirs = official.decide(rule, item.response, verdict, reference, spec, seed) if rule else None
            yield {
                "run": item.run,
                "sample": item.sample,
                "reference": reference,
                "ours": verdict.value,
                "our_extraction": verdict.extracted,
                "method": verdict.method,
                "reason": verdict.reason,
                "official": None if theirs is None else theirs.value,
                "theirs": item.theirs,
                "their_extraction": item.extraction,
                "response": item.response,
            }


def mathvista(data: Path) -> Iterator[Item]:
    """Five models' outputs with GPT-4's extractions and the authors' verdicts."""
    for file in sorted((data / "recorded" / "mathvista").glob("*.jsonl")):
        for row in rows_of(file):
            doc = {**row, "answer": str(row["gold"])}
            yield Item(
                f"mathvista/{file.stem}",
                str(row["id"]),
                row["response"] or "",
                doc,
                row["recorded_correct"],
                row["recorded_extraction"],
                row["query"],
            )


def mmmu_pro(data: Path) -> Iterator[Item]:
    """GPT-4o in four settings, with the authors' verdicts."""
    for file in sorted((data / "recorded" / "mmmu_pro").glob("*.jsonl")):
        for row in rows_of(file):
            response = row["response"] if isinstance(row["response"], str) else ""
            doc = {"options": row["options"], "answer": row["gold"]}
            extraction, correct = row["recorded_extraction"], row["recorded_correct"]
            yield Item(f"mmmu_pro/{file.stem}", str(row["id"]), response, doc, correct, extraction)


def mmmu(data: Path) -> Iterator[Item]:
    """Two models in 20 subjects; nothing but the replies is recorded, so the official rule's verdict stands in."""
    for file in sorted((data / "recorded" / "mmmu").glob("*/*/output.json")):
        for row in json.loads(file.read_text("utf-8")):
            options = [row["index2ans"][letter] for letter in row.get("all_choices") or []]
            doc = {"question_type": row["question_type"], "answer": row["answer"], "options": repr(options)}
            yield Item(f"mmmu/{file.parts[-3]}", row["id"], str(row["response"]), doc, None)


def bbh(data: Path) -> Iterator[Item]:
    """Codex with and without reasoning; the authors' script compares what follows "So the answer is"."""
    questions = {
        f"{file.stem}/{number}": example["input"]
        for file in sorted((data / "benchmarks" / "bbh" / "bbh").glob("*.json"))
        for number, example in enumerate(json.loads(file.read_text("utf-8"))["examples"])
    }
    for file in sorted((data / "recorded" / "bbh").glob("*.jsonl")):
        for row in rows_of(file):
            identity = str(row["id"])
            if identity in questions:
                doc = {"input": questions[identity], "target": row["gold"], "config": row["task"]}
                said = row["response"].split("So the answer is")[-1].strip().split("\n")[0].rstrip(".").strip()
                correct = said == row["gold"]
                yield Item(f"bbh/{file.stem}", identity, row["response"], doc, correct, said, questions[identity])


def olympiadbench(data: Path) -> Iterator[Item]:
    """The authors' own examples for their scorer: two answers, and whether they are equal."""
    file = data / "recorded" / "olympiadbench" / "scoring_examples.json"
    for number, row in enumerate(json.loads(file.read_text("utf-8"))):
        for at, answer in enumerate(row["Ans"]):
            reference = row["GT"]
            kind = "Equation" if "=" in reference and "," not in reference else "Numerical"
            kind = "Tuple" if reference.strip(" $").startswith(("(", "[", "\\left")) else kind
            doc = {
                "final_answer": [reference],
                "answer_type": kind,
                "is_multiple_answer": "," in reference and kind == "Numerical",
                "error": str(answer.get("precision", "")) or None,
            }
            response = answer["answer"] if "boxed" in answer["answer"] else f"\\boxed{{{answer['answer']}}}"
            yield Item("olympiadbench/scoring_examples", f"{number}/{at}", response, doc, answer["equal"])


def mathverse(data: Path) -> Iterator[Item]:
    """The authors' templates of an output: five versions of one problem, and its text."""
    for file in sorted((data / "recorded" / "mathverse").glob("*.json")):
        for row in json.loads(file.read_text("utf-8")):
            yield Item(
                f"mathverse/{file.stem}", row["sample_index"], row["model_answer"], row, None, None, row["question"]
            )


DIRECT: dict[str, Callable[[Path], Iterator[Item]]] = {
    "mathvista": mathvista,
    "mmmu_pro": mmmu_pro,
    "mmmu": mmmu,
    "bbh": bbh,
    "olympiadbench": olympiadbench,
    "mathverse": mathverse,
}
"""Task -> its recorded replies below a data folder."""


def dynamath_tables(data: Path) -> Iterator[tuple[str, float, float, float, float]]:
    """(model, average and worst case by our metrics, the same from the table's own column) of DynaMath's verdicts."""
    from ares_eval.results import TaskMeta, summarise
    from ares_eval.types import Record, Verdict

    for file in sorted((data / "recorded" / "dynamath").glob("*.csv")):
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = [row for row in csv.reader(lines) if row and row[0].lstrip("Q").isdigit()]
        records = [
            Record(
                task="t",
                sample=f"{row[0]}/{variant}",
                draw=0,
                group=row[0],
                key="k",
                prompt="p",
                text="said",
                verdict=Verdict("correct" if row[variant].strip() == "correct" else "incorrect", "recorded"),
            )
            for row in rows
            for variant in range(1, 11)
        ]
        meta = TaskMeta("t", metrics=("worst_case",), questions=len(records), groups={row[0]: 10 for row in rows})
        found = summarise(records, {"t": meta})["tasks"]["t"]["metrics"]
        counts = [int(row[11]) for row in rows]
        table = (sum(counts) / 10 / len(rows), sum(count == 10 for count in counts) / len(rows))
        yield file.stem, found["average_case"], found["worst_case"], *table
