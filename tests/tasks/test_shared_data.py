"""Real rows of the benchmarks, where they are there: every layout gives the same samples."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ares_eval.tasks import PixelLimits, load, prepare
from ares_eval.types import PicturePart, TextPart
from tests.tasks import tiny

DATA = Path(os.environ.get("ARES_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "benchmarks"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no benchmark rows here (ARES_SHARED_DATA)")

LAYOUTS = [
    ("gsm8k", "hub_gsm8k"),
    ("math500", "hub_math500"),
    ("aime24", "hub_aime24"),
    ("aime25", "hub_aime25_math-ai"),
    ("aime25", "hub_aime25_opencompass"),
    ("mmlu_pro", "hub_mmlu_pro"),
    ("mathvision", "hub_mathvision"),
    ("logicvista", "hub_logicvista"),
    ("dynamath", "hub_dynamath"),
    ("wemath", "hub_wemath"),
    ("olympiadbench_text", "hub_olympiadbench_text"),
    ("bbh", "hub_bbh"),
]


def of(name: str, folder: Path) -> list[Any]:
    return [tiny.plain(sample) for sample in load(name, dataset_dir=folder).samples()]


@pytest.mark.parametrize(("name", "folder"), LAYOUTS)
def test_native_files_and_hub_folder_agree(tmp_path: Path, name: str, folder: str) -> None:
    if not (DATA / name / folder).is_dir():
        pytest.skip(f"no {folder} here")
    (tmp_path / name).mkdir()
    (tmp_path / name / folder).symlink_to(DATA / name / folder)
    native, hub = of(name, DATA), of(name, tmp_path)
    assert native
    assert native == hub


@pytest.mark.parametrize("name", ["mathvision", "logicvista"])
def test_a_tsv_of_the_same_rows_agrees(tmp_path: Path, name: str) -> None:
    """VLMEvalKit's columns, filled from the native rows: questions, pictures and references are the same."""
    import base64
    import csv

    samples = list(load(name, dataset_dir=DATA, limit=25).samples())
    with (tmp_path / {"mathvision": "MathVision.tsv", "logicvista": "LogicVista.tsv"}[name]).open(
        "w", newline=""
    ) as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "question", "answer", "choices", "category"])
        for row in raw(name, 25):
            cell = base64.b64encode((DATA / name / row["file"]).read_bytes()).decode()
            choices = repr(row.get("options", []))
            writer.writerow([row["id"], cell, row["question"], row["answer"], choices, row.get("subject", "")])
    from_tsv = list(load(name, dataset_dir=tmp_path).samples())
    for one, other in zip(samples, from_tsv, strict=True):
        mine, theirs = tiny.plain(one), tiny.plain(other)
        assert (mine[0], mine[4:]) == (theirs[0], theirs[4:])


def raw(name: str, count: int) -> list[dict[str, Any]]:
    import json

    if name == "mathvision":
        path = next(path for path in (DATA / name / "data").glob("*.jsonl"))
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return [{**row, "file": row["image"]} for row in rows][:count]
    rows = json.loads((DATA / name / "data" / "dataset.json").read_text("utf-8"))
    listed = [{**row, "id": key, "file": f"data/images/{row['imagename']}"} for key, row in rows.items()]
    return [row for row in listed if row["answer"]][:count]


def test_mathvision_keeps_its_traps_apart() -> None:
    samples = list(load("mathvision", dataset_dir=DATA).samples())
    free = [sample for sample in samples if sample.answer.type != "choice"]
    assert 0.25 < len(free) / len(samples) < 0.5
    for sample in samples:
        parts = sample.messages[0].parts
        assert sum(isinstance(part, PicturePart) for part in parts) == 1
        text = "".join(part.text for part in parts if isinstance(part, TextPart))
        # One mark is where the picture stands; several number panels of a picture that comes first.
        assert isinstance(parts[0], PicturePart) or "<image2>" not in text
        if sample.answer.type != "choice":
            assert sample.answer.choices == ()
            assert "\n(A) " not in text
        elif "".join(sample.answer.choices) != "ABCDE":
            assert f"(A) {sample.answer.choices[0]}" in text


def test_dynamath_gives_whole_groups() -> None:
    samples = list(load("dynamath", dataset_dir=DATA, limit=3).samples())
    groups = [sample.group for sample in samples]
    assert len(samples) == 30
    assert groups == sorted(groups, key=groups.index)
    assert len(set(groups)) == 3
    assert {sample.answer.type for sample in samples} <= {"number", "choice", "text"}
    numbers = [sample.answer for sample in samples if sample.answer.type == "number"]
    assert all(answer.policy == {"tolerance": 0.001} for answer in numbers)


def test_every_real_picture_can_be_sent() -> None:
    limits = PixelLimits()
    for name in ("mathvision", "logicvista", "dynamath"):
        for sample in load(name, dataset_dir=DATA, limit=12).samples():
            for picture in tiny.pictures(sample):
                prepared = prepare(picture, limits)
                assert limits.min_pixels <= prepared.size[0] * prepared.size[1] <= limits.max_pixels
                assert prepared.data_url().startswith("data:image/")
                if prepared.untouched:
                    assert prepared.content() == picture.read()


def test_a_jpeg_that_is_called_png_is_sent_as_what_it_is() -> None:
    wrong = [path for path in DATA.glob("*/data/images/*.png") if path.open("rb").read(3) == b"\xff\xd8\xff"]
    from ares_eval.types import Picture

    for path in wrong:
        prepared = prepare(Picture(str(path), path.read_bytes), PixelLimits(1, 100_000_000))
        assert prepared.data_url().startswith("data:image/jpeg;base64,")
