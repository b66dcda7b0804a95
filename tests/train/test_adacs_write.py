"""Stage write: the files that verl's own dataset class reads, what is left out and why, resumption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from ares_train.adacs import lengths, select, store, template_check, write
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.conversation import Wording, answered
from ares_train.adacs.conversation import asked as worded
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout
from tests.models import tiny_qwen_vl, tiny_tokenizer
from tests.train.adacs_pool import Draw, Planted, configured, plant

PROMPT = "Think first."


@pytest.fixture(scope="module")
def text_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer alone: what a text model's template is checked with."""
    folder = tmp_path_factory.mktemp("student")
    tiny_tokenizer.build(2048).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vision_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_vl.build(tmp_path_factory.mktemp("vision"))


def pool(count: int = 6, **fields: Any) -> list[Planted]:
    """Questions of tiers 0 and 8 with texts; the estimator is right or wrong in all of its draws."""
    return [
        Planted(
            f"q{i:02}",
            [Draw(40 - 20 * (i % 2), i % 2, text=f"<think>{'hm ' * k}</think>\n\\boxed{{{i}}}") for k in range(8)],
            teacher=[Draw(40 + k, text=f"<think>well {k}</think>\n\\boxed{{{i}}}") for k in range(3)],
            prompt=f"What is {i}?",
            **fields,
        )
        for i in range(count)
    ]


def asked(student: Path | None, **settings: Any) -> AdacsConfig:
    settings = {"tokenizer": None if student is None else str(student), "system_prompt": PROMPT, **settings}
    sample = {"teacher": {"ask": {"model_name": "t", "openai_base_url": "http://localhost:1/v1"}}}
    return configured(sample=sample, select={"pool": "estimator", "size": 10_000}, write=settings)


def written(work: Path, config: AdacsConfig) -> dict[str, list[dict[str, Any]]]:
    """Every file's rows after lengths, select and write."""
    for stage in (lengths, select, write):
        stage.run(config, work, lambda line: None)
    return {str(file.relative_to(work / "sft")): pq.read_table(file).to_pylist() for file in files(work)}


def files(work: Path) -> list[Path]:
    return sorted(file for file in (work / "sft").glob("*/*.parquet") if file.parent.name != "parts")


def checked_lengths(work: Path) -> dict[tuple[str, str, int], int]:
    """Tokens of each row as write counted them."""
    return {
        (row["qid"], row["pool"], row["draw"]): row["length"]
        for path in sorted((work / "sft" / "parts").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }


def dataset(paths: list[Path], student: Path, **options: Any) -> Any:
    """verl's own SFT dataset over these files."""
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer

    processor = None
    if (student / "preprocessor_config.json").is_file():
        from ares_train.verl_cpu import pictures

        pictures.processors()
        pictures.reader()
        from verl.utils import hf_processor

        processor = hf_processor(str(student))
        assert processor is not None
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    config = OmegaConf.create({"pad_mode": "no_padding", "truncation": "error", "max_length": 4096, **options})
    return MultiTurnSFTDataset(
        [str(path) for path in paths], AutoTokenizer.from_pretrained(student), config, processor=processor
    )


def test_verl_reads_the_files_and_counts_their_tokens_as_we_do(tmp_path: Path, text_student: Path) -> None:
    plant(tmp_path, pool(), texts=True)
    rows = written(tmp_path, asked(text_student))
    assert set(rows) == {"adacs/text-train.parquet", "vanilla/text-train.parquet"}
    first = rows["adacs/text-train.parquet"][0]
    assert first["messages"][:2] == [{"role": "system", "content": PROMPT}, {"role": "user", "content": "What is 0?"}]
    assert first["messages"][2] == {"role": "assistant", "content": "<think>well 0</think>\n\\boxed{0}"}
    assert {"qid", "source", "pool", "draw", "tier", "p", "target", "tokens"} <= first.keys() and "images" not in first
    found = dataset([tmp_path / "sft" / name for name in rows], text_student)
    known = checked_lengths(tmp_path)
    order = [row for name in rows for row in rows[name]]
    assert len(found) == len(order) == 12
    for place, row in enumerate(order):
        item = found[place]
        assert len(item["input_ids"]) == known[row["qid"], row["pool"], row["draw"]]
        learnt = item["input_ids"][item["loss_mask"].bool()]
        assert found.tokenizer.decode(learnt) == row["messages"][-1]["content"] + "<|im_end|>\n"


def test_pictures_go_by_reference_through_verls_dataset(tmp_path: Path, vision_student: Path) -> None:
    paths = []
    for i, size in enumerate([(60, 90), (400, 300), (2000, 30)]):
        Image.new("RGB", size, (40 * i, 9, 9)).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    questions = [
        *pool(2),
        Planted(
            "two", [Draw(30, text="It is \\boxed{1}")] * 8, modality="image", images=paths[:2], source="v",
            prompt="<image>and <image> show?",
        ),
        Planted(
            "one", [Draw(30, text="A <image> of \\boxed{1}")] * 8, modality="image", images=paths[2:], source="v",
            prompt="What?\n<image>",
        ),
        Planted("gone", [Draw(30, text="\\boxed{1}")] * 8, modality="image", images=["/no/such.png"], prompt="<image>"),
        Planted("marks", [Draw(30, text="\\boxed{1}")] * 8, modality="image", images=paths[:1], prompt="none"),
    ]  # fmt: skip
    work = tmp_path / "work"
    plant(work, questions, texts=True)
    rows = written(work, asked(vision_student))
    assert set(rows) == {f"{name}/{kind}-train.parquet" for name in ("adacs", "vanilla") for kind in ("text", "image")}
    assert all(row["images"] == [] for row in rows["adacs/text-train.parquet"])
    by_qid = {row["qid"]: row for row in rows["adacs/image-train.parquet"]}
    assert by_qid["two"]["images"] == [{"image": path} for path in paths[:2]]
    assert by_qid["one"]["messages"][-1]["content"] == "A < image> of \\boxed{1}"
    report = json.loads((work / "sft" / "report.json").read_text())
    assert report["left_out"]["adacs"] == {"marks": 1, "picture": 1}
    assert pq.read_schema(work / "sft/adacs/text-train.parquet") == pq.read_schema(
        work / "sft/adacs/image-train.parquet"
    )
    found = dataset(files(work)[:2], vision_student)
    known = checked_lengths(work)
    order = [
        (row["qid"], row["pool"], row["draw"]) for file in files(work)[:2] for row in pq.read_table(file).to_pylist()
    ]
    assert [len(found[place]["input_ids"]) for place in range(len(found))] == [known[key] for key in order]
    assert sum("multi_modal_inputs" in found[place] for place in range(len(found))) == 2


def test_a_template_that_depends_on_the_place_of_a_turn_is_refused(tmp_path: Path, text_student: Path) -> None:
    """As Qwen's thinking models: only the last turn keeps its thinking, so turns alone differ from the whole."""
    tokenizer = tiny_tokenizer.build(2048)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ m.content }}{% else %}", "{{ m.content }}{% if messages | length > 1 %} {% endif %}{% else %}"
    )
    tokenizer.save_pretrained(tmp_path / "odd")
    plant(tmp_path / "work", pool(), texts=True)
    for _ in range(2):
        with pytest.raises(AdacsError, match="no row is left to train on: 11 template"):
            written(tmp_path / "work", asked(tmp_path / "odd"))
    assert not files(tmp_path / "work")
    assert not (tmp_path / "work/sft/report.json").exists()
    written(tmp_path / "work", asked(text_student))
    found = dataset(files(tmp_path / "work"), tmp_path / "odd")
    with pytest.raises(AssertionError, match="ignore_input_ids_mismatch"):
        found[0]


def test_a_default_system_prompt_is_stripped_as_verl_strips_it(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer.build(2048)
    default = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    tokenizer.chat_template = default + tokenizer.chat_template
    tokenizer.save_pretrained(tmp_path / "student")
    plant(tmp_path / "work", pool(), texts=True)
    rows = written(tmp_path / "work", asked(tmp_path / "student", system_prompt=""))
    assert len(rows["adacs/text-train.parquet"]) == 6
    found = dataset(files(tmp_path / "work")[:1], tmp_path / "student")
    assert found.tokenizer.decode(found[0]["input_ids"]).count("You are helpful.") == 1
    # With a system turn of our own, verl strips the default from the user's turn too, where it does stand.
    assert len(written(tmp_path / "work", asked(tmp_path / "student"))["adacs/text-train.parquet"]) == 6
    assert len(dataset(files(tmp_path / "work")[:1], tmp_path / "student")[0]["input_ids"])


LONG = [
    Planted("long", [Draw(50, text="a" * 400)] * 8),
    Planted("bytes", [Draw(50, text="the answer is " * 20)] * 8),
    Planted("ends", [Draw(50, text="one<|im_end|>two")] * 8),
    Planted("silent", [Draw(50, text="")] * 8),
    Planted("good", [Draw(50, text="fine")] * 8),
]


@pytest.mark.parametrize("check", [1.0, 0.0001])
def test_long_rows_are_left_out_even_when_few_are_checked(tmp_path: Path, text_student: Path, check: float) -> None:
    plant(tmp_path, LONG, texts=True)
    rows = written(tmp_path, asked(text_student, max_length=200, check=check))
    # "bytes" has 280 bytes, but few tokens: only counting shows that it fits.
    assert [row["qid"] for row in rows["adacs/text-train.parquet"]] == ["bytes", "good"]
    report = json.loads((tmp_path / "sft/report.json").read_text())
    assert report["left_out"]["adacs"] == {"control_token": 1, "no_text": 1, "too_long": 1}
    assert report["checked"] == (3 if check == 1.0 else 2)


def test_without_a_check_no_student_is_needed_and_with_one_it_is(tmp_path: Path) -> None:
    plant(tmp_path, LONG, texts=True)
    assert len(written(tmp_path, asked(None, check=0.0))["adacs/text-train.parquet"]) == 4
    with pytest.raises(AdacsError, match=r"write\.tokenizer must name the student"):
        written(tmp_path, asked(None))
    with pytest.raises(AdacsError, match="cannot load tokenizer"):
        written(tmp_path, asked(tmp_path / "nothing"))


def test_train_and_val_share_no_question_and_both_sets_are_split_alike(tmp_path: Path, text_student: Path) -> None:
    plant(tmp_path, pool(60), texts=True)
    rows = written(tmp_path, asked(text_student, val_share=0.3))
    split = {name: {row["qid"] for row in rows[name]} for name in rows}
    assert split["adacs/text-train.parquet"] == split["vanilla/text-train.parquet"]
    assert split["adacs/text-val.parquet"] == split["vanilla/text-val.parquet"]
    assert 6 <= len(split["adacs/text-val.parquet"]) <= 30
    assert not split["adacs/text-val.parquet"] & split["adacs/text-train.parquet"]


def test_the_prompt_is_worded_as_the_estimator_is_asked() -> None:
    turns = [{"role": "user", "content": "Why?"}]
    config = configured(sample={"estimator": {"ask": {"system_prompt": "S.", "prompt-style": "user-suffix"}}})
    assert worded(turns, Wording.of(config)) == [{"role": "user", "content": "Why? S."}]
    assert answered("Because.", "hm")["content"] == "<think>\nhm\n</think>\n\nBecause."
    assert Wording.of(configured()).system_prompt.startswith("You FIRST think")
    assert Wording.of(configured(write={"system_prompt": ""})).system_prompt == ""


def snapshot(work: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(work)): file.read_bytes() for file in sorted((work / "sft").rglob("*")) if file.is_file()
    }


def test_after_a_kill_the_same_command_makes_the_same_files(tmp_path: Path, text_student: Path) -> None:
    plant(tmp_path, pool(20), parts=4, texts=True)
    config = asked(text_student, val_share=0.2)
    written(tmp_path, config)
    before = snapshot(tmp_path)
    made = []
    for name in before:
        if name.endswith(".json"):
            continue
        file = tmp_path / name
        manifest = file.with_suffix(".json") if file.parent.name == "parts" else store.artifact_manifest(file)
        manifest.unlink()
        file.write_bytes(b"half")
        write.run(config, tmp_path, made.append)
        assert snapshot(tmp_path) == before, name
    assert made


class Killed(Exception):
    """Stands for a signal in the middle of a part."""


def test_a_run_cut_short_between_parts_goes_on_with_the_next(
    tmp_path: Path, text_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "cut"):
        plant(tmp_path / name, pool(20), parts=4, texts=True)
    config = asked(text_student)
    written(tmp_path / "whole", config)
    made: list[int] = []
    original = write.RowMaker.part

    def part(self: Any, number: int, *rest: Any) -> Any:
        if len(made) == 2:
            made.append(-1)
            raise Killed
        made.append(number)
        return original(self, number, *rest)

    monkeypatch.setattr(write.RowMaker, "part", part)
    with pytest.raises(Killed):
        written(tmp_path / "cut", config)
    written(tmp_path / "cut", config)
    assert made == [0, 1, -1, 2, 3]
    assert snapshot(tmp_path / "cut") == snapshot(tmp_path / "whole")


def test_files_of_a_set_that_is_gone_go_too(tmp_path: Path, text_student: Path) -> None:
    plant(tmp_path, pool(), texts=True)
    config = asked(text_student)
    assert len(written(tmp_path, config)) == 2
    (tmp_path / "vanilla.parquet").unlink()
    write.run(config, tmp_path, lambda line: None)
    assert [file.parent.name for file in files(tmp_path)] == ["adacs"]
    assert not store.artifact_manifest(Layout(tmp_path).sft("vanilla", "text", "train")).exists()


def test_a_folder_is_known_by_its_files(tmp_path: Path, text_student: Path) -> None:
    other = tmp_path / "other"
    tiny_tokenizer.build(1024).save_pretrained(other)
    assert template_check.identity(str(other), None) != template_check.identity(str(text_student), None)
    assert template_check.identity("org/model", "abc") == "org/model@abc"


def test_pictures_that_come_back_or_change_are_looked_at_again(tmp_path: Path, vision_student: Path) -> None:
    image = tmp_path / "p.png"
    Image.new("RGB", (112, 112), "red").save(image)
    whole = image.read_bytes()
    shown = [replace(one, prompt=f"<image>{one.prompt}") for one in pool(modality="image", images=[str(image)])]
    plant(tmp_path / "work", shown, texts=True)
    config = asked(vision_student)
    rows = written(tmp_path / "work", config)["adacs/image-train.parquet"]
    before = checked_lengths(tmp_path / "work")
    image.unlink()
    with pytest.raises(AdacsError, match=r"no row is left to train on: .* picture"):
        write.run(config, tmp_path / "work", lambda _: None)
    image.write_bytes(whole)
    assert written(tmp_path / "work", config)["adacs/image-train.parquet"] == rows
    assert checked_lengths(tmp_path / "work") == before
    Image.new("RGB", (560, 560), "red").save(image)
    written(tmp_path / "work", config)
    after = checked_lengths(tmp_path / "work")
    assert all(after[key] > before[key] for key in before)
