"""Decontamination: planted copies of benchmark questions are found, by text and by picture, and nothing else is."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ares_eval import tasks
from ares_train.adacs import benchmark_index, contamination, grams, ingest, pictures
from ares_train.adacs.config import ContaminationConfig
from ares_train.adacs.contamination import Asked, Matcher, gather
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout
from tests.train.adacs_corpus import configured, write_jsonl

WORDS = [
    f"{a}{b}" for a in ("al", "bo", "cu", "de", "fi", "ga", "ho", "ju") for b in ("n", "rt", "sk", "mo", "pel", "ti")
]


def prose(seed: int, length: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)


def drawing(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Thin lines on white, as figures of geometry are."""
    chance = random.Random(seed)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    points = [(chance.randrange(20, size[0] - 20), chance.randrange(20, size[1] - 20)) for _ in range(6)]
    pen.line([*points, points[0]], fill="black", width=3)
    pen.ellipse([*points[0], points[0][0] + 60, points[0][1] + 60], outline="black", width=3)
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


BOILERPLATE = (
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end. Question: "
)

LONG = " ".join(prose(1, 45))
SHORT = "Compute the product of 17 and x when x = 4"
TINY = "Find the value of x."

TASK = """
task: ares_{name}
dataset_path: org/{name}
test_split: test
doc_to_text: question
doc_to_target: answer
{images}
metadata:
  version: 1.0
  modality: {modality}
  id: id
  answer: {{type: text}}
  native:
    files: {{test: test.jsonl}}
    pictures: {pictures}
"""


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A catalogue of two benchmarks of our own, one with pictures, and one whose data is nowhere."""
    root = tmp_path_factory.mktemp("benchmarks")
    for name, modality, images, shown in (
        ("planted_text", "text", "", "{}"),
        ("planted_pictures", "image+text", "doc_to_image: image", "{image: image}"),
        ("planted_absent", "text", "", "{}"),
    ):
        content = TASK.format(name=name, modality=modality, images=images, pictures=shown)
        (root / "tasks").mkdir(exist_ok=True)
        (root / "tasks" / f"{name}.yaml").write_text(content)
    text = [
        {"id": "long", "question": LONG, "answer": "1"},
        {"id": "short", "question": SHORT, "answer": "2"},
        {"id": "tiny", "question": TINY, "answer": "3"},
        *({"id": f"more{n}", "question": " ".join(prose(100 + n, 60)), "answer": "x"} for n in range(30)),
    ]
    write_jsonl(root / "data" / "planted_text" / "test.jsonl", text)
    folder = root / "data" / "planted_pictures"
    rows = []
    for n in range(40):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"p{n}.png").write_bytes(encoded(drawing(n)))
        said = BOILERPLATE + (TINY if n else " ".join(prose(7, 40)))
        rows.append({"id": f"q{n}", "question": said, "answer": "A", "image": f"p{n}.png"})
    rows.append({"id": "gone", "question": BOILERPLATE + TINY, "answer": "A", "image": "none.png"})
    write_jsonl(folder / "test.jsonl", rows)
    yield root


@pytest.fixture
def config(benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContaminationConfig:
    """The planted benchmarks as the catalogue has them, the Hub out of reach."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    names = ("planted_absent", "planted_pictures", "planted_text")
    load = tasks.load
    monkeypatch.setattr(contamination.tasks, "names", lambda: (*names, "smoke_text"))
    monkeypatch.setattr(
        contamination.tasks, "load", lambda name, **more: load(name, include_path=[benchmarks / "tasks"], **more)
    )
    return ContaminationConfig(dataset_dir=benchmarks / "data", cache_dir=tmp_path / "cache")


def silent(_line: str) -> None:
    return None


def kinds(config: ContaminationConfig, text: str, *images: bytes, options: str = "") -> set[tuple[str, str]]:
    indexes, _ = gather(config, silent)
    asked = Asked(text, text + options, [pictures.look(image) for image in images])
    (matches,) = Matcher(indexes, config).match([asked])
    return {(match.kind, match.id) for match in matches}


# ---------------------------------------------------------------- texts


def test_planted_exact_copies_are_found(config: ContaminationConfig) -> None:
    assert kinds(config, LONG) == {("exact", "long")}
    assert kinds(config, f"  {LONG.upper()} \n?") == {("exact", "long")}
    assert kinds(config, SHORT) == {("exact", "short")}
    assert kinds(config, TINY) == {("exact", "tiny")}
    # Options that the training set adds do not hide the question, nor do those that the benchmark shows.
    assert kinds(config, TINY, options="\n(A) 1\n(B) 2") == {("exact", "tiny")}


def test_planted_perturbed_copies_are_found(config: ContaminationConfig) -> None:
    words = LONG.split()
    assert kinds(config, " ".join([*words[:20], "otherwise", *words[21:]])) == {("ngram", "long")}
    assert kinds(config, "Please solve this. " + LONG + " Explain your answer.") == {("ngram", "long")}
    assert kinds(config, " ".join(words[:30])) == {("ngram", "long")}
    assert kinds(config, SHORT + " exactly") == {("ngram", "short")}


def test_what_is_only_alike_is_left_alone(config: ContaminationConfig) -> None:
    words = LONG.split()
    assert kinds(config, " ".join(prose(999, 60))) == set()
    assert kinds(config, " ".join(words[:15] + prose(5, 60))) == set()
    assert kinds(config, "Compute the product of 19 and y when y = 7") == set()
    # A few words that any question may have say nothing without their picture, and neither does boilerplate.
    assert kinds(config, BOILERPLATE + "What is the area?") == set()
    assert kinds(config, "Find the value of y.") == set()


def test_boilerplate_does_not_hide_a_question_either(config: ContaminationConfig) -> None:
    assert kinds(config, " ".join(prose(7, 40))) == {("ngram", "q0")}


def test_short_words_of_a_picture_question_need_the_picture(config: ContaminationConfig) -> None:
    assert kinds(config, BOILERPLATE + TINY) == set()
    assert kinds(config, BOILERPLATE + TINY, encoded(drawing(3))) == {("picture_exact", "q3")}


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_picture_is_known_again(seed: int, config: ContaminationConfig) -> None:
    image = drawing(seed)
    found = f"q{seed}"
    assert kinds(config, "New words", encoded(image)) == {("picture_exact", found)}
    grey = image.convert("L")
    seen_through = image.convert("RGBA")
    seen_through.putalpha(grey.point(lambda value: 255 - value))
    for other in (
        encoded(image, "JPEG", quality=60),
        encoded(image, "WEBP"),
        encoded(image.resize((200, 150))),
        encoded(image.resize((900, 675)), "JPEG", quality=85),
        encoded(grey),
        encoded(seen_through),
    ):
        assert kinds(config, "New words", other) == {("picture_near", found)}


def test_other_pictures_are_others(config: ContaminationConfig) -> None:
    for seed in range(100, 160):
        assert kinds(config, "New words", encoded(drawing(seed))) == set()
    # The same drawing in another shape, mirrored, or nearly blank.
    assert kinds(config, "w", encoded(drawing(3).resize((300, 300)))) == set()
    assert kinds(config, "w", encoded(drawing(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT))) == set()
    assert kinds(config, "w", encoded(Image.new("RGB", (400, 300), "white"))) == set()


def test_correlation_is_pearsons() -> None:
    chance = np.random.default_rng(0)
    one, others = chance.integers(0, 256, 256).astype(np.uint8), chance.integers(0, 256, (9, 256)).astype(np.uint8)
    wanted = [np.corrcoef(one, other)[0, 1] for other in others]
    assert np.allclose(pictures.correlation(one, others), wanted)


# ---------------------------------------------------------------- hashes against brute force


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab c+", max_size=20), max_size=6), st.integers(1, 5))
def test_grams_are_all_windows(texts: list[str], n: int) -> None:
    batch = grams.WordHasher()(texts)
    hashes, owners = grams.grams(batch, n)
    windows = [
        (number, tuple(words[at : at + n]))
        for number, words in enumerate(map(grams.words, texts))
        for at in range(len(words) - n + 1)
    ]
    assert owners.tolist() == [number for number, _ in windows]
    known: dict[int, tuple[str, ...]] = {}
    for value, (_, window) in zip(hashes.tolist(), windows, strict=True):
        assert known.setdefault(value, window) == window
    assert len(known) == len({window for _, window in windows})
    assert grams.gram_starts(batch, n).tolist() == [
        int(batch.offsets[number]) + at
        for number, words in enumerate(map(grams.words, texts))
        for at in range(len(words) - n + 1)
    ]


def test_shares_are_those_of_brute_force(config: ContaminationConfig) -> None:
    indexes, _ = gather(config, silent)
    chance = random.Random(3)
    bases = [LONG, *(" ".join(prose(100 + n, 60)) for n in range(5))]
    texts = []
    for _ in range(60):
        words = chance.choice(bases).split()
        for _ in range(chance.randrange(4)):
            words[chance.randrange(len(words))] = chance.choice(WORDS)
        texts.append(" ".join(words[chance.randrange(20) :]))
    found = Matcher(indexes, config).match([Asked(text, text, ()) for text in texts])
    n = config.ngram

    def windows(text: str) -> list[tuple[str, ...]]:
        words = text.split()
        return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]

    for text, matches in zip(texts, found, strict=True):
        own = windows(text)
        shares = [sum(w in windows(base) for w in own) / min(len(own), len(windows(base))) for base in bases]
        wanted = max(shares) >= config.overlap
        assert bool(matches) == wanted
        for match in matches:
            if match.kind == "ngram":
                assert match.score == pytest.approx(max(shares), abs=1e-4)


def test_normal_forms() -> None:
    assert grams.normal(" What  is\n$x$ ?") == grams.normal("what is x")
    assert grams.normal("<image>Ａ　b") == "a b"
    assert grams.words("x^2+3 面积 <image1> Ünï") == ["x", "^", "2", "+", "3", "面", "积", "ünï"]
    assert grams.exact_key("<image>") == 0


# ---------------------------------------------------------------- coverage, cache, report


def test_what_cannot_be_checked_is_named(config: ContaminationConfig) -> None:
    notes: list[str] = []
    _, coverage = gather(config, notes.append)
    assert set(coverage.checked) == {"planted_text", "planted_pictures"}
    assert set(coverage.unchecked) == {"planted_absent"}
    assert (coverage.checked["planted_pictures"].pictures, coverage.checked["planted_pictures"].unreadable) == (40, 1)
    assert notes == ["decontamination: 1 of 3 benchmarks are NOT checked: planted_absent"]
    strict = ContaminationConfig(dataset_dir=config.dataset_dir, cache_dir=config.cache_dir, require_all=True)
    with pytest.raises(AdacsError, match=r"require_all: 1 benchmarks cannot be had \(planted_absent: "):
        gather(strict, silent)
    with pytest.raises(AdacsError, match="gsm9k"):
        gather(ContaminationConfig(tasks="gsm9k"), silent)


def test_indexes_are_made_once_for_the_same_data(
    config: ContaminationConfig, benchmarks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, coverage = gather(config, silent)
    made: list[str] = []
    monkeypatch.setattr(benchmark_index, "made_of", lambda name, *_: made.append(name))
    again, _ = gather(config, silent)
    assert not made
    assert contamination.digest(config, coverage, again) == contamination.digest(config, coverage, first)
    assert kinds(config, LONG, encoded(drawing(2))) == {("exact", "long"), ("picture_exact", "q2")}
    other = ContaminationConfig(dataset_dir=config.dataset_dir, cache_dir=config.cache_dir, ngram=12, tasks="all")
    with pytest.raises(AttributeError):  # the stand-in for made_of gives None: the index would be made anew
        gather(other, silent)
    assert made == ["planted_pictures"]


def test_every_benchmark_of_the_catalogue_is_named() -> None:
    every = contamination.benchmarks(ContaminationConfig())
    assert {"gsm8k", "mathvista", "mathverse_text_lite", "mmmu_pro_vision", "aime25"} <= set(every)
    assert not any(name.startswith("smoke") for name in every)
    assert contamination.benchmarks(ContaminationConfig(tasks="none")) == ()
    assert contamination.benchmarks(ContaminationConfig(tasks="gsm8k, math500")) == ("gsm8k", "math500")


def test_ingest_drops_and_reports_without_question_texts(config: ContaminationConfig, tmp_path: Path) -> None:
    words = LONG.split()
    (tmp_path / "near.jpg").write_bytes(encoded(drawing(5), "JPEG"))
    rows = [
        {"id": "copy", "question": LONG, "answer": 1},
        {"id": "changed", "question": " ".join([*words[:20], "otherwise", *words[21:]]), "answer": 1},
        {"id": "seen", "question": "What is shown?", "answer": 1, "images": ["near.jpg"]},
        {"id": "own", "question": " ".join(prose(55, 60)), "answer": 1},
    ]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    settings = {"dataset_dir": str(config.dataset_dir), "cache_dir": str(config.cache_dir), "tasks": "all"}
    ingest.run(configured(source, ingest={"contamination": settings}), tmp_path / "w", silent)
    layout = Layout(tmp_path / "w")
    told = json.loads(layout.contamination_report.read_text())
    assert told["questions_matched"] == 3
    text = told["checked"]["planted_text"]
    assert (text["matches"], text["benchmark_questions_hit"]) == ({"exact": 1, "ngram": 1}, 1)
    assert told["checked"]["planted_pictures"]["matches"] == {"picture_near": 1}
    assert {(e["id"], e["benchmark_id"], e["kind"]) for e in text["examples"]} == {
        ("copy", "long", "exact"), ("changed", "long", "ngram"),
    }  # fmt: skip
    assert list(told["not_checked"]) == ["planted_absent"]
    left_out = json.loads(layout.ingest_report.read_text())["sources"]["sums"]
    assert left_out["kept"] == 1
    assert left_out["left_out"] == {
        "contaminated:exact:planted_text": 1,
        "contaminated:ngram:planted_text": 1,
        "contaminated:picture_near:planted_pictures": 1,
    }
    shown = layout.contamination_report.read_text() + layout.contamination_report.with_suffix(".md").read_text()
    assert "**Not checked**" in shown
    assert " ".join(words[:6]) not in shown
    assert "What is shown" not in shown
