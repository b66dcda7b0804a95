"""verl's rows in TransferQueue as AEPO's dense arrays, and what AEPO makes of them back as rows' fields.

Pure over tensordicts: no Ray, no queue. Padding rows (tag ``is_padding``) are left out of the arrays and get zeros
back, so that they enter no mean, no bin and no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ares_eval.analysis.words import TriggerWords, trigger_tokens
from ares_train.aepo.rollouts import Rollouts, rollouts
from ares_train.aepo.step import Shaped
from ares_train.rl.fields import KL_CLASS, KL_WEIGHT, RECORD

READ = ("uid", "response_mask", "rm_scores", "entropy", "extra_fields")
"""Fields of a row that ``read`` needs."""

RIGHT = 0.5
"""A score from here on is a right answer, where the reward function tells no ``acc``."""


class BadRow(ValueError):
    """A row that the trainer cannot use; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The real rows of a batch: their arrays, their places in it (i64[B]), their sessions' records ({} for verl's own
    agent loops), their stock rewards f32[B] and the lengths i64[N] of all N rows, padding included."""

    rollouts: Rollouts
    places: np.ndarray
    records: list[dict[str, Any]]
    scores: np.ndarray
    lengths: np.ndarray


def read(keys: Sequence[str], tags: Sequence[Mapping[str, Any]], data: Any, *, words: TriggerWords | None = None,
         texts: Any = None) -> Batch:  # fmt: skip
    """The batch of ``keys``, whose fields (``READ``) are in the tensordict ``data``, in the same order.

    ``words`` marks trigger words, with ``texts(token_ids) -> list of the tokens' texts`` and the field ``responses``.
    BadRow for a row without a reward, an entropy or its parent.
    """
    places = np.flatnonzero([not tag.get("is_padding", False) for tag in tags])
    offsets = data["response_mask"].offsets()
    lengths = offsets.diff().numpy()
    width = int(lengths[places].max(initial=1))
    extra = [_plain(value) for value in data["extra_fields"]]
    uids = [str(_plain(value)) for value in data["uid"]]
    records = [dict(extra[place].get(RECORD) or {}) for place in places]
    scores = np.array([float(row.sum()) for row in data["rm_scores"].unbind()], dtype=np.float32)[places]
    at = {key: number for number, key in enumerate(np.array(keys, dtype=object)[places])}
    parent = np.full(len(places), -1, dtype=np.int64)
    fork_at = np.zeros(len(places), dtype=np.int64)
    for number, record in enumerate(records):
        if not record or record["base"]:
            continue
        key = f"{uids[places[number]]}_{record['parent']}_0"
        if key not in at:
            raise BadRow(f"the parent {key} of the fork {keys[places[number]]} is not in the batch")
        parent[number], fork_at[number] = at[key], record["fork_at"]
    mask = _dense(data["response_mask"], places, width).astype(np.bool_)
    for number in np.flatnonzero(parent >= 0).tolist():
        mask[number, : fork_at[number]] = True
    trigger = None
    if words is not None:
        replies = [texts(row.tolist()) for row in _rows(data["responses"], places)]
        marks = trigger_tokens(replies, words)
        trigger = np.zeros(mask.shape, dtype=np.bool_)
        for number, length in enumerate(lengths[places].tolist()):
            trigger[number, :length] = marks.row(number)
    _, question = np.unique([uids[place] for place in places], return_inverse=True)
    quantiles = [record.get("quantile") for record in records]
    made = rollouts(
        _dense(data["entropy"], places, width),
        mask,
        np.array([_right(extra[place], score) for place, score in zip(places, scores.tolist(), strict=True)]),
        question,
        parent=parent,
        fork_at=fork_at,
        truncated=np.array([bool(record.get("truncated", False)) for record in records]),
        trigger=trigger,
        scores=scores,
        rollout_quantile=np.array([np.nan if value is None else value for value in quantiles]),
    )
    return Batch(made, places, records, scores, lengths)


def rewards(batch: Batch, values: np.ndarray) -> torch.Tensor:
    """Nested f32, one row for each row of the batch: ``values`` [B] on the last token of the real ones, 0 elsewhere."""
    whole = np.zeros(len(batch.lengths), dtype=np.float32)
    whole[batch.places] = values
    made = []
    for length, value in zip(batch.lengths.tolist(), whole.tolist(), strict=True):
        row = torch.zeros(length, dtype=torch.float32)
        row[-1] = value
        made.append(row)
    return torch.nested.as_nested_tensor(made, layout=torch.jagged)


def advantages(batch: Batch, values: np.ndarray, response_mask: torch.Tensor) -> torch.Tensor:
    """Nested f32: ``values`` [B] on every trained token of its row, 0 elsewhere and in padding rows."""
    whole = np.zeros(len(batch.lengths), dtype=np.float32)
    whole[batch.places] = values
    made = [row.to(torch.float32) * value for row, value in zip(response_mask.unbind(), whole.tolist(), strict=True)]
    return torch.nested.as_nested_tensor(made, layout=torch.jagged)


def kl_fields(batch: Batch, shaped: Shaped) -> dict[str, Any]:
    """``ares_kl_weight`` (nested f32) and ``ares_kl_class`` (nested i8), see ares_train.rl.fields."""
    counted = batch.rollouts.mask & shaped.keep[:, None]
    classes = np.where(counted, 1 + 2 * shaped.bins[:, None] + shaped.valid, 0).astype(np.int8)
    return {KL_WEIGHT: _nested(batch, shaped.kl_weight), KL_CLASS: _nested(batch, classes)}


def _nested(batch: Batch, values: np.ndarray) -> torch.Tensor:
    numbers = {place: number for number, place in enumerate(batch.places.tolist())}
    made = []
    for place, length in enumerate(batch.lengths.tolist()):
        number = numbers.get(place)
        row = np.zeros(length, dtype=values.dtype) if number is None else np.ascontiguousarray(values[number, :length])
        made.append(torch.from_numpy(row))
    return torch.nested.as_nested_tensor(made, layout=torch.jagged)


def _dense(nested: torch.Tensor, places: np.ndarray, width: int) -> np.ndarray:
    """The rows ``places`` of a nested tensor, [B, width], 0 behind their ends."""
    rows = _rows(nested, places)
    made = np.zeros((len(rows), width), dtype=rows[0].numpy().dtype if rows else np.float32)
    for number, row in enumerate(rows):
        made[number, : len(row)] = row.numpy()
    return made


def _rows(nested: torch.Tensor, places: np.ndarray) -> list[torch.Tensor]:
    rows = nested.unbind()
    return [rows[place] for place in places]


def _right(extra: Mapping[str, Any], score: float) -> float:
    """1.0 for a right answer: ``acc`` of the reward function, else the score."""
    told = (extra.get("reward_extra_info") or {}).get("acc")
    return float((score if told is None else float(told)) >= RIGHT)


def _plain(value: Any) -> Any:
    """tensordict hands out what is no tensor bare or wrapped, depending on how it was put."""
    return getattr(value, "data", value) if not isinstance(value, dict | str) else value
