"""What a merger reads from: whole tensors by name, given out in pieces.

There are two kinds: FSDP's rank files (shards.py) and safetensors files, here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open

from ares_train.checkpoints import CheckpointError

PIECE_BYTES = 64 << 20
"""A piece is at most this large (or one row): what is in memory at a time, beside mapped pages."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of the safetensors format."""


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole tensor's shape and type."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size of the elements."""
        return self.elements * int(self.dtype.itemsize)


class Source(Protocol):
    """Tensors of one checkpoint. Any method raises CheckpointError naming the file or tensor that is wrong."""

    @property
    def specs(self) -> dict[str, Spec]:
        """The whole tensors by name, in the order they are kept in."""

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The tensor's elements in row-major order, as flat pieces of at most PIECE_BYTES."""

    def close(self) -> None:
        """Let the files go."""


class Safetensors:
    """A folder's safetensors files as a :class:`Source`."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._open = contextlib.ExitStack()
        self._where: dict[str, Any] = {}
        self._specs: dict[str, Spec] = {}
        for path in files:
            try:
                file = self._open.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path}: not a whole safetensors file ({error})") from None
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if name in self._where:
                    raise CheckpointError(f"{name}: in two files, the second is {path}")
                found = file.get_slice(name)
                if found.get_dtype() not in DTYPES:
                    raise CheckpointError(f"{name}: type {found.get_dtype()} is not known here")
                self._where[name] = file
                self._specs[name] = Spec(tuple(found.get_shape()), DTYPES[found.get_dtype()])

    @property
    def specs(self) -> dict[str, Spec]:
        """As of Source."""
        return self._specs

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """As of Source."""
        spec = self._specs[name]
        if not spec.shape:
            yield self._where[name].get_tensor(name).reshape(-1)
            return
        rows = self._where[name].get_slice(name)
        for start, stop in row_ranges(spec, 0, spec.shape[0]):
            yield rows[start:stop].reshape(-1)

    def close(self) -> None:
        """As of Source."""
        self._open.close()


def row_ranges(spec: Spec, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Rows ``first`` to ``last`` of a tensor in runs of at most PIECE_BYTES; a scalar is one row."""
    step = max(1, PIECE_BYTES // max(1, spec.bytes // max(1, spec.shape[0] if spec.shape else 1)))
    for start in range(first, last, step):
        yield start, min(start + step, last)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Same type and shape, and equal bit by bit: NaN equals itself."""
    same = one.dtype == other.dtype and one.shape == other.shape
    return bool(same and torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)))
