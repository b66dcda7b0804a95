"""The whole cold start in its smallest form, by the one command that users have: real models, real servers, real verl.

A tiny transformer is trained on sums and asked through `--serve hf:`, SmolLM2 through the embedded server; what AdaCS
chooses and the control set each fine-tune the tiny one by verl's trainer; both are merged, loaded and evaluated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cold_start")
    ran = subprocess.run(
        [ROOT / "examples/run_cold_start.sh", "--small", folder],
        env={**os.environ, "BIN": str(Path(sys.executable).parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "adacs/report/report.json").read_text())
    return found


def test_length_follows_difficulty_more_steeply_than_in_the_control_set(report: dict[str, Any]) -> None:
    series = {one["name"]: one for one in report["series"]}
    assert series["adacs"]["responses"] == series["vanilla"]["responses"] >= 20
    assert series["adacs"]["slope"]["value"] > series["vanilla"]["slope"]["value"]
    assert series["adacs"]["away"]["value"] < series["vanilla"]["away"]["value"]


def test_both_models_were_asked_and_pass_rates_reach_from_0_to_1(out: Path, report: dict[str, Any]) -> None:
    pools = {one["pool"]: one for one in report["pools"]}
    ingested = json.loads((out / "adacs/questions/report.json").read_text())["sources"]["sums"]
    questions = ingested["kept"]
    asked = sum(1 for _ in (out / "pool.jsonl").open())
    assert questions + sum(ingested["left_out"].values()) == asked and questions > 0.9 * asked
    assert pools["estimator"]["responses"] == 8 * questions and pools["teacher"]["responses"] == questions
    assert pools["estimator"]["not_measured"] == pools["teacher"]["not_measured"] == 0
    rated = [row["rated"] for row in report["tiers"]]
    assert rated[0] and rated[7] + rated[8] and sum(1 for count in rated if count) >= 5
    assert sum(rated) == questions


def test_every_chosen_response_is_right_and_every_row_is_one_that_was_sampled(out: Path) -> None:
    rated = {
        (row["qid"], row["pool"], row["draw"]): row
        for file in sorted((out / "adacs/rated").glob("part-*.parquet"))
        for row in pq.read_table(file).to_pylist()
    }
    for name in ("adacs", "vanilla"):
        rows = pq.read_table(out / f"adacs/sft/{name}/text-train.parquet").to_pylist()
        assert rows
        for row in rows:
            found = rated[row["qid"], row["pool"], row["draw"]]
            assert found["correct"] == 1 and found["well_formed"] and not found["truncated"]


def test_both_merged_models_load_and_differ_from_the_one_they_began_as(out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    first, second, base = (
        AutoModelForCausalLM.from_pretrained(out / name) for name in ("models/adacs", "models/vanilla", "tiny")
    )
    for one, other in ((first, base), (second, base), (first, second)):
        assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_both_were_evaluated_on_all_held_out_questions_and_compared(out: Path) -> None:
    held_out = sum(1 for _ in (out / "tasks/held_out.jsonl").open())
    for name in ("adacs", "vanilla"):
        (file,) = (out / "runs" / name).glob("held-out-*/results.json")
        (task,) = json.loads(file.read_text())["tasks"].values()
        assert task["n"] == held_out and task["correct"] + task["incorrect"] + task["unverifiable"] == held_out
    assert "arithmetic" in (out / "compare.txt").read_text()
