"""Which part of a tensor each rank holds: DTensor placements as blocks of the whole, in plain integers.

A mesh dimension with ``Shard(d)`` cuts dimension d as ``torch.chunk`` does (pieces of ceil(n / k); the last ones
shorter or empty), mesh dimensions from left to right, each cutting what the one before left. ``Replicate`` cuts
nothing: several ranks then hold the same block (HSDP). tests/train/test_merge_placement.py compares with torch's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Block: TypeAlias = tuple[tuple[int, int], ...]
"""One half-open interval per dimension; () for a scalar."""


class PlacementError(ValueError):
    """The blocks of the ranks do not make one whole tensor."""


def block_of(
    shape: Sequence[int], mesh_shape: Sequence[int], shards: Sequence[int | None], coordinate: Sequence[int]
) -> Block:
    """The block that the rank at ``coordinate`` of the mesh holds.

    ``shards``: per mesh dimension the tensor's dimension that it cuts, None for Replicate.
    """
    if not len(mesh_shape) == len(shards) == len(coordinate):
        raise PlacementError(f"{len(shards)} placements on a mesh of {len(mesh_shape)} dimensions")
    intervals = [(0, size) for size in shape]
    for parts, dim, index in zip(mesh_shape, shards, coordinate, strict=True):
        if dim is None:
            continue
        if not 0 <= dim < len(intervals):
            raise PlacementError(f"cut along dimension {dim} of a tensor of {len(intervals)}")
        start, stop = intervals[dim]
        piece = -(-(stop - start) // parts)
        intervals[dim] = (min(start + index * piece, stop), min(start + (index + 1) * piece, stop))
    return tuple(intervals)


def holders(shape: Sequence[int], held: Mapping[int, Block]) -> dict[Block, list[int]]:
    """The distinct blocks in row-major order, each with the ranks that hold it; empty blocks are left out.

    ``held``: block by rank. PlacementError unless the blocks cover the tensor once: a grid without gap or overlap.
    """
    found: dict[Block, list[int]] = {}
    for rank in sorted(held):
        if all(start < stop for start, stop in held[rank]):
            found.setdefault(held[rank], []).append(rank)
    if math.prod(shape) == 0:
        return {}
    grid = 1
    for dim, size in enumerate(shape):
        cuts = sorted({block[dim] for block in found})
        ends = [0, *(stop for _, stop in cuts)]
        if [start for start, _ in cuts] != ends[:-1] or ends[-1] != size:
            raise PlacementError(f"dimension {dim} of {size} is held as {_shown(cuts)}")
        grid *= len(cuts)
    if len(found) != grid:
        raise PlacementError(f"{len(found)} of {grid} blocks are there")
    return dict(sorted(found.items()))


def _shown(cuts: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{start}:{stop}" for start, stop in cuts[:6]) + (", ..." if len(cuts) > 6 else "")
