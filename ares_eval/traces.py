"""Token traces as compact bytes: the form in which they lie in a run's ``traces/`` and in the cache.

A packed trace is MessagePack with the per-token arrays as little-endian float32; about 25 bytes a token. ``unpack``
checks every length, so torn or foreign bytes raise ValueError and are never half-read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ares_eval.types import TokenTrace

if TYPE_CHECKING:
    import numpy as np


class _Packed(msgspec.Struct, array_like=True):
    tokens: list[str]
    logprob: bytes
    entropy_low: bytes
    entropy_high: bytes
    tail: bytes
    top: int
    estimator: str
    vocabulary: int | None
    end: bool


_decoder = msgspec.msgpack.Decoder(_Packed)


def pack(trace: TokenTrace) -> bytes:
    """``trace`` as bytes; float32 precision."""
    return msgspec.msgpack.encode(
        _Packed(
            list(trace.tokens),
            _floats(trace.logprob),
            _floats(trace.entropy_low),
            _floats(trace.entropy_high),
            _floats(trace.tail),
            trace.top,
            trace.estimator,
            trace.vocabulary,
            trace.end,
        )
    )


def unpack(data: bytes) -> TokenTrace:
    """The trace that ``pack`` made; raises ValueError on anything else."""
    import numpy as np

    try:
        packed = _decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"not a token trace: {error}") from error
    arrays = [
        np.frombuffer(values, dtype="<f4")
        for values in (packed.logprob, packed.entropy_low, packed.entropy_high, packed.tail)
    ]
    if any(len(array) != len(packed.tokens) for array in arrays):
        raise ValueError("not a token trace: its arrays differ in length")
    return TokenTrace(
        tokens=tuple(packed.tokens),
        logprob=arrays[0],
        entropy_low=arrays[1],
        entropy_high=arrays[2],
        tail=arrays[3],
        top=packed.top,
        estimator=packed.estimator,
        vocabulary=packed.vocabulary,
        end=packed.end,
    )


def _floats(values: np.ndarray) -> bytes:
    return values.astype("<f4", copy=False).tobytes()
