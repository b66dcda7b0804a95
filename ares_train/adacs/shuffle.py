"""Questions in the order of a seeded hash: a shuffle that depends on nothing but the questions, by external sort.

Rows are spread over bucket files by the top of their hash as they come; then each bucket is sorted alone and the sorted
rows are cut into parts of equal size. Memory is bounded by a bucket, of which as many rows wait before they are spread.
The files are streams: a writer of parquet holds the metadata of every piece that it ever wrote.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ares_train.adacs import schemas

BUCKET_ROWS = 65_536
"""Questions that are sorted in memory at a time, on average."""

_SPOOLED = pa.schema([*schemas.QUESTIONS, ("order", pa.uint64())])


def order_of(seed: int, qids: Iterable[str]) -> np.ndarray:
    """uint64 [Q]: the place of each question among all."""
    key = seed.to_bytes(16, "big", signed=True)
    hashed = (hashlib.blake2b(qid.encode(), digest_size=8, key=key).digest() for qid in qids)
    return np.array([int.from_bytes(digest, "big") for digest in hashed], dtype=np.uint64)


class Spool:
    """Rows of schema QUESTIONS on their way into the order of their hash; ``rows``: how many there may be."""

    def __init__(self, folder: Path, seed: int, rows: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder, self._seed = folder, seed
        self._buckets = -(-max(rows, 1) // BUCKET_ROWS)
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._writers = [
            pa.ipc.new_stream(self._path(number), _SPOOLED, options=options) for number in range(self._buckets)
        ]
        self._waiting: list[pa.Table] = []

    def _path(self, bucket: int) -> Path:
        return self._folder / f"bucket-{bucket:05}.arrows"

    def add(self, table: pa.Table) -> None:
        """Rows in any order."""
        self._waiting.append(table.select(schemas.QUESTIONS.names))
        if sum(each.num_rows for each in self._waiting) >= BUCKET_ROWS:
            self._spread()

    def _spread(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        order = order_of(self._seed, table["qid"].to_pylist())
        table = table.append_column("order", pa.array(order, pa.uint64())).cast(_SPOOLED)
        bucket = (order >> np.uint64(32)) * np.uint64(self._buckets) >> np.uint64(32)
        for number in np.unique(bucket).tolist():
            self._writers[number].write_table(table.filter(pa.array(bucket == number)).combine_chunks())

    def parts(self, rows: int) -> Iterator[pa.Table]:
        """All rows in order, ``rows`` to a table but for the last. Call once; the files are removed at the end."""
        self._spread()
        for writer in self._writers:
            writer.close()
        held: list[pa.Table] = []
        for number in range(self._buckets):
            with pa.OSFile(str(self._path(number))) as file, pa.ipc.open_stream(file) as stream:
                table = stream.read_all()
            table = table.sort_by([("order", "ascending"), ("qid", "ascending")])
            held.append(table.select(schemas.QUESTIONS.names))
            whole = pa.concat_tables(held)
            cut = whole.num_rows // rows * rows
            for start in range(0, cut, rows):
                yield whole.slice(start, rows)
            held = [whole.slice(cut)]
        rest: Sequence[pa.Table] = [table for table in held if table.num_rows]
        yield from rest
        shutil.rmtree(self._folder)
