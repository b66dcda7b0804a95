"""The reply cache: what was asked once is not asked again, by any process of this machine.

One SQLite file in WAL mode, keyed by the request's content hash. Promises:

- only whole, good replies are stored, each with a checksum; an entry that does not match it is dropped and counts as
  absent; a file that is no database any more is set aside under a name that says so;
- a request that another process is asking right now is not sent a second time: a key is claimed by a byte-range lock
  on ``<cache>.claims``, which the kernel gives back when the process ends, however it ends;
- nothing in it names a key, a secret or an address.

The object belongs to one thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import struct
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ares_eval import traces
from ares_eval.types import Reply, Usage

FILE = "replies.sqlite3"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    created REAL NOT NULL,
    checksum INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS replies_created ON replies (created);
"""

_VARIABLES = 500
"""Keys in one SELECT: below SQLite's oldest limit of 999 variables."""


class _Stored(msgspec.Struct, array_like=True):
    text: str
    reasoning: str
    finish_reason: str | None
    usage: Usage
    model: str | None
    fingerprint: str | None
    latency: float
    trace: bytes | None


class _Exported(msgspec.Struct):
    key: str
    model: str
    created: float
    checksum: int
    value: bytes


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds; sizes in bytes, times in seconds since the epoch."""

    entries: int
    size: int
    models: dict[str, int]
    oldest: float | None
    newest: float | None


class CacheError(Exception):
    """The cache cannot be opened or written; the message names the cause and the mend."""


class Cache:
    """Replies by request key, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.dropped = 0
        """Entries that did not match their checksum."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
            self._claims = os.open(folder / f"{FILE}.claims", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (OSError, sqlite3.Error) as error:
            raise CacheError(f"the cache in {folder} cannot be used ({error}); give another --cache-dir") from error

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self.path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = self.path.with_name(f"{FILE}.broken-{int(time.time())}")
            self.path.rename(aside)
            for tail in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self.path.with_name(FILE + tail).unlink()
            self.dropped += 1
            return _connect(self.path)

    def get(self, keys: Sequence[str]) -> dict[str, Reply]:
        """The replies that are here, by key, marked as cached."""
        found: dict[str, Reply] = {}
        broken = []
        for start in range(0, len(keys), _VARIABLES):
            part = keys[start : start + _VARIABLES]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, checksum, value FROM replies WHERE key IN ({marks})"
            for key, checksum, value in self._db.execute(query, part):
                reply = _decode(value) if zlib.crc32(value) == checksum else None
                if reply is None:
                    broken.append((key,))
                else:
                    found[key] = reply
        if broken:
            self.dropped += len(broken)
            with self._db:
                self._db.executemany("DELETE FROM replies WHERE key = ?", broken)
        return found

    def put(self, replies: Iterable[tuple[str, str, Reply]]) -> None:
        """Store (key, model, reply) triples in one transaction."""
        now = time.time()
        rows = []
        for key, model, reply in replies:
            value = _encode(reply)
            rows.append((key, model, now, zlib.crc32(value), value))
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise CacheError(f"the cache {self.path} cannot be written: {error}") from error

    def claim(self, key: str) -> bool:
        """Whether this process is now the one that asks for ``key``; False while another one asks."""
        return _lock(self._claims, fcntl.F_WRLCK, key)

    def release(self, key: str) -> None:
        """Give the claim on ``key`` back."""
        _lock(self._claims, fcntl.F_UNLCK, key)

    def stats(self) -> CacheStats:
        """Counts and sizes of the whole cache."""
        entries, size, oldest, newest = self._db.execute(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(value)), 0), MIN(created), MAX(created) FROM replies"
        ).fetchone()
        models = dict(self._db.execute("SELECT model, COUNT(*) FROM replies GROUP BY model ORDER BY 2 DESC"))
        return CacheStats(entries, size, models, oldest, newest)

    def prune(self, *, older_than: float | None = None, model: str | None = None) -> int:
        """Drop entries made before ``older_than`` (seconds since the epoch) and, or, of ``model``; how many went."""
        conditions = ["1"]
        values: list[object] = []
        if older_than is not None:
            conditions.append("created < ?")
            values.append(older_than)
        if model is not None:
            conditions.append("model = ?")
            values.append(model)
        with self._db:
            gone = self._db.execute(f"DELETE FROM replies WHERE {' AND '.join(conditions)}", values).rowcount
        self._db.execute("VACUUM")
        return gone

    def export(self) -> Iterator[bytes]:
        """Every entry as one JSON line."""
        for row in self._db.execute("SELECT key, model, created, checksum, value FROM replies ORDER BY key"):
            yield msgspec.json.encode(_Exported(*row)) + b"\n"

    def load(self, lines: Iterable[bytes]) -> tuple[int, int]:
        """Entries of an export that are whole and new here; (taken, refused)."""
        taken = refused = 0
        for line in lines:
            try:
                entry = msgspec.json.decode(line, type=_Exported)
            except (msgspec.DecodeError, msgspec.ValidationError):
                refused += 1
                continue
            if zlib.crc32(entry.value) != entry.checksum or _decode(entry.value) is None:
                refused += 1
                continue
            row = (entry.key, entry.model, entry.created, entry.checksum, entry.value)
            with self._db:
                taken += self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", row).rowcount
        return taken, refused

    def close(self) -> None:
        """Close the file; every claim is given back."""
        self._db.close()
        os.close(self._claims)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=60.0)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _lock(file: int, kind: int, key: str) -> bool:
    offset = int(key[:15], 16)
    try:
        if sys.platform == "linux":
            # Open-file-description locks belong to this object; POSIX locks would be lost with any other one's close.
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0))
        else:
            operation = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.lockf(file, operation, 1, offset)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _encode(reply: Reply) -> bytes:
    trace = None if reply.trace is None else traces.pack(reply.trace)
    return msgspec.msgpack.encode(
        _Stored(
            reply.text,
            reply.reasoning,
            reply.finish_reason,
            reply.usage,
            reply.model,
            reply.fingerprint,
            reply.latency,
            trace,
        )
    )


_stored = msgspec.msgpack.Decoder(_Stored)


def _decode(value: bytes) -> Reply | None:
    try:
        stored = _stored.decode(value)
        trace = None if stored.trace is None else traces.unpack(stored.trace)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError):
        return None
    return Reply(
        text=stored.text,
        reasoning=stored.reasoning,
        finish_reason=stored.finish_reason,
        usage=stored.usage,
        model=stored.model,
        fingerprint=stored.fingerprint,
        latency=stored.latency,
        cached=True,
        trace=trace,
    )
