"""Which random numbers a request draws: the same request gets the same ones, whatever else is asked when and where.

A stream is named by (seed, version of the weights, prompt and pictures, sampling settings, name). The name is what the
caller gives as the sampling parameter ``ares_stream`` (any string: the session's number, or that and the row's). Where
none is given, as from verl's own agent loops, it is the number of times that this prompt was asked before with these
weights, "0", "1", ...: n sessions of a prompt then have n streams, the same ones in every run of one replica. Several
replicas each count for themselves, so their number is part of the name there.

Two prompts never share a stream, and a prompt that goes on from a prefix (a fork) is another prompt.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

PARAMETER = "ares_stream"
"""The sampling parameter that names a request's stream."""


class Streams:
    """The streams of one server."""

    def __init__(self, seed: int, replica: int = 0) -> None:
        self.seed, self.replica = seed, replica
        self._version: int | None = None
        self._asked: Counter[bytes] = Counter()

    def open(
        self, version: int | None, prompt: Sequence[int], pictures: Iterable[bytes], params: Mapping[str, Any]
    ) -> np.random.Generator:
        """The generator of one request; ``params`` are its sampling parameters, ``pictures`` one digest each."""
        if version != self._version:
            self._version = version
            self._asked.clear()
        about = hashlib.blake2b(digest_size=16)
        settings = [params.get(name) for name in ("temperature", "top_k", "top_p")]
        about.update(repr((self.seed, version, list(prompt), list(pictures), settings)).encode())
        name = params.get(PARAMETER)
        if name is None:
            count = self._asked[about.digest()]
            self._asked[about.digest()] += 1
            name = f"{count}" if self.replica == 0 else f"replica {self.replica}: {count}"
        about.update(repr(str(name)).encode())
        # Philox takes the whole digest; torch's generator would use 32 bits of it.
        return np.random.Generator(np.random.Philox(key=int.from_bytes(about.digest(), "little")))


def picture_digest(picture: Any) -> bytes:
    """Of a PIL picture's mode, size and pixels."""
    return hashlib.blake2b(repr((picture.mode, picture.size)).encode() + picture.tobytes(), digest_size=16).digest()
