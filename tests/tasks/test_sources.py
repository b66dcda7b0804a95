"""Local data in every layout: the same samples, lazily, with errors that name file and row."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_eval.tasks import BadRow, DataUnavailable, load
from ares_eval.tasks import tsv as tsv_module
from ares_eval.tasks.picture_store import Held, PictureStore
from tests.tasks import tiny

EXPECTED = [
    ("1", ["one ", tiny.ROWS[0]["pictures"][0], " two"], "4", ("number", {}, ())),
    ("2", ["none"], "B", ("choice", {}, ("x", "y"))),
    (
        "3",
        ['a "quoted"\tline\nand ', tiny.ROWS[2]["pictures"][1], " then ", tiny.ROWS[2]["pictures"][0]],
        "5",
        ("number", {}, ()),
    ),
]


def loaded(folder: Path, data: Path, **options: Any) -> Any:
    tiny.task_file(folder / "tasks")
    return load("tiny", dataset_dir=data, include_path=[folder / "tasks"], **options)


def seen(task: Any) -> list[Any]:
    plain = [tiny.plain(sample) for sample in task.samples()]
    return [(one[0], one[6][0][1], one[4], one[5]) for one in plain]


def test_native_files(tmp_path: Path) -> None:
    task = loaded(tmp_path, tiny.native(tmp_path / "data"))
    assert seen(task) == EXPECTED
    assert task.size == 3
    assert task.source.startswith("native: ")


@pytest.mark.parametrize("place", ["hub_tiny", "tiny/hub_tiny", "tiny/hub_tiny_mirror"])
def test_a_hub_folder_of_parquet(tmp_path: Path, place: str) -> None:
    tiny.parquet(tmp_path / "data" / place / "data" / "test-00000-of-00001.parquet")
    task = loaded(tmp_path, tmp_path / "data")
    assert seen(task) == EXPECTED
    assert task.size == 3


def test_a_hub_folder_in_shards_as_its_readme_says(tmp_path: Path) -> None:
    hub = tmp_path / "data" / "hub_tiny"
    tiny.parquet(hub / "x" / "b-0.parquet", tiny.ROWS[:2])
    tiny.parquet(hub / "x" / "b-1.parquet", tiny.ROWS[2:])
    tiny.parquet(hub / "data" / "test-0.parquet", tiny.ROWS[:1])
    head = "configs:\n- config_name: default\n  data_files:\n  - split: test\n    path: x/b-*\n"
    (hub / "README.md").write_text(f"---\n{head}---\ntext")
    assert seen(loaded(tmp_path, tmp_path / "data")) == EXPECTED


def test_a_readme_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    hub = tmp_path / "data" / "hub_tiny"
    hub.mkdir(parents=True)
    tiny.parquet(tmp_path / "data" / "secret.parquet")
    head = "configs:\n- config_name: default\n  data_files:\n  - split: test\n    path: ../secret.parquet\n"
    (hub / "README.md").write_text(f"---\n{head}---\n")
    with pytest.raises(DataUnavailable, match="nothing for it in"):
        loaded(tmp_path, tmp_path / "data")


def test_a_tsv(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    tiny.tsv(tmp_path / "data" / "Tiny.tsv")
    task = loaded(tmp_path, tmp_path / "data")
    assert seen(task) == EXPECTED
    assert task.size == 3
    assert task.source.startswith("VLMEvalKit TSV: ")


def test_a_tsv_with_pictures_longer_than_csv_allows_and_by_reference(tmp_path: Path) -> None:
    import random

    noise = random.Random(0).randbytes(200_000)
    data = tiny.png(300, 300) + noise  # bytes after the picture's end do no harm
    cell = base64.b64encode(data).decode()
    two = "['" + cell + "', '" + base64.b64encode(tiny.png(3, 3)).decode() + "']"
    path = tmp_path / "data" / "Tiny.tsv"
    path.parent.mkdir()
    lines = ["index\timage\timage_2\tquestion\tanswer\tA\tB", f"7\t{cell}\t\tq\t1\t\t", "8\t7\t\tr\t2\t\t"]
    path.write_text(
        "\ufeff" + "\r\n".join([*lines, f'9\t"{two}"\t\t"s\nt"\t3\t\t', "10\t9\t\tu\t4\t\t"]) + "\r\n", "utf-8"
    )
    samples = list(loaded(tmp_path, tmp_path / "data").samples())
    assert [[picture.read() for picture in tiny.pictures(sample)] for sample in samples] == [
        [data],
        [data],
        [data, tiny.png(3, 3)],
        [data, tiny.png(3, 3)],
    ]
    assert [sample.id for sample in samples] == ["7", "8", "9", "10"]


@pytest.mark.parametrize("kind", ["parquet", "tsv"])
def test_pictures_that_are_no_longer_held_are_read_again(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"id": str(i), "question": f"q{i}", "answer": "1", "options": [], "pictures": [tiny.png(9, 9 + i)]}
        for i in range(40)
    ]
    if kind == "parquet":
        tiny.parquet(tmp_path / "data" / "hub_tiny" / "test.parquet", rows, group=17)
    else:
        (tmp_path / "data").mkdir()
        tiny.tsv(tmp_path / "data" / "Tiny.tsv", rows)
    monkeypatch.setattr(PictureStore.__init__, "__defaults__", (Held(1),))
    samples = list(loaded(tmp_path, tmp_path / "data").samples())
    for number in (0, 39, 16, 17, 3, 33):
        assert tiny.pictures(samples[number])[0].read() == rows[number]["pictures"][0]


def test_native_comes_before_the_hub_folder_and_that_before_the_tsv(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    tiny.tsv(data / "Tiny.tsv")
    assert "TSV" in loaded(tmp_path, data).source
    tiny.parquet(data / "hub_tiny" / "test.parquet")
    assert loaded(tmp_path, data).source.startswith("hub folder")
    tiny.native(data)
    assert loaded(tmp_path, data).source.startswith("native")


def test_the_digest_is_of_the_rows(tmp_path: Path) -> None:
    one = loaded(tmp_path / "1", tiny.native(tmp_path / "1" / "data")).dataset_digest
    two = loaded(tmp_path / "2", tiny.native(tmp_path / "2" / "data")).dataset_digest
    other = loaded(tmp_path / "3", tiny.native(tmp_path / "3" / "data", tiny.ROWS[:2])).dataset_digest
    assert one == two != other
    assert one.startswith("sha256:")


def test_two_folders_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for number in (1, 2):
        rows = [{"id": "1", "question": f"from {number}", "answer": "1", "options": [], "pictures": []}]
        tiny.parquet(tmp_path / str(number) / "data" / "hub_tiny" / "data" / "test-0.parquet", rows)
    asked = [
        next(loaded(tmp_path / str(n), tmp_path / str(n) / "data").samples()).messages[0].parts[0].text for n in (1, 2)
    ]
    assert asked == ["from 1", "from 2"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "1", "question": "q", "answer"', "not JSON"),
        ("[1, 2]", "not an object|is not an object"),
        ('{"id": "1", "answer": "4", "picture": null, "options": []}', "no column 'question'"),
        ('{"id": "1", "question": "q", "answer": null, "picture": null, "options": []}', "reference"),
        ('{"id": "1", "question": "q", "answer": "", "picture": null, "options": []}', "no reference"),
        ('{"id": "1", "question": 7, "answer": "1", "picture": null, "options": []}', "not a text"),
        ('{"id": "1", "question": "q", "answer": "1", "picture": "../x.png", "options": []}', "leads out"),
        ('{"id": "1", "question": "q", "answer": "1", "picture": "/etc/passwd", "options": []}', "leads out"),
        ('{"id": "0", "question": "q", "answer": "1", "picture": null, "options": []}', "occurs twice"),
        ('{"id": "1", "question": "q", "answer": "A", "picture": null, "options": "[1, __import__(\'os\')]"}', "list"),
    ],
)
def test_a_bad_row_names_task_file_and_row(tmp_path: Path, line: str, words: str) -> None:
    data = tmp_path / "data"
    (data / "tiny").mkdir(parents=True)
    good = json.dumps({"id": "0", "question": "q", "answer": "1", "picture": None, "options": []})
    (data / "tiny" / "rows.jsonl").write_text(f"{good}\n{line}\n")
    rows = loaded(tmp_path, data).samples()
    next(rows)
    with pytest.raises(BadRow, match=words) as caught:
        next(rows)
    assert str(caught.value).startswith(f"tiny: {data}/tiny/rows.jsonl, row 2: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "header"),
        ("index\tquestion\n1\n", "cells"),
        ('index\tquestion\timage\n1\t"open\tx\n', "unexpected end|EOF"),
        ("index\timage\timage_2\tquestion\tanswer\tA\tB\n1\tno-base64-" + "-" * 80 + "\t\tq\t1\t\t\n", "base64"),
        ("index\timage\timage_2\tquestion\tanswer\tA\tB\n1\t99\t\tq\t1\t\t\n", "refers to row '99'"),
    ],
)
def test_a_bad_tsv(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Tiny.tsv").write_text(text)
    with pytest.raises(BadRow, match=words):
        list(loaded(tmp_path, tmp_path / "data").samples())


def test_a_broken_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "data" / "hub_tiny" / "test.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 no, it is not PAR1")
    with pytest.raises(BadRow, match="not a parquet file"):
        list(loaded(tmp_path, tmp_path / "data").samples())
    with pytest.raises(BadRow, match="not a parquet file"):
        _ = loaded(tmp_path, tmp_path / "data").size


def test_rows_are_read_only_as_they_are_asked_for(tmp_path: Path) -> None:
    data = tiny.native(tmp_path / "data")
    with (data / "tiny" / "rows.jsonl").open("a") as file:
        file.write("broken\n")
    assert len(list(loaded(tmp_path, data, limit=3).samples())) == 3
    with pytest.raises(BadRow):
        list(loaded(tmp_path, data, limit=4).samples())


def test_the_csv_limit_is_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    tiny.tsv(tmp_path / "data" / "Tiny.tsv")
    monkeypatch.setattr(tsv_module, "MAX_FIELD", 20)
    with pytest.raises(BadRow, match="field larger"):
        list(loaded(tmp_path, tmp_path / "data").samples())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="is no folder; check --dataset-dir"):
        loaded(tmp_path, tmp_path / "nowhere")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 500)), max_size=60))
def test_held_pictures_stay_within_their_bound(put: list[tuple[int, int]]) -> None:
    held = Held(1_000)
    for key, size in put:
        held.put((key, size), bytes(size))
        assert held.get((key, size)) == bytes(size)
        assert held._size == sum(map(len, held._bytes.values())) <= 1_000
