"""Parts and artefacts: done only while their manifest says so, equal bytes for equal content, whole after any fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_train.adacs import schemas, store
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.store import Stage


def table(*qids: str) -> pa.Table:
    return pa.table({"qid": list(qids), "reason": ["r"] * len(qids)}, schema=schemas.DROPPED)


def test_a_part_is_done_for_its_settings_and_inputs_only(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "settings")
    assert not stage.done(0, ["input"])
    written = stage.write(0, table("a", "b"), schemas.DROPPED, ["input"])
    assert (written.rows, written.sha256) == (2, store.file_digest(stage.path(0)))
    assert stage.done(0, ["input"])
    assert stage.finished(0)
    assert not stage.done(0, ["other"])
    assert not stage.done(0)
    assert not Stage(tmp_path, "others").done(0, ["input"])
    assert not Stage(tmp_path, "others").finished(0)
    assert Stage(tmp_path, "others").parts() == []
    assert pq.read_table(stage.path(0)).equals(table("a", "b"))
    assert store.digest(stage.path(0)) == written.sha256


def test_a_part_that_is_cut_short_is_not_done(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "s")
    stage.write(0, table("a"), schemas.DROPPED)
    stage.path(0).write_bytes(stage.path(0).read_bytes()[:-1])
    assert not stage.done(0)
    assert stage.parts() == []


def test_a_fault_while_writing_leaves_no_manifest_of_other_data(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "old")
    stage.write(0, table("old"), schemas.DROPPED)

    def torn() -> Iterator[pa.RecordBatch]:
        yield from table("new").to_batches()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Stage(tmp_path, "new").write(0, torn(), schemas.DROPPED)
    # The old data may be there still, but nothing says so: neither setting finds a finished part.
    assert not Stage(tmp_path, "new").finished(0)
    assert not stage.finished(0)
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.parquet"]
    stage.write(0, table("old"), schemas.DROPPED)
    assert stage.done(0)


def test_batches_and_tables_are_cast_by_name(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "s")
    swapped = pa.table({"more": [1], "reason": ["r"], "qid": ["a"]})
    stage.write(0, swapped, schemas.DROPPED)
    stage.write(1, iter(swapped.to_batches()), schemas.DROPPED)
    assert pq.read_table(stage.path(0)).equals(table("a"))
    assert pq.read_table(stage.path(1)).equals(table("a"))
    with pytest.raises(pa.ArrowInvalid):
        stage.write(2, pa.table({"draw": [1 << 20]}), pa.schema([("draw", pa.int16())]))


@settings(max_examples=20, deadline=None)
@given(parts=st.sets(st.integers(0, 30), min_size=1, max_size=6), kept=st.sets(st.integers(0, 30), max_size=6))
def test_parts_come_in_order_and_stale_ones_go(
    tmp_path_factory: pytest.TempPathFactory, parts: set[int], kept: set[int]
) -> None:
    stage = Stage(tmp_path_factory.mktemp("stage"), "s")
    for part in parts:
        stage.write(part, table(str(part)), schemas.DROPPED)
    assert stage.numbers() == sorted(parts)
    stage.keep_only(kept)
    assert stage.numbers() == sorted(parts & kept)
    read = [name for batch in store.batches(stage.parts(), ["qid"]) for name in batch["qid"].to_pylist()]
    assert read == [str(part) for part in sorted(parts & kept)]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Stage(tmp_path / name, "s").write(0, table("a", "b"), schemas.DROPPED)
    one, two = ((tmp_path / name / "part-00000.parquet").read_bytes() for name in ("one", "two"))
    assert one == two


def test_artefacts(tmp_path: Path) -> None:
    json_file, parquet = tmp_path / "lengths.json", tmp_path / "rates.parquet"
    store.write_artifact(json_file, {"b": 1, "a": [2.5]}, "s", ["i"])
    store.write_artifact(parquet, table("a"), "s", ["i"], schema=schemas.DROPPED)
    for path in (json_file, parquet):
        assert store.artifact_done(path, "s", ["i"])
        assert not store.artifact_done(path, "s", [])
        assert store.digest(path) == store.file_digest(path)
        store.begin_artifact(path)
        assert not store.artifact_done(path, "s", ["i"])
        with pytest.raises(AdacsError, match="run `ares-train adacs rate` to its end first"):
            store.digest_or(path, "rate")
    assert json_file.read_text() == '{\n  "a": [\n    2.5\n  ],\n  "b": 1\n}\n'


def test_fingerprints_tell_values_apart() -> None:
    assert store.fingerprint({"a": 1, "b": 2}) == store.fingerprint({"b": 2, "a": 1})
    assert store.fingerprint(["a", "b"]) != store.fingerprint("a", "b")
    assert store.fingerprint(Path("x")) == store.fingerprint("x")
