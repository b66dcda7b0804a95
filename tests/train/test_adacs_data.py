"""Rows for verl's reinforcement learning: what verl's own dataset and the reward function make of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ares_eval.tasks.prompts import ARES_SYSTEM_PROMPT
from ares_eval.verify.reward import compute_score
from ares_train import data
from ares_train.adacs import store
from ares_train.commands import data as command
from tests.models import tiny_qwen_vl, tiny_tokenizer
from tests.train.adacs_corpus import picture, sums, write_jsonl


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(["--quiet", "--tasks", "none", *map(str, words)]))


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_vl.build(tmp_path_factory.mktemp("vl"))


def virl(folder: Path) -> Path:
    """Rows with the columns of ViRL39K: boxed answers, a list of picture paths, ready-made pass rates."""
    made = []
    for n in range(12):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / f"{n}.png").write_bytes(picture(n, size=(112 + 28 * n, 112)))
        made.append(
            {
                "question": f"<image>\nWhich is number {n}?\nA. {n}\nB. {n + 1}",
                "answer": "\\boxed{A}",
                "PassRate_32BTrained": n / 12,
                "PassRate_7BBase": None if n == 3 else 0.5,
                "category": "(GradeSchool) Geometric",
                "source": "Geo" if n % 2 else "Chart",
                "qid": f"v-{n}",
                "image": [f"images/{n}.png"],
            }
        )
    made[5]["image"] = ["images/none.png"]
    return write_jsonl(folder / "virl.jsonl", made)


VIRL = ("--images", "image", "--id", "qid", "--source-column", "source", "--answer-type", "choice",
        "--keep", "PassRate_32BTrained", "--keep", "PassRate_7BBase", "--keep", "category")  # fmt: skip


def test_rows_like_virl39k(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, val = tmp_path / "train.parquet", tmp_path / "val.parquet"
    words = (virl(tmp_path / "virl"), *VIRL, "--output", out, "--val-output", val, "--val-size", 3, "--model", model)
    assert run(*words) == 0
    told = capsys.readouterr().out
    assert f"{out}: 8 questions; {val}: 3" in told
    assert "left out: 1 picture_missing" in told
    train, held = rows(out), rows(val)
    assert [row["extra_info"]["index"] for row in train] == list(range(8))
    assert {row["extra_info"]["split"] for row in train} == {"train"}
    assert {row["extra_info"]["split"] for row in held} == {"val"}
    qids = [row["extra_info"]["qid"] for row in [*train, *held]]
    assert len(set(qids)) == 11
    for row in [*train, *held]:
        info = row["extra_info"]
        extra = json.loads(info["extra"])
        number = int(extra["id"].removeprefix("v-"))
        assert row["data_source"] == info["source"] == ("Geo" if number % 2 else "Chart")
        assert row["images"] == [str((tmp_path / "virl" / "images" / f"{number}.png").resolve())]
        assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
        assert row["prompt"][0]["content"] == ARES_SYSTEM_PROMPT
        assert row["prompt"][1]["content"] == f"<image>\nWhich is number {number}?\nA. {number}\nB. {number + 1}"
        assert row["reward_model"] == {"style": "rule", "ground_truth": "A"}
        assert (row["ability"], extra["category"]) == ("math", "(GradeSchool) Geometric")
        assert extra["PassRate_7BBase"] == (None if number == 3 else 0.5)
    report = json.loads((tmp_path / "train.parquet.report.json").read_text())
    assert report["rows"] == {"train": 8, "val": 3}
    # Said again, it is there; nothing is written anew.
    before = out.stat().st_mtime_ns
    assert run(*words) == 0
    assert out.stat().st_mtime_ns == before


def test_that_nothing_was_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_jsonl(tmp_path / "sums.jsonl", sums(3))
    assert run(source, "--output", tmp_path / "train.parquet") == 0
    told = capsys.readouterr().out.splitlines()
    assert "prompt lengths were NOT checked (--model)" in told
    assert "the questions were NOT held against any benchmark (--tasks none)" in told


def test_verls_dataset_and_the_reward_read_the_rows(tmp_path: Path, model: Path) -> None:
    from omegaconf import OmegaConf
    from transformers import AutoProcessor, AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from ares_train.adacs.template_check import load
    from ares_train.verl_cpu import pictures

    pictures.processors()
    pictures.reader()
    mixed = [{"question": "Text only: 2 + 3?", "answer": ["5", "five"], "id": "t", "image": []}]
    source = virl(tmp_path / "virl")
    source.write_text(source.read_text() + json.dumps(mixed[0]) + "\n")
    out = tmp_path / "train.parquet"
    assert run(source, *VIRL, "--output", out, "--model", model) == 0
    lengths = {}
    check = load(str(model), None, 1 << 20)
    for row in rows(out):
        lengths[row["extra_info"]["qid"]] = check.prompt_tokens(row["prompt"], row["images"])
    limit = sorted(lengths.values())[len(lengths) // 2]
    config = OmegaConf.create(
        {"max_prompt_length": limit, "cache_dir": str(tmp_path / "cache"), "filter_overlong_prompts_workers": 1}
    )
    processor = AutoProcessor.from_pretrained(str(model))
    read = RLHFDataset(str(out), AutoTokenizer.from_pretrained(str(model)), config, processor)
    # verl keeps exactly the rows whose length, as counted here from sizes alone, is within the limit.
    kept = {read.dataframe[place]["extra_info"]["qid"] for place in range(len(read))}
    assert kept == {qid for qid, length in lengths.items() if length <= limit}
    assert 0 < len(kept) < len(lengths)
    for place in range(len(read)):
        row = read[place]
        truth = list(row["reward_model"]["ground_truth"])
        scored = compute_score(row["data_source"], "<think>x</think>\\boxed{A}", truth, row["extra_info"])
        assert scored["score"] == (1.0 if truth == ["A"] else 0.0)
        content = row["raw_prompt"][-1]["content"]
        if truth == ["A"]:
            assert [part["type"] for part in content] == ["image", "text"]
        else:
            assert content == "Text only: 2 + 3?"


def test_prompts_beyond_the_limit_are_left_out(tmp_path: Path, model: Path) -> None:
    made = [*sums(10), {"question": "word " * 500, "answer": 1, "id": "long"}]
    out = tmp_path / "train.parquet"
    words = (write_jsonl(tmp_path / "a.jsonl", made), "--output", out, "--model", model, "--id", "id")
    assert run(*words, "--max-prompt-length", 400) == 0
    report = json.loads(out.with_name("train.parquet.report.json").read_text())
    assert report["dropped"] == {"too_long": 1}
    assert report["prompt_length"]["limit"] == 400
    assert len(rows(out)) == 10
    tokenizer = tiny_tokenizer.build(2048)
    longest = max(
        len(tokenizer(tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True),
                      add_special_tokens=False)["input_ids"])
        for row in rows(out)
    )  # fmt: skip
    assert report["prompt_length"]["longest_kept"] == longest
    # The limit is part of what decides: another one makes the file anew.
    assert run(*words, "--max-prompt-length", 4000) == 0
    assert len(rows(out)) == 11


def test_policies_of_any_shape_reach_the_reward(tmp_path: Path) -> None:
    made = [
        {"q": "Pi?", "a": "3.14", "p": {"tolerance": 0.01}, "t": "number"},
        {"q": "Which?", "a": "B", "p": None, "t": "choice", "o": ["cat", "dog"]},
        {"q": "Name it.", "a": ["two", "2"], "p": {}, "t": "auto"},
    ]
    source = write_jsonl(tmp_path / "a.jsonl", made)
    out = tmp_path / "train.parquet"
    columns = ("--question", "q", "--answer", "a", "--choices", "o", "--answer-type-column", "t")
    assert run(source, *columns, "--output", out, "--system-prompt", "") == 0
    found = {row["extra_info"]["question"].split("\n")[0]: row for row in rows(out)}
    assert [turn["role"] for turn in found["Pi?"]["prompt"]] == ["user"]
    assert found["Name it."]["reward_model"]["ground_truth"] == ["two", "2"]
    assert found["Pi?"]["reward_model"]["ground_truth"] == ["3.14"]

    def score(question: str, response: str) -> float:
        row = found[question]
        return compute_score("s", response, row["reward_model"]["ground_truth"], row["extra_info"])["score"]

    assert (score("Which?", "The dog."), score("Which?", "The cat.")) == (1.0, 0.0)
    assert (score("Name it.", "\\boxed{2}"), score("Name it.", "\\boxed{3}")) == (1.0, 0.0)


def test_the_prompt_style_and_its_marks() -> None:
    turns = [{"role": "user", "content": "<image>What?"}]
    suffix = data.RlSettings(system_prompt="Think.", prompt_style="user-suffix")
    assert data.prompt_of(turns, suffix) == [{"role": "user", "content": "<image>What? Think."}]
    told = [{"role": "system", "content": "Own."}, *turns]
    assert data.prompt_of(told, data.RlSettings(system_prompt="Think."))[0]["content"] == "Think.\n\nOwn."


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--val-size", "3"], "--val-output and --val-size go together"),
        (["--max-prompt-length", "9"], "needs --model"),
        (["--answer-policy", "[1]"], "--answer-policy is not a JSON object"),
        (["--tasks", "gsm9k"], "unknown dataset 'gsm9k'"),
        (["--val-size", "30", "--val-output", "v.parquet"], "fewer than the 30 to validate"),
        (["--model", "./no/such/model"], "cannot load tokenizer"),
    ],
)
def test_what_cannot_work_says_so_in_one_line(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = write_jsonl(tmp_path / "a.jsonl", sums(4))
    assert run(source, "--output", tmp_path / "o.parquet", *words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o.parquet.report.json").exists()


def test_a_source_may_be_on_the_hub(tmp_path: Path) -> None:
    assert command._on_hub("TIGER-Lab/ViRL39K")
    assert not command._on_hub("questions.jsonl")
    assert not command._on_hub("data/questions.jsonl")
    assert not command._on_hub(str(tmp_path))
    assert not command._on_hub("a/b/c")


def test_a_fault_and_a_second_run_give_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", sums(20))

    def files(name: str) -> tuple[Path, Path, tuple[object, ...]]:
        (tmp_path / name).mkdir()
        out, val = tmp_path / name / "train.parquet", tmp_path / name / "val.parquet"
        return out, val, (source, "--output", out, "--val-output", val, "--val-size", 5)

    whole, held, words = files("whole")
    assert run(*words) == 0
    out, val, words = files("torn")
    write = store.write_artifact

    def torn(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == "train.parquet":
            raise OSError("killed")
        return write(path, *args, **more)

    monkeypatch.setattr(store, "write_artifact", torn)
    with pytest.raises(OSError, match="killed"):
        run(*words)
    assert val.exists()
    assert not out.exists()
    monkeypatch.undo()
    assert run(*words) == 0
    assert (out.read_bytes(), val.read_bytes()) == (whole.read_bytes(), held.read_bytes())
