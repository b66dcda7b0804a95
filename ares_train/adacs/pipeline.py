"""The stages in their order, one or all of them over one work folder, which one process works on at a time."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ares_train.adacs import precheck, store
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout


def run(config: AdacsConfig, work: Path, stages: Sequence[str], note: Callable[[str], None]) -> None:
    """Run ``stages`` in the order given, each a module of this package with ``run(config, work, note)``.

    What is done already is not done again. Raises AdacsError, and has written nothing where a setting cannot work.
    """
    precheck.check(config, work, stages)
    with _alone(work):
        store.write_json(Layout(work).config, config.settings())
        for name in stages:
            stage = importlib.import_module(f"ares_train.adacs.{name}")
            try:
                stage.run(config, work, note)
            except (OSError, pa.ArrowException) as error:
                told = _told(Layout(work), name, error)
                if told is None:
                    raise
                raise AdacsError(told) from error


def _told(layout: Layout, stage: str, error: Exception) -> str | None:
    """What a fault of the file system or of a file is due to; None where that cannot be said.

    Files of the work folder whose bytes are not those that were written lose their manifests: they are made anew.
    """
    damaged = store.damaged(layout.work)
    if not damaged:
        known = isinstance(error, OSError) and error.strerror is not None
        return f"{stage}: {error.filename or layout.work}: {error.strerror}" if known else None  # type: ignore[attr-defined]
    for path in damaged:
        store.unfinish(path)
    makers = [layout.maker(path) for path in damaged]
    if "ingest" in makers:
        store.begin_artifact(layout.ingest_report)
    more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
    return (
        f"{stage}: {damaged[0]}{more}: damaged (not the bytes that were written) and no longer counted as done; "
        f"run `ares-train adacs {makers[0]}` again, which makes it anew"
    )


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold the work folder; the lock goes with the process, however it ends."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        held = os.open(work / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise AdacsError(f"the work folder {work} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AdacsError(f"another process works in {work}; wait for it or give another --work") from None
        yield
    finally:
        os.close(held)
