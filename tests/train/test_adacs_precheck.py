"""What cannot work is refused before anything is written, and faults of files are one line with a mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ares_eval.config import ConfigError
from ares_train import verl_config
from ares_train.adacs import config as adacs_config
from ares_train.adacs import pipeline, store
from ares_train.adacs.benchmark_index import index_of
from ares_train.adacs.config import AdacsConfig, from_dict
from ares_train.adacs.errors import AdacsError
from ares_train.commands import adacs as command
from tests.models import tiny_tokenizer
from tests.train.adacs_corpus import configured, silent, sums, tree, write_jsonl

STAGES = command.STAGES


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "sums.jsonl", sums(12))


def with_traces(source: Path, **sections: Any) -> AdacsConfig:
    """A run that needs no server and no tokenizer."""
    rows = [
        {"id": f"s{n}", "response": f"\\boxed{{{n}}}", "ok": draw < n % 5, "n": 10 + draw}
        for n in range(12)
        for draw in range(4)
    ]
    file = write_jsonl(source.with_name("traces.jsonl"), rows)
    traces = {"path": str(file), "id": "id", "correct": "ok", "tokens": "n"}
    values = configured(
        source,
        lengths={"min_questions": 1},
        select={"zero": "allow_incorrect", "size": 100},
        write={"check": 0.0},
    ).settings()
    values["sample"]["estimator"] = {"draws": 4, "traces": [traces]}
    for name, section in sections.items():
        values[name] |= section
    return from_dict(values)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sample": {"estimator": {"ask": {"temperatur": 1}}}}, "sample.estimator.ask: 'temperatur' does not say"),
        ({"sample": {"estimator": {"ask": {"seed": "x", "model_name": "m"}}}}, "sample.estimator.seed: expected"),
        ({"sample": {"teacher": {"ask": {}}}}, "sample.teacher.ask: needs model_name"),
        ({"sample": {"teacher": {"traces": [{"path": "none.jsonl"}]}}}, "sample.teacher.traces: there is no file none"),
        (
            {"sample": {"estimator": {"ask": {"model_name": "m"}}}},
            "rate.tokenizer must name the student's: .*estimator",
        ),
        ({"write": {"check": 1.0}}, "write.tokenizer must name the student"),
        ({"rate": {"tokenizer": "/no/such/folder"}}, "rate.tokenizer /no/such/folder"),
        ({"write": {"check": 1.0, "tokenizer": "/no/such/folder"}}, "write.tokenizer: cannot load tokenizer"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    change: dict[str, dict[str, Any]], told: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(AdacsError, match=told):
        pipeline.run(with_traces(source, **change), tmp_path / "w", STAGES, silent)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("url", ["http://me:s3cretpw@127.0.0.1:9/v1", "https://s3cretpw@host/v1"])
@pytest.mark.parametrize("stages", [STAGES, ("ingest",), ("report",)])
def test_urls_with_passwords_are_refused_and_never_written(
    url: str, stages: tuple[str, ...], source: Path, tmp_path: Path
) -> None:
    for name in ("estimator", "teacher"):
        config = with_traces(source, sample={name: {"ask": {"model_name": "m", "openai_base_url": url}}})
        with pytest.raises(AdacsError, match=f"sample.{name}.ask.openai_base_url: this URL holds") as caught:
            pipeline.run(config, tmp_path / "w", stages, silent)
        assert "s3cretpw" not in str(caught.value)
    assert not (tmp_path / "w").exists()


def test_a_complete_folder_needs_no_tokenizer_again(source: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    tiny_tokenizer.build(2048).save_pretrained(student)
    config = with_traces(source, rate={"tokenizer": str(student)})
    pipeline.run(config, tmp_path / "w", STAGES, silent)
    before = tree(tmp_path / "w")
    student.rename(tmp_path / "gone")
    pipeline.run(config, tmp_path / "w", STAGES[:-2], silent)
    assert tree(tmp_path / "w") == before


@pytest.mark.parametrize(
    ("place", "stage", "maker"),
    [
        ("questions/part-00000.parquet", "sample", "ingest"),
        ("samples/estimator/part-00001.parquet", "rate", "sample"),
        ("rated/part-00000.parquet", "lengths", "rate"),
        ("rates.parquet", "lengths", "rate"),
        ("selected.parquet", "write", "select"),
    ],
)
def test_damaged_files_are_named_with_the_stage_that_makes_them_anew(
    place: str, stage: str, maker: str, source: Path, tmp_path: Path
) -> None:
    config = with_traces(source)
    work = tmp_path / "w"
    pipeline.run(config, work, STAGES, silent)
    whole = tree(work)
    file = work / place
    file.write_bytes(b"x" * file.stat().st_size)
    # What was made from it is to be made again.
    store.unfinish(work / "lengths.json")
    store.unfinish(work / "samples/estimator/part-00000.parquet")
    stages = {"sample": ("sample",), "rate": ("rate",), "lengths": ("lengths",), "write": ("write",)}[stage]
    if stage == "rate":
        store.unfinish(work / "rated/part-00001.parquet")
        pipeline.run(config, work, ("sample",), silent)
    with pytest.raises(AdacsError, match=f"{stage}: .*{Path(place).name}: damaged .* `ares-train adacs {maker}` again"):
        pipeline.run(config, work, stages, silent)
    pipeline.run(config, work, STAGES, silent)
    assert tree(work) == whole


def test_a_full_disk_is_one_line(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "/w/part")

    monkeypatch.setattr(store.Stage, "write", full)
    with pytest.raises(AdacsError, match="ingest: /w/part: No space left on device"):
        pipeline.run(with_traces(source), tmp_path / "w", ("ingest",), silent)


def test_a_configuration_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes("défaut: 1".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"c\.yaml is not UTF-8 text \(byte 1\)"):
        adacs_config.load(file)
    with pytest.raises(ConfigError, match=r"c\.yaml is not UTF-8 text"):
        verl_config.compose(file)


@pytest.mark.parametrize("name", ["seed", "select.seed", "write.seed"])
def test_seeds_have_bounds(name: str, source: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(configured(source).settings()))
    with pytest.raises(ConfigError, match=name):
        adacs_config.load(file, [f"{name}={'1' * 41}"])


def test_policies_of_sources_are_checked_at_once(source: Path) -> None:
    sources = [{"name": "s", "path": str(source), "answer_policy": {"tolerance": "abc"}}]
    with pytest.raises(ConfigError, match=r"ingest\.sources 's': answer_policy: tolerance must be a number, not 'abc'"):
        configured(source, ingest={"sources": sources})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_a_broken_index_of_a_benchmark_is_made_anew(content: bytes, tmp_path: Path) -> None:
    from ares_eval import tasks

    task = tasks.load("smoke_text")
    made = index_of(task, 13, 7, tmp_path)
    (kept,) = tmp_path.glob("*.npz")
    whole = kept.read_bytes()
    for damaged in (content, whole[: len(whole) // 2], whole[:100] + b"\0" * 64 + whole[164:]):
        kept.write_bytes(damaged)
        again = index_of(task, 13, 7, tmp_path)
        assert again.ids == made.ids
        assert np.array_equal(again.exact, made.exact)
