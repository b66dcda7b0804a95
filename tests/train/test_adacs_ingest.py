"""Ingest: rows to questions by content, repeated and unusable ones told apart, the same parts however it was run."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_eval.types import PictureError, PicturePart, TextPart
from ares_train.adacs import ingest, pictures, prepare, shuffle, store
from ares_train.adacs.config import AdacsConfig, FieldsConfig, SourceConfig, from_dict
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout
from ares_train.adacs.placeholders import Misplaced, place
from ares_train.adacs.questions import Question, Unusable, messages_of, question_of, spec_of
from tests.train.adacs_corpus import configured, picture, sums, tree, write_jsonl


def one(values: dict[str, Any], tmp_path: Path, trusted: tuple[str, ...] = (), **fields: Any) -> Question:
    source = SourceConfig(name="s", path="x", fields=FieldsConfig(**fields))
    return question_of(values, source, tmp_path, tmp_path / "kept", trusted)


def questions(work: Path) -> list[dict[str, Any]]:
    return [row for batch in store.batches(store.opened(work / "questions").parts()) for row in batch.to_pylist()]


def run(config: AdacsConfig, work: Path) -> list[str]:
    notes: list[str] = []
    ingest.run(config, work, notes.append)
    return notes


def report(work: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(Layout(work).ingest_report.read_text())
    return told


# ---------------------------------------------------------------- marks and pictures


def test_marks_that_fit_stay_and_others_are_refused() -> None:
    assert place([("user", "a <image> b <image>")], 2) == ([("user", "a <image> b <image>")], [0, 1])
    for pictures_shown in (1, 3):
        with pytest.raises(Misplaced, match="2 marks"):
            place([("user", "a <image> b <image>")], pictures_shown)
    with pytest.raises(Misplaced):
        place([("user", "<image> is gone")], 0)
    with pytest.raises(Misplaced, match="user"):
        place([("system", "none")], 1)


def test_pictures_that_no_mark_names_come_first_and_numbers_name_pictures() -> None:
    assert place([("user", "What?")], 2) == ([("user", "<image><image>What?")], [0, 1])
    turns, order = place([("user", "In <image 2> and <image1>, then <image2> again")], 3)
    assert turns == [("user", "<image>In <image> and <image>, then <image2> again")]
    assert order == [2, 1, 0]
    # More numbers than pictures: panels within the one picture.
    assert place([("user", "panels <image1> <image2>")], 1) == ([("user", "<image>panels <image1> <image2>")], [0])


def test_literal_marks_are_written_apart() -> None:
    turns, order = place([("user", "HTML has <image> and <video>")], 0, literal=True)
    assert (turns, order) == ([("user", "HTML has < image> and < video>")], [])


@given(
    st.lists(st.sampled_from(["<image>", "<image1>", "<image 2>", "<image3>", "x", "<video>", "<audio>"]), max_size=8),
    st.integers(0, 3),
    st.booleans(),
)
def test_there_are_as_many_marks_as_pictures(words: list[str], count: int, literal: bool) -> None:
    try:
        turns, order = place([("system", "s"), ("user", " ".join(words))], count, literal=literal)
    except Misplaced:
        assert words.count("<image>") not in (0, count)
        return
    text = "".join(content for _, content in turns)
    assert text.count("<image>") == count == len(order)
    assert sorted(order) == list(range(count))
    assert "<video>" not in text
    assert "<audio>" not in text


def test_a_picture_is_found_in_every_form_of_cell(tmp_path: Path) -> None:
    data = picture()
    (tmp_path / "p.png").write_bytes(data)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    for cell in (
        data,
        {"bytes": data, "path": None},
        {"bytes": None, "path": "p.png"},
        {"image": "p.png"},
        url,
        "p.png",
    ):
        assert pictures.read(cell, tmp_path).data == data
    assert pictures.read(str(tmp_path / "p.png"), tmp_path).file == (tmp_path / "p.png").resolve()
    outside = tmp_path.parent / "secret.png"
    outside.write_bytes(data)
    (tmp_path / "link.png").symlink_to(outside)
    for cell, reason in (
        ("../secret.png", "outside"),
        ("link.png", "outside"),
        ("/etc/passwd", "outside"),
        ("none.png", "missing"),
        ("https://example.org/p.png", "url"),
        ("data:image/png;base64,!!!", "corrupt"),
        ({"path": None}, "missing"),
        (7, "corrupt"),
    ):
        with pytest.raises(PictureError, match=f"^{reason}"):
            pictures.read(cell, tmp_path)
    with pytest.raises(PictureError, match="image_root"):
        pictures.read("p.png", None)


def test_pictures_are_decoded_to_their_end() -> None:
    seen = pictures.look(picture(kind="JPEG"))
    assert (seen.width, seen.height, seen.suffix) == (64, 48, ".jpg")
    for data, reason in (
        (picture()[:-40], "corrupt"),
        (picture(kind="JPEG", size=(640, 480))[:3000], "corrupt"),
        (b"no picture", "corrupt"),
        (b"", "corrupt"),
        (picture(size=(2010, 10)), "aspect"),
    ):
        with pytest.raises(PictureError, match=f"^{reason}"):
            pictures.look(data)


# ---------------------------------------------------------------- rows


def test_a_row_becomes_a_question(tmp_path: Path) -> None:
    values = {"question": " What? ", "answer": 12.0, "images": [picture(1), picture(2)], "rate": 0.5, "id": 7}
    made = one(values, tmp_path, id="id", extra=("rate", "absent"))
    assert made.turns == (("user", "<image><image>What?"),)
    assert made.references == ("12",)
    assert made.extra == {"rate": 0.5, "id": "7"}
    assert (made.modality, made.source) == ("image", "s")
    assert [Path(path).read_bytes() for path in made.images] == values["images"]
    assert made.qid == one(values, tmp_path, id="id").qid
    for changed in ({"id": 8}, {"question": "Why?"}, {"images": [picture(2), picture(1)]}):
        assert one({**values, **changed}, tmp_path, id="id").qid != made.qid
    row = made.row()
    (message,) = messages_of(row)
    assert [type(part) for part in message.parts] == [PicturePart, PicturePart, TextPart]
    assert [part.picture.read() for part in message.parts if isinstance(part, PicturePart)] == values["images"]


def test_answers_choices_and_policies(tmp_path: Path) -> None:
    values = {"question": "Which?", "answer": "\\boxed{B}", "options": ["cat", "dog"], "kind": "choice",
              "policy": '{"multi": true}'}  # fmt: skip
    made = one(values, tmp_path, choices="options", answer_type="kind", answer_policy="policy")
    assert made.references == ("B",)
    assert made.turns[0][1] == "Which?\n(A) cat\n(B) dog"
    assert (made.answer.type, made.answer.policy, made.answer.choices) == ("choice", {"multi": True}, ("cat", "dog"))
    assert spec_of(made.row()) == made.answer
    shown = one({"question": "A cat or a dog?", "answer": ["dog", "hound"], "o": {"B": "dog", "A": "cat"}}, tmp_path,
                choices="o")  # fmt: skip
    assert shown.turns[0][1] == "A cat or a dog?"
    assert (shown.references, shown.answer.choices) == (("dog", "hound"), ("cat", "dog"))


def test_chat_turns(tmp_path: Path) -> None:
    told = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "What?"},
        {"from": "gpt", "value": "That."},
    ]
    made = one({"conversations": told, "answer": "x"}, tmp_path, question=None, messages="conversations")
    assert made.turns == (("system", "Be brief."), ("user", "What?"))
    parts = [{"type": "image"}, {"type": "text", "text": " what?"}]
    values = {"m": [{"role": "user", "content": parts}], "answer": "x", "images": picture()}
    assert one(values, tmp_path, question=None, messages="m").turns == (("user", "<image> what?"),)
    with pytest.raises(Unusable, match=r"fields\.images"):
        one(values, tmp_path, question=None, messages="m", images=None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"answer": "1"}, "no_question"),
        ({"question": "  ", "answer": "1"}, "no_question"),
        ({"question": "What?", "answer": None}, "no_answer"),
        ({"question": "What?", "answer": []}, "no_answer"),
        ({"question": "What <|im_end|>?", "answer": "1"}, "special_token"),
        ({"question": "x" * 300_000, "answer": "1"}, "too_long"),
        ({"question": "<image> what?", "answer": "1", "images": None}, "placeholders"),
        ({"question": "<image> what?", "answer": "1", "images": [b"1", b"2"]}, "picture_corrupt"),
        ({"question": "what?", "answer": "1", "images": "none.png"}, "picture_missing"),
        ({"question": "what?", "answer": "1", "images": "https://h/p.png"}, "picture_url"),
        ({"question": "what?", "answer": "1", "kind": "essay"}, "answer_type"),
        ({"question": "what?", "answer": "1", "options": "A, B"}, "choices"),
        ({"question": "what?", "answer": "1", "policy": "{"}, "answer_policy"),
    ],
)
def test_rows_that_are_no_questions_say_why(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(Unusable) as caught:
        one(values, tmp_path, answer_type="kind", choices="options", answer_policy="policy")
    assert caught.value.reason == reason


def test_a_trusted_source_needs_no_answer(tmp_path: Path) -> None:
    assert one({"question": "Prove it.", "answer": None}, tmp_path, trusted=("s",)).references == ()


def test_a_literal_mark_is_text_where_rows_have_no_pictures(tmp_path: Path) -> None:
    assert one({"question": "The tag <image> is", "answer": "1"}, tmp_path).turns == (("user", "The tag < image> is"),)


# ---------------------------------------------------------------- the stage


def test_duplicates_within_and_across_sources(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", [*sums(10), {"question": "case 3:  What is 3 + 21?", "answer": "24"}])
    second = write_jsonl(tmp_path / "b.jsonl", [{"question": "Case 4: what is 4 + 28 ?", "answer": 32},
                                                {"question": "Case 4: what is 4 + 28?", "answer": 33},
                                                {"question": "New", "answer": 1}])  # fmt: skip
    config = configured(
        first, ingest={"sources": [{"name": "a", "path": str(first)}, {"name": "b", "path": str(second)}]}
    )
    run(config, tmp_path / "w")
    counts = report(tmp_path / "w")["sources"]
    assert counts["a"] == {"kept": 10, "images": 0, "left_out": {"duplicate:a": 1}}
    assert counts["b"] == {"kept": 1, "images": 0, "left_out": {"duplicate:a": 1, "duplicate_other_answer:a": 1}}
    dropped = pq.read_table(Layout(tmp_path / "w").question_drops).to_pylist()
    assert sorted(row["reason"] for row in dropped) == ["duplicate:a", "duplicate:a", "duplicate_other_answer:a"]


def test_the_quarantine_names_file_row_and_reason(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "good.png").write_bytes(picture())
    (tmp_path / "img" / "bad.png").write_bytes(picture()[:100])
    rows = [
        {"id": "g", "question": "good", "answer": 1, "images": ["img/good.png"]},
        {"id": "m", "question": "missing", "answer": 1, "images": ["img/none.png"]},
        {"id": "c", "question": "corrupt", "answer": 1, "images": ["img/bad.png"]},
        {"id": "t", "question": "text", "answer": 1, "images": []},
    ]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    run(configured(source), tmp_path / "w")
    held = pq.read_table(Layout(tmp_path / "w").quarantine).to_pylist()
    assert [(row["source"], row["file"], row["row"], row["id"], row["reason"].split(":")[0]) for row in held] == [
        ("sums", "rows.jsonl", 2, "m", "picture_missing"),
        ("sums", "rows.jsonl", 3, "c", "picture_corrupt"),
    ]
    kept = {row["messages"][0]["content"]: row for row in questions(tmp_path / "w")}
    assert kept["<image>good"]["images"] == [str((tmp_path / "img" / "good.png").resolve())]
    assert (kept["text"]["images"], kept["text"]["modality"]) == ([], "text")


def test_sources_of_every_kind_give_the_same_questions(tmp_path: Path) -> None:
    rows = [{**row, "images": [picture(n)] if n % 2 else []} for n, row in enumerate(sums(6))]
    plain = [{**row, "images": [base64_url(one) for one in row["images"]]} for row in rows]
    write_jsonl(tmp_path / "rows.jsonl", plain)
    (tmp_path / "rows.json").write_text(json.dumps(plain))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [[{"bytes": one, "path": None} for one in row["images"]] for row in rows]
    columns: dict[str, Any] = {name: [str(row[name]) for row in rows] for name in ("question", "answer", "id")}
    parquet = pa.table({**columns, "images": pa.array(cells, pa.list_(kind))})
    (tmp_path / "folder" / "data").mkdir(parents=True)
    pq.write_table(parquet, tmp_path / "rows.parquet")
    pq.write_table(parquet.slice(0, 3), tmp_path / "folder" / "data" / "train-00000-of-00002.parquet")
    pq.write_table(parquet.slice(3), tmp_path / "folder" / "data" / "train-00001-of-00002.parquet")
    found = []
    for name in ("rows.jsonl", "rows.json", "rows.parquet", "folder", "*.jsonl"):
        work = tmp_path / "w" / name.replace("*", "glob")
        run(configured(tmp_path / name), work)
        found.append([{**row, "images": [Path(p).name for p in row["images"]]} for row in questions(work)])
    assert all(rows == found[0] for rows in found)
    assert len(found[0]) == 6
    assert sum(row["modality"] == "image" for row in found[0]) == 3


def base64_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def test_a_column_may_name_the_source(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{**row, "set": f"set{n % 2}"} for n, row in enumerate(sums(4))])
    config = configured(source, ingest={"sources": [{"name": "all", "path": str(source), "fields": {"source": "set"}}]})
    run(config, tmp_path / "w")
    assert {row["source"] for row in questions(tmp_path / "w")} == {"set0", "set1"}


def test_parts_are_shuffled_by_seed_and_whole(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", sums(50))
    orders = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        config = from_dict({**msgspec.to_builtins(configured(source), enc_hook=str), "seed": seed})
        run(config, tmp_path / name)
        stage = store.opened(tmp_path / name / "questions")
        assert [pq.read_metadata(path).num_rows for path in stage.parts()] == [8] * 6 + [2]
        orders.append([row["extra"] for row in questions(tmp_path / name)])
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert orders[0] != sorted(orders[0])


def test_buckets_give_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", sums(50))
    run(configured(source), tmp_path / "one")
    monkeypatch.setattr(shuffle, "BUCKET_ROWS", 7)
    run(configured(source), tmp_path / "many")
    assert tree(tmp_path / "one" / "questions") == tree(tmp_path / "many" / "questions")


def test_processes_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "CHUNK", 8)
    rows = [{**row, "images": [base64_url(picture(n))]} for n, row in enumerate(sums(20))]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    run(configured(source), tmp_path / "one")
    run(configured(source, ingest={"workers": 2}), tmp_path / "two")
    one, two = (
        [{**row, "images": [Path(p).name for p in row["images"]]} for row in questions(tmp_path / name)]
        for name in ("one", "two")
    )
    assert one == two


@pytest.mark.parametrize("fault", ["prepare", "cut", "report"])
def test_a_fault_and_a_second_run_give_the_same_files(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "CHUNK", 8)
    source = write_jsonl(tmp_path / "a.jsonl", sums(30))
    config = configured(source)
    run(config, tmp_path / "whole")
    prepared: list[int] = []
    table = prepare.Preparer.table

    def counted(self: Any, rows: Any, matcher: Any) -> pa.Table:
        prepared.append(len(rows))
        if fault == "prepare" and len(prepared) == 3:
            raise OSError("killed")
        return table(self, rows, matcher)

    written: list[Any] = []
    write = store.Stage.write

    def torn(self: Any, part: int, content: Any, schema: Any, inputs: Any = ()) -> Any:
        if self.folder.name == "questions":
            written.append(part)
            if fault == "cut" and len(written) == 3:
                raise OSError("killed")
        return write(self, part, content, schema, inputs)

    def no_report(*_: Any) -> None:
        raise OSError("killed")

    monkeypatch.setattr(prepare.Preparer, "table", counted)
    monkeypatch.setattr(store.Stage, "write", torn)
    if fault == "report":
        monkeypatch.setattr(ingest, "as_markdown", no_report)
    with pytest.raises(OSError, match="killed"):
        run(config, tmp_path / "torn")
    assert not Layout(tmp_path / "torn").ingest_report.exists()
    monkeypatch.undo()
    monkeypatch.setattr(ingest, "CHUNK", 8)
    monkeypatch.setattr(prepare.Preparer, "table", counted)
    prepared.clear()
    fault_before, fault = fault, ""
    run(config, tmp_path / "torn")
    # Chunks of 8, 8, 8 and 6 rows: those that were prepared before the fault are not prepared again.
    assert prepared == ([8, 6] if fault_before == "prepare" else [])
    assert tree(tmp_path / "torn") == tree(tmp_path / "whole")
    assert run(config, tmp_path / "torn") == ["ingest: 4 parts are there already"]


def test_other_data_or_settings_make_other_parts(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", sums(30))
    run(configured(source), tmp_path / "w")
    write_jsonl(source, sums(12))
    run(configured(source), tmp_path / "w")
    assert len(questions(tmp_path / "w")) == 12
    assert store.opened(tmp_path / "w" / "questions").numbers() == [0, 1]
    run(configured(source, ingest={"part_rows": 12}), tmp_path / "w")
    assert store.opened(tmp_path / "w" / "questions").numbers() == [0]


def test_limits_and_faulty_sources(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", sums(30))
    named = {"name": "a", "path": str(source), "limit": 5}
    run(configured(source, ingest={"sources": [named]}), tmp_path / "w")
    assert len(questions(tmp_path / "w")) == 5
    for path, told in (("none.jsonl", "there is no file"), ("a.txt", "is none of .jsonl"), ("", "has no split train")):
        (tmp_path / "a.txt").write_text("x")
        with pytest.raises(AdacsError, match=told):
            run(configured(tmp_path / path), tmp_path / "v")
    source.write_text('{"question": "q"}\n{"question": tr\n')
    with pytest.raises(AdacsError, match=r"source sums: .*a.jsonl, row 2: not JSON"):
        run(configured(source), tmp_path / "v")
    source.write_text('{"question": "q"}\n')
    with pytest.raises(AdacsError, match="no question is left after ingest; left out: 1 no_answer"):
        run(configured(source), tmp_path / "v")


HUB = """
import json, sys
from pathlib import Path
from ares_train.adacs import ingest
from ares_train.adacs.errors import AdacsError
from tests.train.adacs_corpus import configured
for hub in sys.argv[2:]:
    source = {"name": hub, "hub": hub, "fields": {"question": "question", "images": "image_1"}}
    try:
        ingest.run(configured(Path("x"), ingest={"sources": [source]}), Path(sys.argv[1]) / hub, lambda _: None)
        print(json.dumps({"made": hub}))
    except AdacsError as error:
        print(json.dumps({"error": str(error)}))
"""
"""The libraries of the hub read their environment when they are imported, so this is a process of its own."""


def test_a_dataset_of_the_hub(tmp_path: Path, start_loopback: Callable[..., Any]) -> None:
    cells = pa.array([{"bytes": picture(n), "path": None} for n in range(3)])
    rows = pa.table({"question": [f"What is {n}?" for n in range(3)], "answer": list("abc"), "image_1": cells})
    file = tmp_path / "hub" / "org" / "set" / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(rows, file)
    server = start_loopback(hub=str(tmp_path / "hub"))
    variables = {**os.environ, "HF_ENDPOINT": server.root, "HF_HOME": str(tmp_path / "hf")}
    words = [sys.executable, "-c", HUB, str(tmp_path / "w"), "org/set", "org/none"]
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    made, absent = map(json.loads, done.stdout.splitlines())
    assert made == {"made": "org/set"}
    assert "source org/none: the hub has no dataset org/none" in absent["error"]
    kept = {
        row["messages"][0]["content"]: Path(row["images"][0]).read_bytes() for row in questions(tmp_path / "w/org/set")
    }
    assert kept == {f"<image>What is {n}?": picture(n) for n in range(3)}
