"""Pictures that lie inside rows (parquet cells, base64 in a TSV): held a while, read again when they are gone.

A sample keeps only the picture's key. The bytes of the latest pictures are held up to one bound for the whole
process, so memory stays flat however many tasks and samples there are; a picture that was dropped is fetched anew
from its file.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

from ares_eval.types import Picture

HELD_BYTES = 64 << 20
"""More than the pictures of a hundred requests in flight, at the half megabyte that large ones have."""


class Held:
    """Bytes by key, at most ``limit`` in all (but always the latest one); the oldest go first. Thread-safe."""

    def __init__(self, limit: int = HELD_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._bytes: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: Hashable, data: bytes) -> None:
        """Hold ``data`` as the latest."""
        with self._lock:
            if key in self._bytes:
                return
            self._bytes[key] = data
            self._size += len(data)
            while self._size > self._limit and len(self._bytes) > 1:
                _, dropped = self._bytes.popitem(last=False)
                self._size -= len(dropped)

    def get(self, key: Hashable) -> bytes | None:
        """What is held under ``key``."""
        with self._lock:
            return self._bytes.get(key)


_HELD = Held()
_NUMBERS = itertools.count()


class PictureStore:
    """The pictures of one table. ``fetch(key)`` yields (key, bytes) pairs, the asked one last or earlier."""

    def __init__(self, fetch: Callable[[Hashable], Iterable[tuple[Hashable, bytes]]], held: Held = _HELD) -> None:
        self._fetch = fetch
        self._held = held
        self._number = next(_NUMBERS)
        self._fetching = threading.Lock()

    def keep(self, key: Hashable, data: bytes) -> None:
        """Hold a picture that was just read."""
        self._held.put((self._number, key), data)

    def picture(self, key: Hashable, source: str) -> Picture:
        """A Picture that reads from here."""
        return Picture(source, lambda: self.read(key, source))

    def read(self, key: Hashable, source: str) -> bytes:
        """The picture's bytes, fetched again where they are no longer held. Raises OSError."""
        data = self._held.get((self._number, key))
        if data is not None:
            return data
        with self._fetching:
            data = self._held.get((self._number, key))
            if data is not None:
                return data
            for found, content in self._fetch(key):
                self.keep(found, content)
                if found == key:
                    return content
        raise OSError(f"{source}: is no longer there")
