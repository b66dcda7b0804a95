"""``vlm:DATASET``: the datasets of VLMEvalKit as tasks, by the names they have there.

Their prompts (pictures and texts interleaved) and their scores, without torch and without their package's start; what
it takes and what differs is in docs/vlmevalkit.md. A name that VLMEvalKit does not know is a table of one's own:
NAME.tsv in ``--dataset-dir``, in VLMEvalKit's columns.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ares_eval.integrations import vlmeval_data as data
from ares_eval.integrations import vlmeval_process as process
from ares_eval.integrations.vlmeval_task import VlmScorer, VlmTask
from ares_eval.tasks.errors import DataUnavailable, UnknownTask
from ares_eval.tasks.scoring import JudgeModel

PREFIX = "vlm"


class VlmSource:
    """The task source with the prefix ``vlm`` (ares_eval.tasks.catalog.TaskSource)."""

    def names(self) -> Iterable[str]:
        """Every dataset of pictures or texts that the installed VLMEvalKit has; none where it is not installed."""
        if data.version() is None:
            return []
        return [f"{PREFIX}:{name}" for name, one in data.index().datasets.items() if one.modality != "VIDEO"]

    def load(
        self,
        name: str,
        *,
        dataset_dir: str | Path | None = None,
        limit: int | None = None,
        judge: JudgeModel | None = None,
        **_: Any,
    ) -> VlmTask:
        """The task; its prompts are made now. Raises UnknownTask, DataUnavailable."""
        short = name.partition(":")[2]
        directory = None if dataset_dir is None else Path(dataset_dir)
        if not re.fullmatch(r"[\w+-]+(\.[\w+-]+)*", short):
            raise UnknownTask(name, cause=f"{short!r} is no name of a dataset")
        try:
            known = data.index()
        except process.ChildFailed as error:
            mend = "use Linux on x86-64 or ARM64" if error.kind == "NoLock" else data.INSTALL
            raise DataUnavailable(name, f"VLMEvalKit cannot be used: {error}", mend) from None
        dataset = known.datasets.get(short)
        if dataset is None and not any((place / f"{short}.tsv").is_file() for place in data.places(directory)):
            near = difflib.get_close_matches(short, known.datasets, n=3, cutoff=0.5)
            needs = f" (not reached without more packages: {', '.join(sorted(known.missing))})" if not near else ""
            raise UnknownTask(name, [f"{PREFIX}:{one}" for one in near], f"VLMEvalKit has no {short!r}{needs}")
        if dataset is not None and dataset.modality == "VIDEO":
            raise DataUnavailable(name, "it asks about videos", "run it with the full package: ares-vlmeval")
        table = data.find(short, dataset, directory)
        place = data.prepared(short, dataset, table, limit)
        return VlmTask(name, dataset, table, place, VlmScorer(short, dataset, table, judge))


SOURCE = VlmSource()
