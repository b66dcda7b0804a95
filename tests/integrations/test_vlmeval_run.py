"""``--datasets vlm:NAME`` from end to end against the loopback server, with and without a judge."""

from __future__ import annotations

import csv
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from ares_eval import cli, tasks
from ares_eval.integrations import vlmeval_data as data
from ares_eval.integrations.vlmeval import SOURCE
from ares_eval.records import load_run
from tests import loopback
from tests.integrations import vlmeval_tables as tables

try:
    importlib.metadata.distribution("ms-vlmeval")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("VLMEvalKit is not installed (pip install --no-deps ms-vlmeval==0.0.20)", allow_module_level=True)

KEY = "sk-never-in-the-child-0123456789"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LMUData", raising=False)
    return tmp_path


def run(folder: Path, url: str, datasets: str, *more: str) -> int:
    flags = {
        "--model-name": "m",
        "--openai-base-url": url,
        "--openai-api-key": KEY,
        "--datasets": datasets,
        "--dataset-dir": str(folder / "tables"),
        "--output-dir": str(folder / "runs"),
    }
    return cli.main([*(word for pair in flags.items() for word in pair), "--quiet", "--json", *more])


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_two_datasets_by_rule(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("MMStar", "MathVista_MINI"):
        tables.write(folder / "tables", name)
    with loopback.start(
        reply="<think>Is it B? Is it C?</think>\nThe answer is \\boxed{A}.", keep_bodies=True
    ) as server:
        assert (
            run(folder, server.url, "vlm:MMStar,vlm:MathVista_MINI", "--export", "vlmeval", "--export", "inspect") == 0
        )
        asked = server.requests()
    found = shown(capsys)
    star = found["tasks"]["vlm:MMStar"]
    assert (star["n"], star["correct"], star["incorrect"]) == (3, 1, 2)
    assert star["metrics"]["vlmeval"] == pytest.approx(1 / 3)
    assert star["metrics"]["vlmeval_judge"] == "rule"
    assert star["metrics"]["vlmeval_metrics"]["split=none|Overall"] == pytest.approx(1 / 3)
    assert "seccomp" in star["metrics"]["vlmeval_locks"]
    vista = found["tasks"]["vlm:MathVista_MINI"]
    assert vista["metrics"]["vlmeval"] == pytest.approx(1 / 5)
    # The rules find no number in "A": VLMEvalKit counts those rows as wrong, we do not.
    assert (vista["correct"], vista["incorrect"], vista["unverifiable"]) == (1, 1, 3)
    roles = [[message["role"] for message in json.loads(one["body"])["messages"]] for one in asked if "body" in one]
    assert all(turns == ["user"] for turns in roles), "their prompts go as they are"
    for record in load_run(found["run"]).records():
        assert record.verdict is not None and record.verdict.method == "vlmevalkit:rule"
        assert record.reasoning == "Is it B? Is it C?"
    out = Path(found["run"]) / "vlmeval" / "m"
    (table,) = out.glob("T*/m_MMStar.tsv")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {(row["prediction"].strip(), row["thinking"]) for row in rows} == {
        ("The answer is \\boxed{A}.", "Is it B? Is it C?")
    }
    assert {"index", "question", "A", "B", "C", "D", "answer", "category"} <= set(rows[0]) and "image" not in rows[0]


def test_a_judge_is_asked_through_our_client(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.write(folder / "tables", "MMStar")
    judge = ["--judge-model", "j", "--judge-api-key", KEY]
    with loopback.start(reply="I am not sure at all.") as model, loopback.start(reply="D", model="j") as judging:
        words = [*judge, "--judge-base-url", judging.url]
        assert run(folder, model.url, "vlm:MMStar", *words) == 0
        first = shown(capsys)
        asked = judging.stats()["requests"]
        assert run(folder, model.url, "vlm:MMStar", *words, "--fresh") == 0
        assert judging.stats()["requests"] == asked, "the judge's replies are cached"
    star = first["tasks"]["vlm:MMStar"]
    assert star["metrics"]["vlmeval_judge"] == "j"
    assert star["metrics"]["vlmeval_judge_questions"] == 3
    assert (star["correct"], star["incorrect"]) == (1, 2)
    assert star["metrics"]["vlmeval"] == pytest.approx(1 / 3)


def test_a_judge_that_fails_makes_no_wrong_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VLMEvalKit would draw a letter by lot, or count the row as wrong."""
    tables.write(folder / "tables", "MMStar")
    with loopback.start(reply="I am not sure at all.") as model, loopback.start(model="j", fault=["500=1"]) as judging:
        words = ["--judge-model", "j", "--judge-base-url", judging.url, "--max-retries", "0"]
        run(folder, model.url, "vlm:MMStar", *words)
    star = shown(capsys)["tasks"]["vlm:MMStar"]
    assert star["metrics"]["vlmeval"] is None
    assert star["metrics"]["vlmeval_judge_unanswered"] == 3
    assert (star["correct"], star["incorrect"], star["unverifiable"]) == (0, 0, 3)


def test_several_draws_and_what_was_not_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.write(folder / "tables", "MMStar")
    with loopback.start(reply="A", fault_when=["Which animal?=500"]) as server:
        assert run(folder, server.url, "vlm:MMStar", "--samples", "2", "--max-retries", "0") == 3
    star = shown(capsys)["tasks"]["vlm:MMStar"]
    assert sum(star["not_measured"].values()) == 2
    assert (star["correct"], star["incorrect"]) == (2, 2)
    assert star["metrics"]["vlmeval"] == pytest.approx(1 / 2), "over the rows that were measured, for each draw"


def test_rows_count_where_their_totals_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """OlympiadBench divides by the number of rows of each source: a limit leaves some without any."""
    tables.write(folder / "tables", "OlympiadBench")
    with loopback.start(reply="So the final answer is \\boxed{5}.") as server:
        run(folder, server.url, "vlm:OlympiadBench", "--limit", "5")
    task = shown(capsys)["tasks"]["vlm:OlympiadBench"]
    assert task["metrics"]["vlmeval"] is None
    assert "ZeroDivisionError" in task["metrics"]["vlmeval_error"]
    assert (task["n"], task["correct"]) == (5, 5)


def test_a_table_of_ones_own(folder: Path) -> None:
    (folder / "tables").mkdir()
    path = folder / "tables" / "Mine.tsv"
    path.write_text(f"index\tquestion\tA\tB\tanswer\timage\n1\tWhich?\tcat\tdog\tA\t{tables.picture(3)}\n")
    task = SOURCE.load("vlm:Mine", dataset_dir=folder / "tables")
    (sample,) = task.samples()
    assert "A. cat" in sample.messages[0].parts[-1].text  # type: ignore[union-attr]
    assert task.modality == "image+text" and "no checksum known" in task.source


def test_names(folder: Path) -> None:
    with pytest.raises(tasks.UnknownTask, match="did you mean vlm:MMStar"):
        SOURCE.load("vlm:MMStarr")
    with pytest.raises(tasks.UnknownTask, match="no name of a dataset"):
        SOURCE.load("vlm:../../etc/passwd")
    with pytest.raises(tasks.DataUnavailable, match="videos"):
        SOURCE.load("vlm:Video_Holmes")
    names = list(SOURCE.names())
    assert len(names) > 350 and "vlm:MathVista_MINI" in names


def test_a_table_is_fetched_with_its_checksum(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib
    import http.server
    import threading

    source = tables.write(folder / "served", "MMStar")
    handler = type(
        "Handler",
        (http.server.SimpleHTTPRequestHandler,),
        {
            "__init__": lambda self, *a, **k: http.server.SimpleHTTPRequestHandler.__init__(
                self, *a, directory=str(folder / "served"), **k
            ),
            "log_message": lambda *_: None,
        },
    )
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/MMStar.tsv"
        right = hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()
        good = data.Dataset("vlmeval.dataset.image_mcq", "ImageMCQDataset", url, right, "MCQ", "IMAGE")
        bad = data.Dataset("vlmeval.dataset.image_mcq", "ImageMCQDataset", url, "0" * 32, "MCQ", "IMAGE")
        with pytest.raises(tasks.DataUnavailable, match="has not the checksum"):
            data.find("MMStar", bad, None)
        assert not list((data.store() / "tables").iterdir()), "nothing of a wrong file is kept"
        with pytest.raises(tasks.DataUnavailable, match="cannot be had"):
            data.find("Gone", data.Dataset("m", "c", url.replace("MMStar", "Gone"), None, "MCQ", "IMAGE"), None)
        table = data.find("MMStar", good, None)
        server.shutdown()
    assert table.official is True
    assert data.find("MMStar", good, None).path == table.path, "the second time from the store"
