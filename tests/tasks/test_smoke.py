"""The two smoke suites: enough of everything, and every reference is judged right against itself."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ares_eval import resources
from ares_eval.tasks import PixelLimits, load, prepare, style
from ares_eval.tasks.definition import ANSWER_TYPES
from ares_eval.types import AnswerSpec, Message, PicturePart, TextPart
from tests.tasks import tiny

TYPES = set(ANSWER_TYPES) - {"auto"}


@pytest.mark.parametrize(("name", "least"), [("smoke_text", 90), ("smoke_pictures", 30)])
def test_every_type_and_three_levels(name: str, least: int) -> None:
    task = load(name)
    samples = list(task.samples())
    assert task.size == len(samples) >= least
    assert {sample.answer.type for sample in samples} == TYPES
    assert set(Counter(sample.level for sample in samples)) == {"easy", "medium", "hard"}
    assert any(sample.answer.policy.get("multi") for sample in samples)
    for sample in samples:
        assert (sample.answer.type == "choice") == bool(sample.answer.choices)
        if sample.answer.type == "choice":
            letters = {chr(65 + number) for number in range(len(sample.answer.choices))}
            assert set(str(sample.reference).split(", ")) <= letters


def test_the_text_questions_are_short_and_begin_with_sums() -> None:
    samples = list(load("smoke_text").samples())
    assert all(isinstance(part, TextPart) for sample in samples for part in sample.messages[0].parts)
    assert sum(sample.fields["subject"] in ("sums", "products", "differences") for sample in samples) >= 20


def test_the_pictures_are_sound_and_varied() -> None:
    prepared = [prepare(p, PixelLimits()) for s in load("smoke_pictures").samples() for p in tiny.pictures(s)]
    assert {one.untouched for one in prepared} == {True, False}
    assert {one.media_type for one in prepared} == {"image/png", "image/jpeg"}
    assert all(one.data_url() for one in prepared)
    assert any(len(tiny.pictures(sample)) == 2 for sample in load("smoke_pictures").samples())


def test_drawing_again_asks_the_same() -> None:
    path = resources.folder("tasks") / "smoke_pictures" / "draw.py"
    spec = importlib.util.spec_from_file_location("smoke_draw", path)
    assert spec is not None
    assert spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    kept = [json.loads(line) for line in (path.parent.parent / "smoke_pictures.jsonl").read_text().splitlines()]
    drawn = draw.questions()
    for row, (again, pictures) in zip(kept, drawn, strict=True):
        assert {key: row[key] for key in again} == json.loads(json.dumps(again))
        for number, (image, _) in enumerate(pictures, 1):
            name = row["image" if number == 1 else f"image_{number}"]
            from PIL import Image

            with Image.open(path.parent.parent / name) as shipped:
                assert shipped.size == image.size


@pytest.mark.parametrize("name", ["smoke_text", "smoke_pictures"])
def test_a_reference_is_right_and_a_wrong_answer_is_not(name: str) -> None:
    verify = pytest.importorskip("ares_eval.verify").verify
    wrong: dict[str, str] = {"choice": "E", "yesno": "maybe", "date": "1999-01-01"}
    for sample in load(name).samples():
        first = sample.reference if isinstance(sample.reference, str) else sample.reference[0]
        assert verify(f"\\boxed{{{first}}}", sample.reference, sample.answer).value == "correct", sample.id
        bad = wrong.get(sample.answer.type, "(a) 98765; (b) 43210" if sample.answer.type == "multipart" else "98765")
        assert verify(f"\\boxed{{{bad}}}", sample.reference, sample.answer).value != "correct", sample.id


# ---------------------------------------------------------------- prompts


def turn(role: Any, *parts: Any) -> Message:
    return Message(role, tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def test_the_system_prompt_goes_where_it_is_asked_to() -> None:
    question = (turn("user", "q \n"),)
    assert style(question, "", "system") == question
    assert style(question, "S") == (turn("system", "S"), turn("user", "q \n"))
    assert style((turn("system", "T"), *question), "S") == (turn("system", "S\n\nT"), *question)
    assert style(question, "S", "user-suffix") == (turn("user", "q S"),)
    picture = PicturePart(tiny.pictures(next(load("smoke_pictures").samples()))[0])
    assert style((turn("user", "q", picture),), "S", "user-suffix") == (turn("user", "q", picture, "S"),)
    several = (turn("user", "a"), turn("assistant", "b"), turn("user", "c"))
    assert style(several, "S", "user-suffix") == (*several[:2], turn("user", "c S"))
    with pytest.raises(ValueError, match="prompt style"):
        style(question, "S", "prefix")  # type: ignore[arg-type]


def test_specs_are_plain_values() -> None:
    for sample in load("smoke_text").samples():
        assert isinstance(sample.answer, AnswerSpec)
        json.dumps([dict(sample.answer.policy), sample.answer.choices, dict(sample.fields)])


def test_the_files_travel_with_the_package() -> None:
    folder = Path(resources.folder("tasks"))
    assert (folder / "smoke_text.jsonl").is_file()
    assert (folder / "_ares_defaults").is_file()
    assert len(list((folder / "smoke_pictures").glob("p*"))) >= 30
