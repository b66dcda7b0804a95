"""What lm-eval needs to run these tasks as ARES does: datasets, filters and scores. Our own reader imports none of it.

Stock lm-eval finds this file beside the task files (`lm_eval --include_path tasks`). `ares` must be installed, or these
files lie in its checkout: scoring is `ares_eval.verify`'s, and what a row is, the task's own definition says.

A task file names ``dataset_NAME``, ``rows_NAME`` and ``score_NAME``, NAME being its own.
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


def dataset_smoke_text(**_: Any) -> Any:
    """The questions beside this file."""
    return _shipped("smoke_text.jsonl", ())


def dataset_smoke_pictures(**_: Any) -> Any:
    """The questions beside this file, with their pictures."""
    return _shipped("smoke_pictures.jsonl", ("image", "image_2"))


def __getattr__(name: str) -> Callable[..., Any]:
    """score_NAME: lm-eval's `process_results`; rows_NAME: `process_docs`; dataset_NAME: `custom_dataset`."""
    prefix, _, task = name.partition("_")
    kinds = {"score": _score, "rows": _rows, "dataset": _dataset}
    if prefix not in kinds or not (_HERE / f"{task}.yaml").is_file():
        raise AttributeError(name)

    def function(*arguments: Any, **_: Any) -> Any:
        return kinds[prefix](task, *arguments)

    function.__name__ = name
    return function


def _dataset(task: str) -> Any:
    """All configs and variants of a task as one split, in ARES' order, with the columns ``config`` and ``variant``."""
    import datasets

    definition = _maker(task)[1]
    hub = definition.hub
    pieces = []
    for config in hub.configs or (hub.config,):
        whole = datasets.load_dataset(hub.path, config, revision=hub.revision)
        splits = definition.variants or [next(split for split in definition.splits if split in whole)]
        for number, split in enumerate(splits, 1):
            piece = whole[split]
            if hub.configs:
                piece = piece.add_column("config", [config] * len(piece))
            if definition.variants:
                piece = piece.add_column("variant", [number] * len(piece))
            pieces.append(piece)
    joined = datasets.concatenate_datasets(pieces)
    if definition.variants or hub.interleaved:
        starts = [sum(len(piece) for piece in pieces[:at]) for at in range(len(pieces))]
        longest = max(len(piece) for piece in pieces)
        order = [start + at for at in range(longest) for start, p in zip(starts, pieces, strict=True) if at < len(p)]
        joined = joined.select(order)
    return datasets.DatasetDict({definition.config["test_split"]: joined})


def _rows(task: str, dataset: Any) -> Any:
    """The rows that are questions of the task (`metadata.keep`)."""
    keeps = _maker(task)[0].keeps_doc
    # Without the pictures, which would be decoded only to be thrown away.
    bare = dataset.remove_columns([name for name, kind in dataset.features.items() if _is_picture(kind)])
    return dataset.select([number for number, doc in enumerate(bare) if keeps(doc)])


def _is_picture(kind: Any) -> bool:
    import datasets

    return isinstance(kind, datasets.Image) or isinstance(getattr(kind, "feature", None), datasets.Image)


def _score(task: str, doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
    """Mean over the draws: right answers, and answers that no rule can decide (never counted as right)."""
    from ares_eval.verify import verify

    maker = _maker(task)[0]
    if "accepted" in doc:
        doc = {**doc, "policy": json.loads(doc["policy"]), "answer": doc["accepted"]}
    spec, reference = maker.answer_of(doc), maker.reference_of(doc)
    draws = results[0] if isinstance(results[0], list) else results
    verdicts = [verify(response, reference, spec).value for response in draws]
    return {
        "acc": sum(value == "correct" for value in verdicts) / len(verdicts),
        "unverifiable": sum(value == "unverifiable" for value in verdicts) / len(verdicts),
    }


@cache
def _maker(task: str) -> tuple[Any, Any]:
    """What makes samples of a task's rows, and its definition."""
    if importlib.util.find_spec("ares_eval") is None and (_HERE.parent / "ares_eval").is_dir():
        sys.path.insert(0, str(_HERE.parent))
    from ares_eval.tasks.definition import read_definition
    from ares_eval.tasks.samples import SampleMaker

    definition = read_definition(_HERE / f"{task}.yaml")
    return SampleMaker(definition), definition


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
