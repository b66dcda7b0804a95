"""``--export inspect``: read by our own reader, and by Inspect itself where it is installed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from ares_eval.export_inspect import export
from ares_eval.foreign import load_any
from ares_eval.records import RunError
from tests.integrations.exported_run import record, write_run


def log(folder: Path, task: str) -> Path:
    (path,) = folder.glob(f"*_{task}_*.eval")
    return path


def test_members_and_samples(tmp_path: Path) -> None:
    out = export(write_run(tmp_path / "run"), tmp_path / "out")
    with zipfile.ZipFile(log(out, "aime")) as archive:
        names = archive.namelist()
        header = json.loads(archive.read("header.json"))
        sample = json.loads(archive.read("samples/b_epoch_2.json"))
        summaries = json.loads(archive.read("summaries.json"))
    assert names[0] == "_journal/start.json" and names[-1] == "header.json"
    assert header["version"] == 2 and header["status"] == "success"
    assert header["eval"]["model"] == "org/model:7b"
    assert header["eval"]["dataset"]["sample_ids"] == ["b", "a"]
    assert sample["scores"]["ares"]["value"] == "I"
    assert sample["output"]["completion"] == "said b/1"
    assert sample["model_usage"]["org/model:7b"]["output_tokens"] == 4
    assert [(one["id"], one["epoch"]) for one in summaries] == [("b", 1), ("b", 2), ("a", 1), ("a", 2)]


def test_a_second_export_replaces_the_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    first = sorted(path.name for path in export(run, tmp_path / "out").iterdir())
    assert sorted(path.name for path in export(run, tmp_path / "out").iterdir()) == first


def test_our_reader_gives_the_same_scores_back(tmp_path: Path) -> None:
    out = export(write_run(tmp_path / "run"), tmp_path / "out")
    found = load_any(log(out, "aime")).tasks["aime"].draws
    assert {key: outcome.score for key, outcome in found.items()} == {
        ("a", 0): 1.0,
        ("a", 1): 1.0,
        ("b", 0): 1.0,
        ("b", 1): 0.0,
    }


def test_unverifiable_unmeasured_reasoning_and_odd_ids(tmp_path: Path) -> None:
    rows = [
        record("vlm:Plain", "x/1 ä", reasoning="because", finish_reason="length", fields={"subject": "s"}),
        record("vlm:Plain", "lost", text=None, verdict=None, cause="timeout", message="m"),
        record("vlm:Plain", "plain"),
    ]
    out = export(write_run(tmp_path / "run", rows), tmp_path / "out")
    with zipfile.ZipFile(next(out.glob("*vlm--Plain*"))) as archive:
        thought = json.loads(archive.read("samples/x/1 ä_epoch_1.json"))
        lost = json.loads(archive.read("samples/lost_epoch_1.json"))
    assert thought["messages"][-1]["content"][0] == {"type": "reasoning", "reasoning": "because"}
    assert thought["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert "scores" not in lost and lost["error"]["message"] == "not measured"


def test_a_run_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no results yet"):
        export(write_run(tmp_path / "run", finished=False), tmp_path / "out")


def test_inspect_reads_it(tmp_path: Path) -> None:
    """As `inspect view` does: the header alone, the list of samples, and every sample."""
    logs = pytest.importorskip("inspect_ai.log", reason="Inspect is not installed (pip install inspect_ai)")
    out = export(write_run(tmp_path / "run"), tmp_path / "out")
    for task, count in (("aime", 4), ("vlm--Plain", 4)):
        path = str(log(out, task))
        assert logs.read_eval_log(path, header_only=True).status == "success"
        whole = logs.read_eval_log(path)
        assert len(whole.samples) == count == whole.results.total_samples
        assert {one.id for one in logs.read_eval_log_sample_summaries(path)} == {one.id for one in whole.samples}
        one = logs.read_eval_log_sample(path, id=whole.samples[0].id, epoch=1)
        assert one.scores["ares"].value in ("C", "I", "N")
        assert one.output.completion == whole.samples[0].output.completion
    assert [info.task for info in logs.list_eval_logs(str(out))]
