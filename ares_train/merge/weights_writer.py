"""Weights written as safetensors files and their index, one piece at a time.

The format puts the places of all tensors before the first of them, and both follow from shapes and types: nothing
needs to be in memory but the piece that is being written. Names, split and index are as transformers writes them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from ares_train.checkpoints import INDEX, SINGLE, CheckpointError
from ares_train.merge.source import DTYPES, Spec

MAX_SHARD_BYTES = 4 << 30
"""A file's size, except where one tensor is larger; small enough to be loaded by several workers and uploaded anew."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_weights(
    folder: Path,
    specs: Mapping[str, Spec],
    pieces: Callable[[str], Iterator[torch.Tensor]],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write ``specs`` into ``folder`` and return the files; ``pieces(name)`` gives a tensor's elements in order.

    Floating-point pieces are cast to the type in ``specs``. CheckpointError where a value is not finite, before or
    after the cast, or where the pieces are more or fewer elements than the shape says.
    """
    groups = _groups(specs, max_shard_bytes)
    total = sum(spec.bytes for spec in specs.values())
    done = 0
    files = []
    where = {}
    for number, names in enumerate(groups, start=1):
        file_name = SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        if progress:
            progress(f"writing {file_name} ({done / 1e9:.2f} of {total / 1e9:.2f} GB done)")
        _write(folder / file_name, {name: specs[name] for name in names}, pieces)
        files.append(folder / file_name)
        where.update(dict.fromkeys(names, file_name))
        done += sum(specs[name].bytes for name in names)
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": {name: where[name] for name in sorted(where)}}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        files.append(folder / INDEX)
    return files


def _groups(specs: Mapping[str, Spec], max_bytes: int) -> list[list[str]]:
    """Names by file, in the given order, each file full before the next begins."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, spec in specs.items():
        if groups[-1] and size + spec.bytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += spec.bytes
    return groups


def _write(path: Path, specs: Mapping[str, Spec], pieces: Callable[[str], Iterator[torch.Tensor]]) -> None:
    # Widest types first, as the safetensors library does: every tensor then begins at a multiple of its element size.
    order = sorted(specs, key=lambda name: -specs[name].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        spec = specs[name]
        if spec.dtype not in NAMES:
            raise CheckpointError(f"{name}: safetensors files hold no {spec.dtype}")
        header[name] = {"dtype": NAMES[spec.dtype], "shape": spec.shape, "data_offsets": [end, end + spec.bytes]}
        end += spec.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in order:
            count = 0
            for piece in pieces(name):
                made = _cast(name, piece, specs[name].dtype)
                count += made.numel()
                file.write(memoryview(made.view(torch.uint8).numpy()))
            if count != specs[name].elements:
                raise CheckpointError(f"{name}: {count:,} elements came for a shape of {specs[name].elements:,}")


def _cast(name: str, piece: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not piece.is_floating_point():
        return piece.contiguous()
    made = piece.to(dtype).contiguous()
    # 8-bit floats have no isfinite of their own.
    if not torch.isfinite(made if made.dtype.itemsize > 1 else made.float()).all():
        if torch.isfinite(piece).all():
            raise CheckpointError(f"{name}: holds values beyond {str(dtype).removeprefix('torch.')}; use bfloat16")
        raise CheckpointError(f"{name}: holds NaN or infinite values; training diverged before this step")
    return made
