"""What lm-eval needs to run these tasks as ARES does: datasets, filters and scores. Our own reader imports none of it.

Stock lm-eval finds this file beside the task files (`lm_eval --include_path tasks`). Building prompts needs nothing
but `datasets`; scoring uses `ares_eval.verify`, so `ares` must be installed or these files lie in its checkout.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def keep_all(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:  # noqa: ARG001
    """A filter that hands on every draw of a question, so that `repeats` is averaged and not cut to the first."""
    return resps


def with_answer(dataset: Any) -> Any:
    """Leave out the rows that have no answer (LogicVista's v1_382)."""
    return dataset.filter(lambda doc: bool(str(doc["answer"] or "").strip()))


def dataset_dynamath(**_: Any) -> Any:
    """All ten variants as one split, question by question, with the variant's number as a column."""
    import datasets

    variants = [
        datasets.load_dataset("DynaMath/DynaMath_Sample", split=f"sample_variant{number}") for number in range(1, 11)
    ]
    numbered = [data.add_column("variant", [number] * len(data)) for number, data in enumerate(variants, 1)]
    return datasets.DatasetDict({"test": datasets.interleave_datasets(numbered)})


def dataset_smoke_text(**_: Any) -> Any:
    """The questions beside this file."""
    return _shipped("smoke_text.jsonl", ())


def dataset_smoke_pictures(**_: Any) -> Any:
    """The questions beside this file, with their pictures."""
    return _shipped("smoke_pictures.jsonl", ("image", "image_2"))


def __getattr__(name: str) -> Callable[..., Any]:
    """``score_NAME``: lm-eval's `process_results` for the task NAME."""
    prefix, _, task = name.partition("_")
    if prefix != "score" or not (_HERE / f"{task}.yaml").is_file():
        raise AttributeError(name)

    def process_results(doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
        return _score(task, doc, results)

    process_results.__name__ = name
    return process_results


def _score(task: str, doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Mean over the draws: right answers, and answers that no rule can decide (never counted as right)."""
    verify, spec_of, reference_of = _scorer(task)
    if "accepted" in doc:
        doc = {**doc, "policy": json.loads(doc["policy"]), "answer": doc["accepted"]}
    spec, reference = spec_of(doc), reference_of(doc)
    draws = results[0] if isinstance(results[0], list) else results
    verdicts = [verify(response, reference, spec).value for response in draws]
    return {
        "acc": sum(value == "correct" for value in verdicts) / len(verdicts),
        "unverifiable": sum(value == "unverifiable" for value in verdicts) / len(verdicts),
    }


@cache
def _scorer(task: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    if importlib.util.find_spec("ares_eval") is None and (_HERE.parent / "ares_eval").is_dir():
        sys.path.insert(0, str(_HERE.parent))
    from ares_eval.tasks.definition import read_definition
    from ares_eval.tasks.samples import SampleMaker
    from ares_eval.verify import verify

    maker = SampleMaker(read_definition(_HERE / f"{task}.yaml"))
    return verify, maker.answer_of, maker.reference_of


def _shipped(name: str, pictures: tuple[str, ...]) -> Any:
    import datasets

    rows = [json.loads(line) for line in (_HERE / name).read_text("utf-8").splitlines() if line.strip()]
    for row in rows:
        # A table's column has one type: no other object in every row, no list here and text there.
        row["policy"] = json.dumps(row["policy"])
        row["accepted"] = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        row["answer"] = row["accepted"][0]
        for column in pictures:
            row[column] = str(_HERE / row[column]) if row.get(column) else None
    data = datasets.Dataset.from_list(rows)
    for column in pictures:
        data = data.cast_column(column, datasets.Image())
    return datasets.DatasetDict({"test": data})
