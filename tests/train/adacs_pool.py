"""A work folder as rate leaves it, from hand-made or random replies: lengths and verdicts, and texts where wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ares_train.adacs import config, schemas, store
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.layout import Layout

FINGERPRINT = "planted"


@dataclass(frozen=True)
class Draw:
    """A reply: its tokens and verdict (1 right, 0 wrong, -1 unverifiable, -2 not measured)."""

    tokens: int
    correct: int = 1
    truncated: bool = False
    well_formed: bool = True
    think: int = 0
    triggers: int = 0
    text: str | None = None


@dataclass(frozen=True)
class Planted:
    """A question with its replies."""

    qid: str
    estimator: Sequence[Draw]
    teacher: Sequence[Draw] = ()
    further: Sequence[Draw] = ()
    source: str = "s"
    modality: str = "text"
    prompt: str = "What is it?"
    images: Sequence[str] = field(default_factory=tuple)


def eight(right: int, tokens: int = 100, wrong_tokens: int | None = None) -> list[Draw]:
    """Eight replies of which ``right`` are right."""
    return [Draw(tokens if k < right else wrong_tokens or tokens, int(k < right)) for k in range(8)]


def configured(**sections: dict[str, Any]) -> AdacsConfig:
    """A configuration with these sections; few questions suffice for a median."""
    sections.setdefault("lengths", {}).setdefault("min_questions", 1)
    return config.from_dict({"ingest": {"sources": [{"name": "s", "path": "unused.jsonl"}]}, **sections})


def plant(work: Path, pool: Sequence[Planted], *, parts: int = 2, texts: bool = False) -> Layout:
    """Write W/rated, W/rates.parquet and the drops of rate; with ``texts`` W/questions and W/samples too."""
    layout = Layout(work)
    rated = store.Stage(layout.rated, FINGERPRINT)
    numbers = np.array_split(np.arange(len(pool)), parts)
    for part, members in enumerate(numbers):
        questions = [pool[i] for i in members]
        rows = [row for one in questions for row in _rows(one, part)]
        rated.write(part, pa.Table.from_pylist(rows, schemas.RATED), schemas.RATED)
        if texts:
            _write_texts(layout, part, questions)
    rates = [row for one in pool if (row := _rate(one)) is not None]
    store.write_artifact(layout.rates, pa.Table.from_pylist(rates, schemas.RATES), FINGERPRINT, schema=schemas.RATES)
    drops = [{"qid": one.qid, "reason": "few_valid"} for one in pool if _rate(one) is None]
    store.write_artifact(
        layout.rate_drops, pa.Table.from_pylist(drops, schemas.DROPPED), FINGERPRINT, schema=schemas.DROPPED
    )
    return layout


def _sets(one: Planted) -> list[tuple[str, str, int, Sequence[Draw]]]:
    return [
        ("estimator", "estimator", 0, one.estimator),
        ("resample", "estimator", len(one.estimator), one.further),
        ("teacher", "teacher", 0, one.teacher),
    ]


def _rows(one: Planted, part: int) -> list[dict[str, Any]]:
    return [
        {
            "qid": one.qid,
            "pool": pool,
            "draw": first + number,
            "source": one.source,
            "modality": one.modality,
            "tokens": None if draw.correct == -2 else draw.tokens,
            "think_tokens": None if draw.correct == -2 else draw.think,
            "correct": draw.correct,
            "reason": None if draw.correct == 1 else "planted",
            "truncated": draw.truncated,
            "well_formed": draw.well_formed,
            "triggers": draw.triggers,
            "hwe": None,
            "sample_part": f"samples/{name}/part-{part:05}.parquet",
        }
        for name, pool, first, draws in _sets(one)
        for number, draw in enumerate(draws)
    ]


def _rate(one: Planted) -> dict[str, Any] | None:
    valid = [draw.correct for draw in one.estimator if draw.correct >= 0]
    if not valid:
        return None
    p = sum(valid) / len(valid)
    return {
        "qid": one.qid,
        "source": one.source,
        "modality": one.modality,
        "n_valid": len(valid),
        "n_correct": sum(valid),
        "p": p,
        "tier": int(8 * p + 0.5),
        "flags": "" if len(valid) == len(one.estimator) else "few_valid",
    }


def _write_texts(layout: Layout, part: int, questions: Sequence[Planted]) -> None:
    rows = [
        {
            "qid": one.qid,
            "source": one.source,
            "modality": one.modality,
            "messages": [{"role": "user", "content": one.prompt}],
            "images": list(one.images),
            "references": ["1"],
            "answer_type": "number",
            "answer_policy": "{}",
            "choices": [],
            "extra": "{}",
        }
        for one in questions
    ]
    store.Stage(layout.questions, FINGERPRINT).write(
        part, pa.Table.from_pylist(rows, schemas.QUESTIONS), schemas.QUESTIONS
    )
    for number, name in enumerate(("estimator", "resample", "teacher")):
        replies = [
            {
                "qid": one.qid,
                "source": one.source,
                "draw": first + place,
                "text": draw.text,
                "reasoning": "",
                "finish_reason": "length" if draw.truncated else "stop",
            }
            for one in questions
            for _, _, first, draws in [_sets(one)[number]]
            for place, draw in enumerate(draws)
        ]
        table = pa.Table.from_pylist(replies, schemas.SAMPLES)
        store.Stage(layout.samples(name), FINGERPRINT).write(part, table, schemas.SAMPLES)  # type: ignore[arg-type]
