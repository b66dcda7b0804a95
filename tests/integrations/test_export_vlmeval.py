"""``--export vlmeval``: names, columns and numbers; read back by our own reader, and by VLMEvalKit's where it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ares_eval.export_vlmeval import export
from ares_eval.foreign import load_any
from ares_eval.records import RunError
from tests.integrations.exported_run import LOST, record, write_run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_files_and_rows(tmp_path: Path) -> None:
    folder = export(write_run(tmp_path / "run"), tmp_path / "out")
    assert folder.name == "org__model__7b"
    runs = sorted(path.name for path in folder.iterdir())
    assert len(runs) == 2, "one folder for each draw of the task that has two"
    first, second = (folder / name for name in runs)
    stem = "org__model__7b_aime"
    assert [row["prediction"] for row in rows(first / f"{stem}.tsv")] == ["said b/0", "said a/0"]
    assert [row["prediction"] for row in rows(second / f"{stem}.tsv")] == ["said b/1", "said a/1"]
    assert [row["hit"] for row in rows(second / f"{stem}_ares_result.tsv")] == ["0", "1"]
    status = json.loads((first / "status.json").read_text())
    assert set(status["datasets"]) == {"aime", "Plain"}
    assert status["datasets"]["aime"]["prediction_file"] == f"{stem}.tsv"
    plain = {row["index"]: row for row in rows(first / "org__model__7b_Plain.tsv")}
    assert set(plain) == {"2", "3", "10"}, "what was not measured has no row"
    assert plain["10"]["subject"] == "Ähm"
    assert "image" not in plain["10"]


def test_our_reader_gives_the_same_scores_back(tmp_path: Path) -> None:
    folder = export(write_run(tmp_path / "run"), tmp_path / "out")
    outcomes = load_any(sorted(folder.iterdir())[0])
    assert {key[0]: outcome.score for key, outcome in outcomes.tasks["aime"].draws.items()} == {"a": 1.0, "b": 1.0}
    assert {key[0]: outcome.score for key, outcome in outcomes.tasks["Plain"].draws.items()} == {
        "2": 0.0,
        "3": 1.0,
        "10": 1.0,
    }


LONG = "<think>" + 'so\tmuch\n"thought" ' * 4000 + "</think>\n\n the answer, with tab\tand\nline \\boxed{8}"


def test_long_replies_are_whole_and_thinking_is_apart(tmp_path: Path) -> None:
    """An Excel cell would end after 32,767 characters, before the answer."""
    folder = export(write_run(tmp_path / "run", [record("vlm:Plain", "1", text=LONG)]), tmp_path / "out")
    (run,) = folder.iterdir()
    (row,) = rows(run / "org__model__7b_Plain.tsv")
    assert row["prediction"] == "the answer, with tab\tand\nline \\boxed{8}"
    assert len(row["thinking"]) > 32_767 and row["thinking"].startswith("so\tmuch")
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(run / "org__model__7b_Plain.tsv", sep="\t")
    assert table["prediction"][0] == row["prediction"] and table["thinking"][0] == row["thinking"]


def test_a_run_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no results yet"):
        export(write_run(tmp_path / "run", finished=False), tmp_path / "out")


def test_a_task_of_which_nothing_was_measured_has_empty_tables(tmp_path: Path) -> None:
    folder = export(write_run(tmp_path / "run", [record("vlm:Plain", "1", **LOST)]), tmp_path / "out")
    (run,) = folder.iterdir()
    assert rows(run / "org__model__7b_Plain.tsv") == []
    assert (run / "org__model__7b_Plain_acc.csv").read_text() == '"split","Overall"\n"none",""\n'
