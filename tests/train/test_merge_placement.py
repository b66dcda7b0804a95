"""Who holds what of a tensor: against chunks that torch makes, and against torch's own full_tensor over real ranks."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_train.merge import shards, source
from ares_train.merge.placement import PlacementError, block_of, holders
from ares_train.merge.shards import Shards
from tests.train.merge_checkpoints import made


@st.composite
def _sharded(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int | None, ...]]:
    shape = tuple(draw(st.lists(st.integers(0, 7), min_size=1, max_size=3)))
    mesh = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    dims = st.one_of(st.none(), st.integers(0, len(shape) - 1))
    return shape, mesh, tuple(draw(st.lists(dims, min_size=len(mesh), max_size=len(mesh))))


def _chunked(whole: torch.Tensor, parts: int, dim: int, index: int) -> torch.Tensor:
    chunks = whole.chunk(parts, dim) if whole.shape[dim] else ()
    return chunks[index] if index < len(chunks) else whole.narrow(dim, 0, 0)


@given(_sharded())
@settings(max_examples=100, deadline=None)
def test_every_rank_holds_what_chunk_gives_it_and_together_the_whole(
    case: tuple[tuple[int, ...], tuple[int, ...], tuple[int | None, ...]],
) -> None:
    shape, mesh, dims = case
    whole = torch.arange(math.prod(shape)).reshape(shape)
    held, values = {}, {}
    for rank, coordinate in enumerate(itertools.product(*map(range, mesh))):
        part = whole
        for parts, dim, index in zip(mesh, dims, coordinate, strict=True):
            part = part if dim is None else _chunked(part, parts, dim, index)
        held[rank], values[rank] = block_of(shape, mesh, dims, coordinate), part
        cut = whole[tuple(slice(*interval) for interval in held[rank])]
        assert cut.numel() == part.numel() and torch.equal(cut.reshape(-1), part.reshape(-1))
    again = torch.full(shape, -1)
    for block, ranks in holders(shape, held).items():
        again[tuple(slice(*interval) for interval in block)] = values[ranks[0]]
        assert all(torch.equal(values[rank], values[ranks[0]]) for rank in ranks)
    assert torch.equal(again, whole)


@given(_sharded(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_part_that_only_one_rank_holds_is_missed(case: tuple, random: object) -> None:
    shape, mesh, dims = case
    held = {
        rank: block_of(shape, mesh, dims, coordinate)
        for rank, coordinate in enumerate(itertools.product(*map(range, mesh)))
    }
    alone = [ranks[0] for ranks in holders(shape, held).values() if len(ranks) == 1]
    for rank in alone:
        with pytest.raises(PlacementError):
            holders(shape, {other: block for other, block in held.items() if other != rank})


def test_what_makes_no_whole() -> None:
    with pytest.raises(PlacementError, match=r"dimension 0 of 4 is held as 0:2, 1:4"):
        holders((4,), {0: ((0, 2),), 1: ((1, 4),)})
    with pytest.raises(PlacementError, match="3 of 4 blocks"):
        halves = [(0, 1), (1, 2)]
        grid = dict(enumerate(itertools.product(halves, halves)))
        holders((2, 2), {rank: grid[rank] for rank in (0, 1, 2)})
    with pytest.raises(PlacementError, match="dimension 1 of a tensor of 1"):
        block_of((4,), (2,), (1,), (0,))
    with pytest.raises(PlacementError, match="2 placements on a mesh of 1"):
        block_of((4,), (2,), (0, None), (0,))


@pytest.mark.parametrize("ranks", [3, 4])
def test_random_tensors_are_read_as_torch_gathers_them(
    ranks: int, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path_factory) / f"placements-{ranks}"
    whole = torch.load(folder / "whole.pt", weights_only=True)
    files = [folder / f"model_world_size_{ranks}_rank_{rank}.pt" for rank in range(ranks)]
    for piece_bytes, mapped_bytes in ((64 << 20, 1 << 30), (16, 3000)):
        monkeypatch.setattr(source, "PIECE_BYTES", piece_bytes)
        monkeypatch.setattr(shards, "PIECE_BYTES", piece_bytes)
        monkeypatch.setattr(shards, "MAPPED_BYTES", mapped_bytes)
        read = Shards(files)
        assert read.specs.keys() == whole.keys() and len(whole) == 41
        for name, spec in read.specs.items():
            pieces = list(read.pieces(name))
            row = spec.bytes // (spec.shape[0] if spec.shape else 1)
            assert all(piece.nbytes <= max(piece_bytes, row) for piece in pieces), name
            assert spec.shape == tuple(whole[name].shape) and spec.dtype == whole[name].dtype
            assert torch.equal(torch.cat(pieces).reshape(spec.shape), whole[name]), name


def test_the_files_of_a_gpu_are_read_without_one(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """FSDP2 saves tensors where they are: the same pickle, with another device's name in it."""
    import zipfile

    actor = made(tmp_path_factory) / "run-w3/global_step_5/actor"
    for path in actor.glob("*.pt"):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / path.name, "w") as new:
            for entry in old.infolist():
                data = old.read(entry)
                if entry.filename.endswith("data.pkl"):
                    assert b"X\x03\0\0\0cpu" in data
                    data = data.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:1")
                new.writestr(entry, data)
    here = Shards([actor / f"model_world_size_3_rank_{rank}.pt" for rank in range(3)])
    there = Shards([tmp_path / f"model_world_size_3_rank_{rank}.pt" for rank in range(3)])
    assert here.specs == there.specs
    for name in here.specs:
        assert torch.equal(torch.cat(list(here.pieces(name))), torch.cat(list(there.pieces(name))))
