"""Questions to verl's parquet for reinforcement learning: prompts, pictures by reference, ground truth, answer spec.

Ingest does the reading (ares_train.adacs.ingest): any source, ids by content, duplicates and benchmark questions left
out, unusable rows in quarantine, the order shuffled by seed. Here its parts become verl's rows (data_source, prompt,
images, ability, reward_model, extra_info), prompts checked against the length limit with the model's own template. The
verdict in training is evaluation's: ``reward.custom_reward_function.path=pkg://ares_eval.verify.reward``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import pyarrow as pa

from ares_eval.tasks.prompts import style
from ares_eval.types import Json, Message, TextPart
from ares_train.adacs import pipeline, store, template_check
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout
from ares_train.adacs.questions import question_text
from ares_train.adacs.schemas import MESSAGE
from ares_train.adacs.template_check import TemplateCheck
from ares_train.adacs.ticker import Ticker

ROWS = 512
"""Rows made at a time."""

LONGEST = 1 << 30
"""Limit given to the template check where only lengths are wanted of it."""


@dataclass(frozen=True, kw_only=True)
class RlSettings:
    """What is made of the questions. ``model``: whose template counts a prompt's tokens; None: lengths are not checked.

    ``validation``: questions that go to the second file, the first ones of the shuffled order.
    """

    system_prompt: str
    prompt_style: Literal["system", "user-suffix"] = "system"
    model: str | None = None
    model_revision: str | None = None
    max_prompt_length: int = 4096
    validation: int = 0
    ability: str = "math"


def schema(several: bool) -> pa.Schema:
    """verl's columns; ``several``: ground truths are lists, as some question accepts more than one answer."""
    truth = pa.list_(pa.string()) if several else pa.string()
    answer = pa.struct([("type", pa.string()), ("policy", pa.string()), ("choices", pa.list_(pa.string()))])
    extra = pa.struct(
        [
            ("index", pa.int64()),
            ("split", pa.string()),
            ("qid", pa.string()),
            ("source", pa.string()),
            ("question", pa.string()),
            ("answer", answer),
            ("extra", pa.string()),
        ]
    )
    return pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", pa.list_(MESSAGE)),
            ("images", pa.list_(pa.string())),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", truth)])),
            ("extra_info", extra),
        ]
    )


def write(
    config: AdacsConfig,
    settings: RlSettings,
    work: Path,
    output: Path,
    validation: Path | None,
    note: Callable[[str], None],
) -> dict[str, Json]:
    """Ingest into ``work`` and write ``output`` (and ``validation``); the report, which is written beside ``output``.

    Raises AdacsError.
    """
    pipeline.run(config, work, ["ingest"], note)
    layout = Layout(work)
    parts = store.opened(layout.questions).parts()
    inputs = [store.digest(path) for path in parts]
    student = None if settings.model is None else template_check.identity(settings.model, settings.model_revision)
    made_by = store.fingerprint("rl", settings, student)
    report_file = output.with_name(output.name + ".report.json")
    files = [path for path in (validation, output) if path is not None]
    if all(store.artifact_done(path, made_by, inputs) for path in [*files, report_file]):
        note(f"data: {output} is there already")
        found: dict[str, Json] = msgspec.json.decode(report_file.read_bytes())
        return found
    store.begin_artifact(report_file)
    several = any(len(row) > 1 for batch in store.batches(parts, ["references"]) for row in _lists(batch))
    total = sum(batch.num_rows for batch in store.batches(parts, ["qid"]))
    rows = _Rows(settings, Ticker("data", "questions", total, note))
    made = rows.all(parts)
    counts: dict[str, int] = {}
    if validation is not None:
        counts["val"] = _put(validation, "val", _first(made, settings.validation), several, made_by, inputs)
        if counts["val"] < settings.validation:
            raise AdacsError(
                f"only {counts['val']} questions are left, fewer than the {settings.validation} to validate"
            )
    counts["train"] = _put(output, "train", made, several, made_by, inputs)
    if not counts["train"]:
        raise AdacsError(f"no question is left to train on: {dict(rows.dropped) or 'all of them validate'}")
    report = _report(layout, settings, counts, rows)
    store.write_artifact(report_file, report, made_by, inputs)
    return report


def _lists(batch: pa.RecordBatch) -> list[list[str]]:
    found: list[list[str]] = batch.column("references").to_pylist()
    return found


class _Rows:
    """Questions as verl's rows, those that fit; ``dropped`` counts the others by reason."""

    def __init__(self, settings: RlSettings, ticker: Ticker) -> None:
        self._settings, self._ticker = settings, ticker
        self._check: TemplateCheck | None = None
        if settings.model is not None:
            self._check = template_check.load(settings.model, settings.model_revision, LONGEST)
        self.dropped: Counter[str] = Counter()
        self.longest = 0

    def all(self, parts: Sequence[Path]) -> Iterator[dict[str, Any]]:
        """In the order of the parts."""
        for batch in store.batches(parts, rows=ROWS):
            for row in batch.to_pylist():
                prompt = prompt_of(row["messages"], self._settings)
                reason = self._too_long(prompt, row["images"])
                self._ticker.add(1)
                if reason is None:
                    yield rl_row(row, prompt, self._settings.ability)
                else:
                    self.dropped[reason] += 1

    def _too_long(self, prompt: Sequence[Mapping[str, str]], images: Sequence[str]) -> str | None:
        if self._check is None:
            return None
        try:
            tokens = self._check.prompt_tokens(prompt, images)
        except (OSError, ValueError):
            return "picture" if self._check.processor is not None else "no_processor"
        if tokens > self._settings.max_prompt_length:
            return "too_long"
        self.longest = max(self.longest, tokens)
        return None


def prompt_of(messages: Sequence[Mapping[str, str]], settings: RlSettings) -> list[dict[str, str]]:
    """A question's turns with the system prompt in its place; marks stay marks."""
    turns = tuple(_turn(turn) for turn in messages)
    styled = style(turns, settings.system_prompt, settings.prompt_style)
    return [{"role": turn.role, "content": "".join(_text(part) for part in turn.parts)} for turn in styled]


def _turn(turn: Mapping[str, str]) -> Message:
    role = cast(Literal["system", "user", "assistant"], turn["role"])
    return Message(role, (TextPart(turn["content"]),))


def _text(part: object) -> str:
    assert isinstance(part, TextPart)
    return part.text


def rl_row(row: Mapping[str, Any], prompt: list[dict[str, str]], ability: str) -> dict[str, Any]:
    """A row of schema QUESTIONS as verl's; ``index`` and ``split`` are set where it is written."""
    answer = {"type": row["answer_type"], "policy": row["answer_policy"], "choices": row["choices"]}
    return {
        "data_source": row["source"],
        "prompt": prompt,
        "images": row["images"],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": row["references"]},
        "extra_info": {
            "qid": row["qid"],
            "source": row["source"],
            "question": question_text(row),
            "answer": answer,
            "extra": row["extra"],
        },
    }


def _first(rows: Iterator[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """At most ``count`` of the rows; the others stay in the iterator."""
    for _ in range(count):
        row = next(rows, None)
        if row is None:
            return
        yield row


def _put(
    path: Path, split: str, rows: Iterator[dict[str, Any]], several: bool, made_by: str, inputs: Sequence[str]
) -> int:
    """Write one split; how many rows it has."""
    columns = schema(several)

    def batches() -> Iterator[pa.RecordBatch]:
        held: list[dict[str, Any]] = []
        for index, row in enumerate(rows):
            truth = row["reward_model"]["ground_truth"]
            row["reward_model"]["ground_truth"] = truth if several else truth[0]
            row["extra_info"] |= {"index": index, "split": split}
            held.append(row)
            if len(held) == ROWS:
                yield pa.RecordBatch.from_pylist(held, schema=columns)
                held = []
        yield pa.RecordBatch.from_pylist(held, schema=columns)

    return store.write_artifact(path, batches(), made_by, inputs, schema=columns).rows


def _report(layout: Layout, settings: RlSettings, counts: Mapping[str, int], rows: _Rows) -> dict[str, Json]:
    ingested = msgspec.json.decode(layout.ingest_report.read_bytes())
    length = {"checked_with": settings.model, "limit": settings.max_prompt_length, "longest_kept": rows.longest or None}
    return {
        "rows": dict(counts),
        "dropped": dict(sorted(rows.dropped.items())),
        "prompt_length": length if settings.model is not None else None,
        "ingest": ingested,
        "contamination": str(layout.contamination_report),
        "quarantine": str(layout.quarantine),
    }
