"""VLMEvalKit's TSV files as a Table: rows by their columns, pictures (base64) by reference."""

from __future__ import annotations

from pathlib import Path

from ares_eval.tasks.definition import Definition
from ares_eval.tasks.sources import Source


def tsv_source(definition: Definition, dataset_dir: Path) -> Source | None:
    """The task's rows from `DIR/<TSVName>.tsv`; None where there is no such file."""
    return None
