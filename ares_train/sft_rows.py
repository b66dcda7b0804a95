"""verl's fine-tuning dataset, with rows of text and rows of pictures in one batch.

verl 0.9.1 fails on such a batch (its collator wants every row to have vision inputs or none), on a row whose ``images``
is null, and on a model of text where the column is there at all. Set by ``data.custom_cls``:
``{path: pkg://ares_train.sft_rows, name: Rows}``.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset


class Rows(MultiTurnSFTDataset):
    """Columns: ``messages`` (role, content with ``<image>`` where a picture goes) and ``images``, one dict a picture:
    ``{"image": path or URL}`` or ``{"bytes": ...}``; empty or null for text."""

    def __getitem__(self, item: int) -> dict[str, Any]:
        row: dict[str, Any] = super().__getitem__(item)
        if self.processor is not None:
            row.setdefault("multi_modal_inputs", None)
        return row

    def _build_messages(self, example: dict[str, Any]) -> Any:
        pictures = example.get(self.image_key)
        if pictures is None or pictures is pd.NA or len(pictures) == 0:
            example = {name: value for name, value in example.items() if name != self.image_key}
        return super()._build_messages(example)
