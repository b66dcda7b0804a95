"""FSDP's rank files as one set of whole tensors, read piece by piece.

The files are pickles: they are loaded with torch's restricted unpickler (``weights_only=True``), whose allow-list holds
DTensor, its mesh and its placements and nothing that runs code, and they are mapped, not read. A tensor comes out as
flat pieces in row-major order; only one that is cut along another dimension than the first is put together in memory.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from ares_train.checkpoints import GONE, CheckpointError
from ares_train.merge.placement import Block, PlacementError, block_of, holders
from ares_train.merge.source import PIECE_BYTES, Spec, row_ranges, same_bits

MAPPED_BYTES = 512 << 20
"""After so much was read the files are mapped anew: pages that were read no longer count as this process's memory."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Who holds what of a tensor: ranks by block. ``plain``: no DTensor, so that every rank must have the same."""

    spec: Spec
    blocks: dict[Block, list[int]]
    plain: bool


class Shards:
    """The rank files of one checkpoint. CheckpointError from any method names the file or tensor that is wrong.

    ``replicas``: compare the copies that several ranks hold, which reads all of them.
    """

    def __init__(self, files: Sequence[Path], *, replicas: bool = True) -> None:
        self._files = tuple(files)
        self._replicas = replicas
        self._mapped: list[dict[str, torch.Tensor]] | None = None
        self._read = 0
        self._placed = self._place()

    @property
    def specs(self) -> dict[str, Spec]:
        """The whole tensors by name, in the order of rank 0's file."""
        return {name: placed.spec for name, placed in self._placed.items()}

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The tensor's elements in row-major order, as flat pieces of at most PIECE_BYTES."""
        placed = self._placed[name]
        if all(block[1:] == tuple((0, size) for size in placed.spec.shape[1:]) for block in placed.blocks):
            for block, ranks in placed.blocks.items():
                first, last = block[0] if block else (0, 1)
                for start, stop in row_ranges(placed.spec, first, last):
                    yield self._rows(name, ranks, start - first, stop - first).reshape(-1)
            return
        whole = torch.empty(placed.spec.shape, dtype=placed.spec.dtype)
        for block, ranks in placed.blocks.items():
            rows = block[0][1] - block[0][0]
            whole[tuple(slice(*interval) for interval in block)] = self._rows(name, ranks, 0, rows)
        yield from whole.reshape(-1).split(max(1, PIECE_BYTES // placed.spec.dtype.itemsize))

    def close(self) -> None:
        """Unmap the files."""
        self._mapped = None

    def _rows(self, name: str, ranks: Sequence[int], start: int, stop: int) -> torch.Tensor:
        """Rows of the block that ``ranks`` hold, compared between them."""
        first, *others = (self._local(rank, name) for rank in ranks)
        part = first[start:stop] if first.dim() else first
        self._read += part.nbytes
        if self._replicas or self._placed[name].plain:
            for rank, other in zip(ranks[1:], others, strict=True):
                self._read += part.nbytes
                if not same_bits(part, other[start:stop] if other.dim() else other):
                    raise CheckpointError(
                        f"{name}: ranks {ranks[0]} and {rank} should hold the same values and do not; the files are of "
                        "different saves, or training had lost its synchrony"
                    )
        if self._read > MAPPED_BYTES:
            part = part.clone()
            self._read = 0
            self.close()
        return part

    def _local(self, rank: int, name: str) -> torch.Tensor:
        if self._mapped is None:
            self._mapped = [load_rank(path) for path in self._files]
        tensor = self._mapped[rank][name]
        return tensor._local_tensor if isinstance(tensor, DTensor) else tensor

    def _place(self) -> dict[str, Placed]:
        self._mapped = states = [load_rank(path) for path in self._files]
        for rank, state in enumerate(states):
            different = states[0].keys() ^ state.keys()
            if different:
                name = min(different)
                lacking = rank if name in states[0] else 0
                raise CheckpointError(f"{name}: not in the file of rank {lacking} ({self._files[lacking].name})")
        return {name: _place(name, [state[name] for state in states]) for name in states[0]}


def _place(name: str, tensors: Sequence[torch.Tensor]) -> Placed:
    kinds = {isinstance(tensor, DTensor) for tensor in tensors}
    dtypes = {tensor.dtype for tensor in tensors}
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(kinds) > 1 or len(dtypes) > 1 or len(shapes) > 1:
        seen = sorted({f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in tensors})
        raise CheckpointError(
            f"{name}: the ranks disagree on what it is ({' and '.join(seen)}); without placements, pieces cannot be "
            "told from copies"
        )
    spec = Spec(shapes.pop(), dtypes.pop())
    if not kinds.pop():
        whole = tuple((0, size) for size in spec.shape)
        return Placed(spec, holders(spec.shape, dict.fromkeys(range(len(tensors)), whole)), plain=True)
    held = {}
    for rank, tensor in enumerate(tensors):
        held[rank] = block = _block(name, rank, tensor)
        expected = tuple(stop - start for start, stop in block)
        if tuple(tensor._local_tensor.shape) != expected:
            raise CheckpointError(
                f"{name}: rank {rank} holds {tuple(tensor._local_tensor.shape)} where its placement says {expected}"
            )
    try:
        return Placed(spec, holders(spec.shape, held), plain=False)
    except PlacementError as error:
        raise CheckpointError(f"{name}: the ranks' parts do not make a whole: {error}") from None


def _block(name: str, rank: int, tensor: Any) -> Block:
    mesh = tensor.device_mesh.mesh
    places = (mesh == rank).nonzero().tolist()
    if len(places) != 1:
        raise CheckpointError(f"{name}: rank {rank} is not in the device mesh that its tensor names ({mesh.tolist()})")
    shards: list[int | None] = []
    for placement in tensor.placements:
        # A strided shard (tensor parallel under FSDP) says is_shard() in some versions of torch: go by the class.
        kind = type(placement).__name__
        if kind not in ("Shard", "Replicate"):
            raise CheckpointError(
                f"{name}: placement {placement} is not merged here (tensor parallelism or an unfinished reduction); "
                "gather it in the training framework"
            )
        shards.append(placement.dim if kind == "Shard" else None)
    try:
        return block_of(tensor.shape, tuple(mesh.shape), shards, places[0])
    except PlacementError as error:
        raise CheckpointError(f"{name}: {error}") from None


def load_rank(path: Path) -> dict[str, torch.Tensor]:
    """A rank's state, mapped; what is not a tensor is refused."""
    try:
        with _quiet():
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: {GONE}") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, it holds more than tensors ({_first_line(error)})") from None
    except (RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: not a whole torch file ({_first_line(error)})") from None
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: no state of a model in it")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor")
    return state


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    found = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), next(iter(lines), ""))
    return found[:200]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that the mesh's process groups do not exist: none are needed to read."""
    speaker = logging.getLogger("torch.distributed.device_mesh")
    level = speaker.level
    speaker.setLevel(logging.ERROR)
    try:
        yield
    finally:
        speaker.setLevel(level)
