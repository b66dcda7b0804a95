"""The pictures of a question, found again: a run keeps their digests only.

The task is loaded by the name, and from the folder, that the run's manifest says, and a picture is shown only where its
digest is the one that was sent. Task files that a manifest names are not loaded (they may hold code), nor is anything
downloaded: what is not on this machine is said to be missing.
"""

from __future__ import annotations

import base64
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from ares_eval.records import Run
from ares_eval.types import Json, Picture, PictureError, PicturePart

KEPT = 256
"""Questions whose pictures stay known."""

TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


class NoPicture(Exception):
    """A picture that cannot be shown; the message says why."""


class Pictures:
    """Finds pictures; ``dataset_dir`` and ``include_path`` replace what the manifests say."""

    def __init__(self, dataset_dir: Path | None = None, include_path: Sequence[Path] = ()) -> None:
        self._dataset_dir, self._include_path = dataset_dir, tuple(include_path)
        self._known: OrderedDict[tuple[Path, str, str], tuple[Picture, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, run: Run, task: str, sample: str, digest: str) -> tuple[str, bytes]:
        """(media type, bytes) of the picture as it was sent; raises NoPicture."""
        from ares_eval.tasks import PixelLimits, prepare

        settings = run.manifest.get("settings") or {}
        try:
            limits = PixelLimits(int(settings["min_pixels"]), int(settings["max_pixels"]))
        except (KeyError, TypeError, ValueError):
            limits = PixelLimits()
        with self._lock:
            pictures = self._of(run, settings, task, sample)
        for picture in pictures:
            try:
                prepared = prepare(picture, limits)
                if prepared.digest == digest:
                    head, _, body = prepared.data_url().partition(",")
                    kind = head.removeprefix("data:").removesuffix(";base64")
                    if kind not in TYPES:
                        raise NoPicture(f"a picture of type {kind} is not shown")
                    return kind, base64.b64decode(body)
            except (OSError, PictureError) as error:
                raise NoPicture(f"the picture cannot be read: {error}") from None
        raise NoPicture("the task's data has other pictures now than were sent")

    def _of(self, run: Run, settings: Json, task: str, sample: str) -> tuple[Picture, ...]:
        key = (run.folder, task, sample)
        if key not in self._known:
            self._known[key] = self._load(settings, task, sample)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def _load(self, settings: Json, task: str, sample: str) -> tuple[Picture, ...]:
        # Both libraries read these when they are imported.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
        from ares_eval import tasks

        if ":" in task:
            raise NoPicture(f"{task} belongs to another registry, from which pictures are not loaded again")
        named = settings.get("dataset_dir")
        folder = self._dataset_dir or (Path(named) if named else None)
        try:
            found = tasks.load(task, dataset_dir=folder, include_path=self._include_path)
            for one in found.samples():
                if one.id == sample:
                    parts = [part for message in one.messages for part in message.parts]
                    return tuple(part.picture for part in parts if isinstance(part, PicturePart))
        except (tasks.TaskError, OSError) as error:
            raise NoPicture(f"{error} (--dataset-dir says where the data lies)") from None
        raise NoPicture(f"{task} has no question {sample!r} now")
