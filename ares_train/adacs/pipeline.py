"""The stages in their order, one or all of them over one work folder, which one process works on at a time."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ares_train.adacs import store
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout


def run(config: AdacsConfig, work: Path, stages: Sequence[str], note: Callable[[str], None]) -> None:
    """Run ``stages`` in the order given, each a module of this package with ``run(config, work, note)``.

    What is done already is not done again. Raises AdacsError.
    """
    with _alone(work):
        store.write_json(Layout(work).config, config.settings())
        for name in stages:
            importlib.import_module(f"ares_train.adacs.{name}").run(config, work, note)


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
