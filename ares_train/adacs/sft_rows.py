"""The rows of one part of the SFT files: chosen responses joined with their questions and texts, and checked.

A row is the question's turns and the response (conversation.py), pictures by reference, and where it comes from. Rows
that verl would refuse, or train on otherwise than meant, keep a reason instead of their messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ares_eval.types import Json
from ares_train.adacs import schemas, store, template_check, tiers
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.conversation import Wording, answered, asked
from ares_train.adacs.layout import SAMPLE_SETS, Layout, pool_of
from ares_train.adacs.placeholders import IMAGE
from ares_train.adacs.store import Stage
from ares_train.adacs.template_check import TemplateCheck

SETS = ("adacs", "vanilla")

AT_ONCE = 64
"""Rows that are checked together: their ids are Python integers, some 36 bytes each."""

REASONS: Mapping[str, str] = {
    **template_check.REASONS,
    "no_text": "the sample has a verdict but no text",
    "marks": "the question's marks are not as many as its pictures",
}

PART = pa.schema(
    [
        *schemas.SFT,
        ("modality", pa.string()),
        ("split", pa.string()),
        *((name, pa.bool_()) for name in SETS),
        ("length", pa.int32()),  # of the whole row as verl counts it; null where it was not checked
        ("left_out", pa.string()),  # one of REASONS; such rows have no messages
    ]
)


class RowMaker:
    """Makes parts one after the other; the student's template is loaded once."""

    def __init__(self, config: AdacsConfig, layout: Layout, name: str | None) -> None:
        settings = config.write
        self.layout, self.settings = layout, settings
        self.wording = Wording.of(config)
        self.check: TemplateCheck | None = None
        if settings.check and name is not None:
            self.check = template_check.load(name, config.rate.tokenizer_revision, settings.max_length)

    def part(self, number: int, questions: Path, rows: pa.Table) -> pa.Table:
        """The rows of one part, schema PART, in the order of its questions."""
        found = _questions(questions, set(rows["qid"].to_pylist()))
        order = {qid: place for place, qid in enumerate(found)}
        prompts = {qid: asked(question["messages"], self.wording) for qid, question in found.items()}
        held_out = dict(
            zip(found, _below(list(found), self.settings.seed, "val", self.settings.val_share), strict=True)
        )
        texts = self._texts(number, rows)
        made = sorted(rows.to_pylist(), key=lambda row: (order[row["qid"]], row["pool"], row["draw"]))
        for row in made:
            qid = row["qid"]
            text, reasoning = texts.get((row["pool"], qid, row["draw"]), (None, None))
            row["modality"], row["split"] = found[qid]["modality"], "val" if held_out[qid] else "train"
            row["images"] = [{"image": path} for path in found[qid]["images"]]
            row["messages"] = [*prompts[qid], answered(text or "", reasoning or "")]
            row["left_out"], row["length"] = _unusable(row, text or reasoning), None
            row.update({name: bool(row[name]) for name in SETS})
        self._check([row for row in made if row["left_out"] is None])
        for row in made:
            if row["left_out"] is not None:
                row["messages"], row["images"] = [], []
        return pa.Table.from_pylist(made, PART)

    def _check(self, rows: list[dict[str, Json]]) -> None:
        """Set ``length`` and ``left_out``."""
        if self.check is None:
            return
        wanted = []
        names = [f"{row['qid']} {row['pool']} {row['draw']}" for row in rows]
        sampled = _below(names, self.settings.seed, "check", self.settings.check)
        for row, drawn in zip(rows, sampled, strict=True):
            if self.check.holds_control(row["messages"][-1]["content"]):
                row["left_out"] = "control_token"
                continue
            images = [image["image"] for image in row["images"]]
            if drawn or not self.check.surely_fits(row["messages"], images):
                wanted.append((row, images))
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            results = self.check.check([(row["messages"], images) for row, images in some])
            for (row, _), result in zip(some, results, strict=True):
                row["length"], row["left_out"] = result.tokens, result.reason

    def _texts(self, number: int, rows: pa.Table) -> dict[tuple[str, str, int], tuple[str | None, str | None]]:
        """(text, reasoning) of the chosen responses by pool, question and draw."""
        wanted = set(zip(*(rows[name].to_pylist() for name in ("pool", "qid", "draw")), strict=True))
        found: dict[tuple[str, str, int], tuple[str | None, str | None]] = {}
        for sample_set in SAMPLE_SETS:
            path = Stage(self.layout.samples(sample_set), "").path(number)
            pool = pool_of(sample_set)
            if not path.is_file():
                continue
            for batch in store.batches([path], ["qid", "draw", "text", "reasoning"], rows=1024):
                keys = zip(batch["qid"].to_pylist(), batch["draw"].to_pylist(), strict=True)
                for place, (qid, draw) in enumerate(keys):
                    if (pool, qid, draw) in wanted:
                        found[pool, qid, draw] = (batch["text"][place].as_py(), batch["reasoning"][place].as_py())
        return found


def _questions(path: Path, wanted: set[str]) -> dict[str, dict[str, Json]]:
    """Turns, pictures and modality of the wanted questions of a part, in its order."""
    table = pq.read_table(path, columns=["qid", "messages", "images", "modality"])
    table = table.filter(pc.is_in(table["qid"], value_set=pa.array(sorted(wanted), pa.string())))
    return {row["qid"]: row for row in table.to_pylist()}


def _unusable(row: Mapping[str, Json], text: str | None) -> str | None:
    if not text:
        return "no_text"
    marks = sum(turn["content"].count(IMAGE) for turn in row["messages"])
    return "marks" if marks != len(row["images"]) else None


def _below(names: Sequence[str], seed: int, purpose: str, share: float) -> list[bool]:
    """Which of ``names`` fall into a seeded share of all names."""
    drawn: list[bool] = (tiers.ranks(names, seed, purpose).astype(np.float64) < share * 2.0**64).tolist()
    return drawn
