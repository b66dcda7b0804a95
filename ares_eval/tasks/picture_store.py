"""Pictures that lie inside rows (parquet cells, base64 in a TSV): held a while, read again when they are gone.

A sample keeps only the picture's key. The store holds the bytes of the latest pictures up to a bound, so memory
stays flat however many samples there are; a picture that was dropped is fetched anew from its file.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable

from ares_eval.types import Picture

HELD_BYTES = 64 << 20
"""More than the pictures of all requests in flight at the default 8 threads, of the largest known benchmarks."""


class PictureStore:
    """Bytes by key. ``fetch(key)`` yields (key, bytes) pairs read on the way to, and with, the asked one."""

    def __init__(self, fetch: Callable[[Hashable], Iterable[tuple[Hashable, bytes]]], held: int = HELD_BYTES) -> None:
        self._fetch = fetch
        self._limit = held
        self._size = 0
        self._bytes: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._fetching = threading.Lock()

    def keep(self, key: Hashable, data: bytes) -> None:
        """Hold a picture that was just read, dropping the oldest ones beyond the bound."""
        with self._lock:
            if key in self._bytes:
                return
            self._bytes[key] = data
            self._size += len(data)
            while self._size > self._limit and len(self._bytes) > 1:
                _, dropped = self._bytes.popitem(last=False)
                self._size -= len(dropped)

    def picture(self, key: Hashable, source: str) -> Picture:
        """A Picture that reads from here."""
        return Picture(source, lambda: self.read(key, source))

    def read(self, key: Hashable, source: str) -> bytes:
        """The picture's bytes, fetched again where they are no longer held. Raises OSError."""
        data = self._held(key)
        if data is not None:
            return data
        with self._fetching:
            data = self._held(key)
            if data is not None:
                return data
            for found, content in self._fetch(key):
                self.keep(found, content)
                if found == key:
                    return content
        raise OSError(f"{source}: is no longer there")

    def _held(self, key: Hashable) -> bytes | None:
        with self._lock:
            return self._bytes.get(key)
