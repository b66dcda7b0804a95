"""Training checkpoints made Hugging Face folders (`ares-train merge`): see merging.py, and docs/checkpoints.md."""

from __future__ import annotations

from ares_train.merge.merging import Merged, merge

__all__ = ["Merged", "merge"]
