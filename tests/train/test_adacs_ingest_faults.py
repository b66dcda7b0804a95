"""Ingest: what came, went, changed, is broken or misspelt between two runs, and is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ares_train.adacs import ingest, pictures, schemas, shuffle, store
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.errors import AdacsError
from tests.train.adacs_corpus import configured, picture, sums, tree, write_jsonl


def run(config: AdacsConfig, work: Path) -> list[str]:
    notes: list[str] = []
    ingest.run(config, work, notes.append)
    return notes


def questions(work: Path) -> list[dict[str, Any]]:
    return [row for batch in store.batches(store.opened(work / "questions").parts()) for row in batch.to_pylist()]


def shown(folder: Path, count: int = 4) -> Path:
    """Questions with a picture each."""
    rows = []
    for n in range(count):
        (folder / f"p{n}.png").write_bytes(picture(n))
        rows.append({"question": f"<image> What is {n} + 1?", "answer": n + 1, "id": f"s{n}", "images": [f"p{n}.png"]})
    return write_jsonl(folder / "q.jsonl", rows)


@pytest.mark.parametrize("workers", [1, 2])
def test_pictures_that_come_back_or_change_are_looked_at_again(workers: int, tmp_path: Path) -> None:
    config = configured(shown(tmp_path), ingest={"workers": workers})
    away = (tmp_path / "p1.png").read_bytes()
    (tmp_path / "p1.png").unlink()
    (tmp_path / "p2.png").write_bytes(b"broken")
    run(config, tmp_path / "w")
    assert len(questions(tmp_path / "w")) == 2
    before = tree(tmp_path / "w")
    assert run(config, tmp_path / "w") == ["ingest: 1 parts are there already"]
    assert tree(tmp_path / "w") == before
    (tmp_path / "p1.png").write_bytes(away)
    (tmp_path / "p2.png").write_bytes(picture(2))
    run(config, tmp_path / "w")
    whole = {row["qid"] for row in questions(tmp_path / "w")}
    assert len(whole) == 4
    (tmp_path / "p3.png").write_bytes(picture(30))
    run(config, tmp_path / "w")
    assert len(whole & {row["qid"] for row in questions(tmp_path / "w")}) == 3
    assert run(config, tmp_path / "w") == ["ingest: 1 parts are there already"]


@pytest.mark.parametrize("names", [("a/b", "a_b"), ("..", "a"), (".", "/")])
def test_sources_of_like_names_are_kept_apart(names: tuple[str, str], tmp_path: Path) -> None:
    rows = sums(8)
    sources = [
        {"name": name, "path": str(write_jsonl(tmp_path / f"{n}.jsonl", rows[4 * n : 4 * n + 4]))}
        for n, name in enumerate(names)
    ]
    config = configured(tmp_path / "unused", ingest={"sources": sources})
    for _ in range(2):
        run(config, tmp_path / "w")
        assert sorted(row["source"] for row in questions(tmp_path / "w")) == sorted(names * 4)
    assert {path.parent.name for path in (tmp_path / "w").rglob("part-*")} >= {"questions"}
    assert not list((tmp_path / "w" / "questions" / "prepared").glob("part-*"))


def test_what_decoders_raise_is_a_broken_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    for error in (RuntimeError("AVIF"), NotImplementedError("DDS"), TypeError(), KeyError(1), EOFError()):

        def load(_self: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(ImageFile.ImageFile, "load", load)
        with pytest.raises(pictures.PictureError, match="corrupt"):
            pictures.look(picture())


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_that_are_nested_too_deep_are_no_questions(workers: int, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "q.jsonl", sums(4))
    for column in ("answer", "extra", "id"):
        deep = {"question": "Deep?", "answer": 1, column: None}
        line = json.dumps(deep).replace(f'"{column}": null', f'"{column}": {"[" * 900}1{"]" * 900}')
        file.write_text(file.read_text() + line + "\n")
    config = configured(file, ingest={"workers": workers})
    notes = run(config, tmp_path / "w")
    assert notes[-1] == "ingest: 4 questions in 1 parts; left out: 3 too_deep"


@pytest.mark.parametrize(("name", "value"), [("tolerance", "abc"), ("digits", "x"), ("relative", float("nan"))])
def test_policies_that_no_answer_can_be_compared_by_are_left_out(name: str, value: Any, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{**row, "policy": {"tolerance": 0.5}} for row in sums(4)]
    rows[0]["policy"] = json.dumps({name: str(value)})
    fields = {"id": "id", "answer_policy": "policy"}
    sources = [{"name": "s", "path": str(write_jsonl(tmp_path / "q.jsonl", rows)), "fields": fields}]
    notes = run(configured(tmp_path / "unused", ingest={"sources": sources}), tmp_path / "w")
    assert notes[-1] == "ingest: 3 questions in 1 parts; left out: 1 answer_policy"


@pytest.mark.parametrize("field", ["question", "answer", "messages"])
def test_a_column_that_is_not_there_is_named_beside_those_that_are(field: str, tmp_path: Path) -> None:
    good = {"name": "good", "path": str(write_jsonl(tmp_path / "g.jsonl", sums(3)))}
    bad = {"name": "bad", "path": str(write_jsonl(tmp_path / "b.jsonl", sums(5))), "fields": {field: "anser"}}
    told = "there is no column anser; there are question, answer, id"
    with pytest.raises(AdacsError, match=f"no question is left after ingest; .*{told}"):
        run(configured(tmp_path / "unused", ingest={"sources": [bad]}), tmp_path / "w")
    notes = run(configured(tmp_path / "unused", ingest={"sources": [good, bad]}), tmp_path / "w")
    assert notes[-1].startswith("ingest: NOTHING is left of source bad: ")
    assert told in notes[-1]


def test_trusted_sources_must_be_there(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "q.jsonl", [{**row, "set": f"set{n % 2}"} for n, row in enumerate(sums(4))])
    source = {"name": "s", "path": str(file), "fields": {"source": "set"}}
    config = configured(file, ingest={"sources": [source]}, rate={"trust_source": ["set1", "sat0"]})
    for _ in range(2):
        with pytest.raises(AdacsError, match="trust_source: no question is of a source 'sat0'; there are set0, set1"):
            run(config, tmp_path / "w")


@pytest.mark.parametrize("name", ["q.parquet", "q.jsonl"])
def test_sources_that_cannot_be_read_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x00PAR1 no")
    with pytest.raises(AdacsError, match=f"source sums: .*{name}"):
        run(configured(tmp_path / name), tmp_path / "w")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(AdacsError, match=f"source sums: .*{name}"):
        run(configured(tmp_path / f"{name}*"), tmp_path / "w")


def test_the_spool_holds_no_more_than_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pyarrow holds after many small tables for many buckets is what waits, not what was ever written."""
    monkeypatch.setattr(shuffle, "BUCKET_ROWS", 256)
    spool = shuffle.Spool(tmp_path / "spool", 0, 64 * 256)

    def table(first: int) -> pa.Table:
        rows = [
            {"qid": f"{n:032}", "source": "s", "modality": "text", "messages": [], "images": [], "references": ["5"],
             "answer_type": "auto", "answer_policy": "{}", "choices": [], "extra": "{}"}
            for n in range(first, first + 128)
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schemas.QUESTIONS)

    held = []
    for chunk in range(128):
        spool.add(table(128 * chunk))
        held.append(pa.total_allocated_bytes())
    assert max(held[64:]) < 1.2 * max(held[:16])
    parts = list(spool.parts(1000))
    assert [part.num_rows for part in parts] == [1000] * 16 + [384]
    qids = [qid for part in parts for qid in part["qid"].to_pylist()]
    order = shuffle.order_of(0, qids)
    assert len(set(qids)) == 64 * 256
    assert bool(np.all(order[:-1] <= order[1:]))
