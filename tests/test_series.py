"""`ares-eval series`: planted checkpoints come out with their numbers, on one scale, whatever of them is left."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="charts need the [report] extra")

from ares_eval import cli, results, series
from ares_eval.records import RESULTS, RunWriter, load_run, read_records
from ares_eval.series import charts, steps, table
from ares_eval.series.steps import Best, Gate, Score, StepResult, Threshold
from ares_eval.task_metrics import TaskMeta
from ares_eval.trackers import figures
from ares_eval.types import AnswerSpec, Record, TokenTrace, Usage, Verdict, WireMessage
from tests.report.test_page import Elements

QUESTIONS = 24
HOSTILE = "<script>alert(1)</script>"


def planted(folder: Path, revision: str, *, right: int, length: int, hot: int, high: float) -> Path:
    """A finished run: ``right`` of QUESTIONS are correct, replies have ``length`` tokens, ``hot`` windows of 8 tokens
    at ``high`` nats among tokens at a fortieth of it."""
    entropy = np.full(length, high / 40, dtype=np.float32)
    for i in range(hot):
        entropy[20 * i + 4 : 20 * i + 12] = high
    trace = TokenTrace(
        tokens=tuple(f" w{i}" for i in range(length)),
        logprob=-entropy,
        entropy_low=entropy,
        entropy_high=entropy,
        tail=np.zeros_like(entropy),
        top=20,
        estimator="topk-bounds",
        vocabulary=1000,
    )
    with RunWriter(folder) as writer:
        for i in range(QUESTIONS):
            writer.append_prompt("sums", f"q{i}", "p", [WireMessage("user", ("?",))])
            record = Record(
                task="sums", sample=f"q{i}", draw=0, group=f"q{i}", key=f"q{i}", prompt="p", reference="1",
                answer=AnswerSpec("number"), text="".join(trace.tokens), finish_reason="stop",
                truncated=i < 3, usage=Usage(prompt=1, completion=length),
                verdict=Verdict("correct" if i < right else "incorrect", "planted"),
            )  # fmt: skip
            writer.append(record, trace)
        meta = TaskMeta("sums", questions=QUESTIONS, draws=1)
        writer.write(RESULTS, results.summarise(read_records(folder / "samples.jsonl"), {"sums": meta}))
        manifest = {"format": 1, "status": "complete", "model": "m", "revision": revision, "tasks": {"sums": {}}}
        writer.write("run.json", {**manifest, "created": "2026-01-02T03:04:05Z"})
    return folder


def written(run_dir: Path, step: int, **changes: Any) -> StepResult:
    found = load_run(run_dir / f"eval/runs/{step}")
    result = StepResult(
        format=steps.FORMAT, step=step, status="complete", digest=f"sha256:{step}", stamp="s",
        checkpoint=f"global_step_{step}", model="m", run=f"eval/runs/{step}", figures=figures(found.results or {}),
        **changes,
    )  # fmt: skip
    steps.write(steps.path(run_dir, step), result)
    return result


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 10, 20 and 40 scored, 30 failed; step 20 is best, 40 was failed by the gate."""
    folder = tmp_path_factory.mktemp("training") / f"run{HOSTILE[:8].strip('<')}"
    threshold = Threshold(3.0, 4, "low bound, top 20")
    for step, right, length, hot, high in ((10, 6, 200, 4, 4.0), (20, 18, 160, 2, 4.0), (40, 12, 120, 4, 1.0)):
        planted(folder / f"eval/runs/{step}", f"sha256:{step}", right=right, length=length, hot=hot, high=high)
        gate = Gate("fail", "step 20", "default", (f"broken: {HOSTILE}",)) if step == 40 else None
        written(folder, step, threshold=threshold, gate=gate)
    lost = StepResult(
        format=steps.FORMAT, step=30, status="failed", digest="sha256:30", stamp="s", checkpoint="global_step_30",
        model="m", reason=f"the server ended {HOSTILE}",
    )  # fmt: skip
    steps.write(steps.path(folder, 30), lost)
    best = Best(steps.FORMAT, 20, "sha256:20", Score("mean", 0.75), "max", "global_step_20")
    steps.write(folder / steps.FOLDER / steps.BEST, best)
    return folder


def test_planted_numbers_come_back(run_dir: Path) -> None:
    found = series.gather(run_dir)
    assert [point.step for point in found.points] == [10, 20, 30, 40]
    assert found.tasks == ["sums"]
    scored = {point.step: point.tasks["sums"] for point in found.points if point.tasks}
    assert {step: task.score.value for step, task in scored.items() if task.score} == {10: 0.25, 20: 0.75, 40: 0.5}
    assert {step: task.tokens.value for step, task in scored.items() if task.tokens} == {10: 200, 20: 160, 40: 120}
    assert all(
        task.score and task.score.low is not None and task.score.low < task.score.value for task in scored.values()
    )
    assert all(task.truncated == pytest.approx(3 / QUESTIONS) for task in scored.values())
    assert [point.step for point in found.points if point.best] == [20]
    assert found.notes == ()


def test_hwe_is_counted_by_one_threshold(run_dir: Path) -> None:
    """By its own threshold step 40, with the entropies of step 10 divided by four, would count as many."""
    found = {point.step: point.tasks["sums"].hwe for point in series.gather(run_dir).points if point.tasks}
    assert found[10] and found[20] and found[40]
    assert found[10].value == pytest.approx(2 * found[20].value)
    assert found[20].value > 0
    assert found[40].value == 0


def test_run_folder_of_other_weights_or_gone(run_dir: Path, tmp_path: Path) -> None:
    """Figures stand without intervals of HWE, and it is said why."""
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    shutil.rmtree(copy / "eval/runs/10")
    shutil.rmtree(copy / "eval/runs/20")
    planted(copy / "eval/runs/20", "sha256:other", right=0, length=30, hot=1, high=4.0)
    found = series.gather(copy)
    tasks = {point.step: point.tasks["sums"] for point in found.points if point.tasks}
    assert tasks[10].score and tasks[10].score.value == 0.25
    assert tasks[20].score and tasks[20].score.value == 0.75
    assert tasks[10].tokens and tasks[10].tokens.low is None
    assert len(found.notes) == 2
    assert "not the finished run of these weights" in found.notes[1]


def test_page_is_self_contained_and_safe(run_dir: Path) -> None:
    page = series.render(series.gather(run_dir))
    seen = Elements(page)
    assert not {"script", "iframe", "link", "object", "img"} & set(seen.names)
    loading = [value for name, value in seen.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert all(value.startswith("#") for value in loading)
    assert len(seen.ids) == len(set(seen.ids))
    assert HOSTILE in seen.text
    assert seen.names.count("svg") == 3
    assert "Best: step 20 by the mean over the tasks" in seen.text
    assert "The gate failed at step 40" in seen.text


def test_command_prints_and_writes(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, sheet, pictures = tmp_path / "s.html", tmp_path / "s.csv", tmp_path / "png"
    words = ["series", str(run_dir), "--output", str(page), "--csv", str(sheet), "--png", str(pictures)]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["20", "75.0"] and line.endswith("best") for line in lines)
    assert any(line.split() == ["30", "failed"] for line in lines)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in pictures.iterdir()) == [
        "series-sums-hwe.png", "series-sums-score.png", "series-sums-tokens.png",
    ]  # fmt: skip
    rows = list(csv.DictReader(sheet.open(encoding="utf-8")))
    assert [(row["step"], row["digest"], row["task"]) for row in rows][1:3] == [
        ("20", "sha256:20", "sums"), ("30", "sha256:30", ""),
    ]  # fmt: skip
    assert float(rows[1]["score"]) == 0.75
    assert float(rows[1]["score_low"]) < 0.75 < float(rows[1]["score_high"])
    assert rows[3]["decision"] == "fail"


def test_json_writes_nothing(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(run_dir.rglob("*"))
    assert cli.main(["series", str(run_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["points"][1]["tasks"]["sums"]["score"]["value"] == 0.75
    assert sorted(run_dir.rglob("*")) == before


def test_plain_runs_of_several_revisions(tmp_path: Path) -> None:
    """The revision's number is the step; other runs are left out, and the first one's threshold counts."""
    planted(tmp_path / "b", "checkpoint-500", right=12, length=100, hot=2, high=4.0)
    planted(tmp_path / "a", "global_step_1500", right=24, length=100, hot=2, high=1.0)
    planted(tmp_path / "c", "main", right=1, length=100, hot=2, high=1.0)
    found = series.gather(tmp_path)
    assert [point.step for point in found.points] == [500, 1500]
    assert [task.score.value for point in found.points if (task := point.tasks["sums"]).score] == [0.5, 1.0]
    hwe = [task.hwe.value for point in found.points if (task := point.tasks["sums"]).hwe]
    assert hwe[0] > 0
    assert hwe[1] == 0
    assert table.by_task(found)[0].rows[1][0] == 1500


@pytest.mark.parametrize("content", ["{", '{"format": 1}', "[]", '{"format": 1, "eval": "__import__(1)"}'])
def test_broken_step_file_is_named(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval/step_3.json").write_text(content)
    assert cli.main(["series", str(tmp_path)]) == 2
    assert "step_3.json" in capsys.readouterr().err


def test_no_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["series", str(tmp_path)]) == 2
    assert "holds no series" in capsys.readouterr().err
    assert cli.main(["series", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_charts_of_one_step(tmp_path: Path) -> None:
    planted(tmp_path / "a", "step_7", right=12, length=100, hot=2, high=4.0)
    assert len(charts.charts(series.gather(tmp_path))) == 3
    assert "7 to 7" in series.render(series.gather(tmp_path))
