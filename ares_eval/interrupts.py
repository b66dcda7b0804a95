"""Ctrl-C and SIGTERM: the first lets what is under way end well, the second stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

DRAINING = "interrupted: waiting for what is in flight; press Ctrl-C again to stop at once"
"""What is said while requests in flight are waited for."""


@contextlib.contextmanager
def asked_to_stop(first: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that the first signal sets before it calls ``first``; the second raises KeyboardInterrupt.

    Outside the main thread, which alone gets signals, nothing is changed and the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        first()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
