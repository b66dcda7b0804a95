"""The lm-eval export against lm-eval's own schema, naming rules and arithmetic (restated here from lm_eval 0.4.12)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ares_eval.export_lm_eval import export
from ares_eval.records import RunError, RunWriter
from ares_eval.results import TaskMeta, summarise
from ares_eval.types import AnswerSpec, Record, Usage, Verdict, WireMessage

SAMPLE_KEYS = {
    "doc_id": int,
    "doc": dict,
    "target": str,
    "arguments": dict,
    "resps": list,
    "filtered_resps": list,
    "filter": str,
    "metrics": list,
    "doc_hash": str,
    "prompt_hash": str,
    "target_hash": str,
}


class Seen:
    """A prepared picture."""

    digest = "sha256:0123"

    def data_url(self) -> str:
        raise AssertionError("an export never reads pictures")


def record(task: str, sample: str, draw: int = 0, value: str = "correct", **changes: Any) -> Record:
    verdict = Verdict(value, "box>number", extracted="8", span=(3, 4), normalised=("8", "8"))  # type: ignore[arg-type]
    base = Record(
        task=task,
        sample=sample,
        draw=draw,
        group=sample,
        key="k",
        prompt="d",
        reference="8",
        answer=AnswerSpec("number"),
        text=f"said {sample}/{draw}",
        usage=Usage(3, 4),
        verdict=verdict,
    )
    return replace(base, **changes)


LOST = {"text": None, "verdict": None, "cause": "timeout", "message": "m", "usage": Usage()}

RECORDS = [
    record("aime", "b", 1, "incorrect"),
    record("aime", "a", 0),
    record("aime", "b", 0),
    record("aime", "a", 1),
    record("lm:plain", "2", verdict=Verdict("unverifiable", "none", "no_answer"), reference=("8", "viii")),
    record("lm:plain", "1", **LOST),
    record("lm:plain", "10", level="hard", fields={"subject": "Ähm"}),
    record("lm:plain", "3", **LOST),
    record("lm:plain", "3"),
]


def write_run(folder: Path, *, finished: bool = True) -> Path:
    manifest = {
        "model": "org/model:7b",
        "revision": None,
        "created": "2026-01-02T03:04:05Z",
        "finished": "2026-01-02T03:14:15Z",
        "settings": {"max_tokens": 64, "temperature": 0.3, "top_p": 0.95, "system_prompt": "Think.", "limit": 5},
        "tasks": {"aime": {"fingerprint": "f1"}, "lm:plain": {"fingerprint": "f2"}},
        "environment": {"git": "abc"},
        "timing": {"seconds": 12.5},
    }
    metas = {
        "aime": TaskMeta("aime", ("all",), questions=2, draws=2),
        "lm:plain": TaskMeta("lm:plain", ("all",), questions=5),
    }
    with RunWriter(folder) as writer:
        writer.write("run.json", manifest)
        system = WireMessage("system", ("Think.",))
        for task, sample in [("aime", "a"), ("aime", "b"), *[("lm:plain", name) for name in ("1", "2", "3", "10")]]:
            picture = WireMessage("user", ("see ", Seen(), f" question {sample}"))
            writer.append_prompt(task, sample, "d", [system, picture])
        for one in RECORDS:
            writer.append(one)
        if finished:
            writer.write("results.json", summarise(RECORDS, metas))
    with (folder / "samples.jsonl").open("ab") as file:
        file.write(b'{"task":"aime","sample":"a","dr')
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("export")
    return export(write_run(base / "run"), base / "out")


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results_2026-01-02T03-04-05.json").read_text("utf-8"))
    return content


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"samples_{task}_2026-01-02T03-04-05.jsonl").open(encoding="utf-8")]


def test_files_are_named_so_that_lm_eval_finds_task_and_time(exported: Path) -> None:
    assert exported.name == "org__model__7b"
    names = sorted(path.name for path in exported.iterdir())
    assert [name.partition("_")[0] for name in names] == ["results", "samples", "samples"]
    for name in names[1:]:
        task = name[name.find("_") + 1 : name.rfind("_")]
        time = name[name.rfind("_") + 1 :].replace(".jsonl", "")
        assert task in ("aime", "lm__plain")
        assert time == "2026-01-02T03-04-05"


def test_sample_lines_follow_the_schema(exported: Path) -> None:
    for task in ("aime", "lm__plain"):
        for line in samples(exported, task):
            for key, kind in SAMPLE_KEYS.items():
                assert isinstance(line[key], kind), key
            assert set(line) == {*SAMPLE_KEYS, "acc", "ares"}
            assert isinstance(line["acc"], float)
            assert all(isinstance(text, str) for texts in line["resps"] for text in texts)
            prompt = line["arguments"]["gen_args_0"]["arg_0"]
            assert line["prompt_hash"] == hashlib.sha256(prompt.encode()).hexdigest()
            assert line["target_hash"] == hashlib.sha256(line["target"].encode()).hexdigest()
            doc = json.dumps(line["doc"], indent=2, ensure_ascii=False)
            assert line["doc_hash"] == hashlib.sha256(doc.encode()).hexdigest()


def test_draws_stand_together_and_questions_in_the_order_of_asking(exported: Path) -> None:
    aime = samples(exported, "aime")
    assert [(line["doc_id"], line["resps"], line["acc"]) for line in aime] == [
        (0, [["said a/0", "said a/1"]], 1.0),
        (1, [["said b/0", "said b/1"]], 0.5),
    ]
    assert aime[0]["filtered_resps"] == [["8", "8"]]
    assert [draw["verdict"]["value"] for draw in aime[1]["ares"]["draws"]] == ["correct", "incorrect"]


def test_what_was_not_measured_has_no_line(exported: Path) -> None:
    plain = samples(exported, "lm__plain")
    assert [(line["doc_id"], line["doc"]["id"], line["acc"]) for line in plain] == [
        (1, "2", 0),
        (2, "3", 1),
        (3, "10", 1),
    ]
    assert plain[0]["filtered_resps"] == ["[invalid]"]
    assert plain[0]["target"] == "['8', 'viii']"
    assert plain[2]["doc"] == {"id": "10", "group": "10", "level": "hard", "fields": {"subject": "Ähm"}}
    content = results(exported)
    assert content["n-samples"]["lm:plain"] == {"original": 5, "effective": 3}
    assert content["ares"]["not_measured"] == {"aime": [], "lm:plain": ["1"]}


def test_the_prompt_is_what_was_sent(exported: Path) -> None:
    arguments = samples(exported, "aime")[1]["arguments"]["gen_args_0"]
    assert json.loads(arguments["arg_0"]) == [
        {"role": "system", "content": "Think."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see "},
                {"type": "image_url", "image_url": {"url": "sha256:0123"}},
                {"type": "text", "text": " question b"},
            ],
        },
    ]
    assert arguments["arg_1"] == {
        "until": [],
        "do_sample": True,
        "max_gen_toks": 64,
        "temperature": 0.3,
        "top_p": 0.95,
    }


def test_results_carry_metric_comma_filter_pairs(exported: Path) -> None:
    content = results(exported)
    assert content["model_name_sanitized"] == exported.name
    for task, scores in content["results"].items():
        name = re.sub(r"\W+", "__", task)
        mean = sum(line["acc"] for line in samples(exported, name)) / scores["sample_len"]
        assert scores["acc,none"] == pytest.approx(mean)
        for key, value in scores.items():
            if key not in ("name", "alias", "sample_len"):
                assert re.fullmatch(r"[\w@]+,none", key)
                assert isinstance(value, float) or value == "N/A"
        for key in [key for key in scores if "," in key and "_stderr" not in key]:
            assert key.replace(",", "_stderr,") in scores
            assert content["higher_is_better"][task][key.partition(",")[0]] is True
    assert content["results"]["aime"]["pass@2,none"] == 1.0
    assert content["groups"]["all"]["macro,none"] == pytest.approx((0.75 + 2 / 3) / 2)
    assert content["group_subtasks"] == {"all": ["aime", "lm:plain"], "aime": [], "lm:plain": []}
    assert (content["date"], content["total_evaluation_time_seconds"]) == (1767323045.0, "12.5")
    joined = "".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"] for line in samples(exported, "aime"))
    assert content["task_hashes"]["aime"] == hashlib.sha256(joined.encode()).hexdigest()


def test_a_second_export_changes_nothing(exported: Path) -> None:
    before = {path.name: path.read_bytes() for path in exported.iterdir()}
    export(exported.parents[1] / "run", exported.parent)
    assert {path.name: path.read_bytes() for path in exported.iterdir()} == before


def test_a_run_without_results_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no results yet"):
        export(write_run(tmp_path / "run", finished=False), tmp_path / "out")
    with pytest.raises(RunError, match="is no run"):
        export(tmp_path / "nothing", tmp_path / "out")


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed here")
def test_lm_eval_itself_reads_the_results(exported: Path) -> None:
    from lm_eval import utils

    assert utils.sanitize_model_name("org/model:7b") == exported.name
    shown = utils.make_table(results(exported))
    assert "aime" in shown
    assert "pass@2" in shown
    assert "macro" in utils.make_table(results(exported), "groups")
