"""The runs below a folder and their indexes, made when they are first asked for.

An index is renewed when its run has grown, at most every RENEW seconds. HWE figures need all traces of a run, so they
are counted in the background; until then a run's records have none.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ares_eval import records
from ares_eval.analysis.tokens import NotRecorded
from ares_eval.records import Run, RunError
from ares_eval.types import Json
from ares_eval.view import index
from ares_eval.view.index import Files

DEPTH = 5
"""Folders below the given one in which runs are looked for."""

MOST_RUNS = 5000
RENEW = 10.0
"""Seconds between looks whether a run has grown."""


class UnknownRun(Exception):
    """A run that is not below the folder."""


class Library:
    """All runs below ``folder``; safe for threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._spare = tempfile.TemporaryDirectory(prefix="ares-view-")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ares-view-tokens")
        self._lock = threading.Lock()
        self._one_at_a_time: dict[Path, threading.Lock] = {}
        self._files: dict[Path, tuple[float, Files]] = {}
        self._tokens: dict[Path, tuple[Path, Future[Files]]] = {}

    def close(self) -> None:
        """Stop counting and remove what could not be kept beside the runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._spare.cleanup()

    def runs(self) -> list[tuple[str, Run]]:
        """(name, run) of every run, newest first; folders whose manifest cannot be read are left out."""
        found = []
        for path in self._folders():
            try:
                run = records.load_run(path)
            except (RunError, ValueError):
                continue
            found.append((self.name(path), run))
        return sorted(found, key=lambda pair: str(pair[1].manifest.get("created") or ""), reverse=True)

    def name(self, path: Path) -> str:
        """A run's name: its place below the folder."""
        return str(path.relative_to(self.folder)) if path != self.folder else "."

    def run(self, name: str) -> Run:
        """The run of that name; raises UnknownRun where there is none below the folder."""
        path = self.folder if name == "." else self.folder / name
        # A name is only good if looking for runs would have found it: no way leads outside.
        if not name or ".." in Path(name).parts or Path(name).is_absolute() or not (path / records.MANIFEST).is_file():
            raise UnknownRun(f"no run {name!r} below {self.folder}")
        try:
            return records.load_run(path)
        except (RunError, ValueError) as error:
            raise UnknownRun(str(error)) from None

    def files(self, run: Run) -> Files:
        """The run's index; raises RunError where its records cannot be read."""
        with self._lock:
            lock = self._one_at_a_time.setdefault(run.folder, threading.Lock())
        with lock:
            known = self._files.get(run.folder)
            if known is None or time.monotonic() - known[0] > RENEW or not known[1].records.exists():
                known = (time.monotonic(), index.make(run, Path(self._spare.name)))
                self._files[run.folder] = known
            files = known[1]
            if files.tokens is not None:
                return files
            return self._counted(run, files)

    def state(self, run: Run) -> Json:
        """Of the HWE figures: ``ready``, ``counting``, or why there are none."""
        files = self.files(run)
        if files.tokens is not None:
            return "ready"
        job = self._tokens[run.folder][1]
        if not job.done():
            return "counting"
        error = job.exception()
        return "ready" if error is None else str(error)

    def _counted(self, run: Run, files: Files) -> Files:
        """``files`` with HWE figures if they are there by now; counting begins at the first call for each state."""
        started = self._tokens.get(run.folder)
        if started is None or started[0] != files.records:
            job = self._pool.submit(_make_tokens, run, files)
            self._tokens[run.folder] = (files.records, job)
            return files
        job = started[1]
        return job.result() if job.done() and job.exception() is None else files

    def _folders(self) -> Iterator[Path]:
        base = len(self.folder.parts)
        count = 0
        for place, folders, names in os.walk(self.folder):
            path = Path(place)
            folders[:] = sorted(f for f in folders if not f.startswith(".")) if len(path.parts) - base < DEPTH else []
            if records.MANIFEST in names:
                folders[:] = []
                count += 1
                yield path
                if count >= MOST_RUNS:
                    return


def _make_tokens(run: Run, files: Files) -> Files:
    try:
        return index.make_tokens(run, files)
    except (NotRecorded, RunError) as error:
        raise NotRecorded(str(error)) from None
