"""Published numbers: the printed averages are the means of their rows, and a run is set beside a row, unpaired."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ares_eval import reference
from ares_eval.analysis.statistics import wilson
from ares_eval.cli import main
from ares_eval.foreign import load_any
from tests.comparison_runs import Row, write_run

MULTIMODAL = ["mathverse", "mathvision", "mathvista", "dynamath", "wemath", "logicvista", "mmmu", "mmmu_pro"]
MULTIMODAL += ["charxiv", "mmstar"]
TEXT = ["aime24", "aime25", "math500", "mmlu_pro", "bbeh", "gpqa_diamond"]


def _table() -> dict[str, dict[str, reference.Published]]:
    models: dict[str, dict[str, reference.Published]] = {}
    for row in reference.published():
        if row.source.endswith(("table 2", "table 3")):
            models.setdefault(row.model, {})[row.benchmark] = row
    return models


def test_printed_averages_are_the_means_of_their_rows() -> None:
    table = _table()
    assert len(table) == 17
    for rows in table.values():
        for names, average in ((MULTIMODAL, "average of 10 multimodal"), (TEXT, "average of 6 textual")):
            values = [rows[name].value for name in names if name in rows]
            assert len(values) == len(names) - (rows["mathverse"].model.startswith("Gemini") and names is TEXT)
            # Of numbers with one decimal, printed with one decimal.
            assert rows[average].value == pytest.approx(sum(values) / len(values), abs=0.0501 + 1e-9)


def test_printed_numbers_are_shares_of_their_questions() -> None:
    """What decides splits and draws: AIME of the ARES models are means over 16 draws, all others of one."""
    for rows in _table().values():
        for name in ("math500", "gpqa_diamond", "mmstar", "charxiv", "mathvision"):
            row = rows[name]
            assert row.questions is not None
            nearest = round(row.value / 100 * row.questions) / row.questions
            assert round(100 * nearest, 1) == pytest.approx(row.value, abs=0.0501)
    assert [_table()[m]["aime25"].draws for m in ("ARES-7B", "ARES-3B", "Vision-G1")] == [16, 16, 1]
    assert _table()["ARES-7B"]["dynamath"].metric == "worst_case"


def test_lengths_and_ablations_are_there() -> None:
    rows = reference.of_model("ARES-RL-7B")
    lengths = {row.benchmark: row.value for row in rows if row.metric == reference.TOKENS}
    assert lengths["aime25"] == 22618.8 and lengths["gsm8k"] == 278.9
    assert {row.benchmark for row in reference.of_model("cold_start+grpo")} >= {"mathvista", "dynamath"}


def test_every_row_has_a_source_and_a_unit() -> None:
    for row in reference.published():
        assert row.source.startswith("arXiv:2510.08457v1, table ")
        assert row.unit in ("percent", "tokens") and row.value >= 0


def test_a_run_beside_a_published_row(tmp_path: Path) -> None:
    rows = [Row(f"q{i}", "correct" if i < 90 else "incorrect", task="math500") for i in range(100)]
    rows += [Row("d", task="dynamath"), Row("n", task="mine"), Row("t", "timeout", task="gpqa_diamond")]
    found = reference.beside(load_any(write_run(tmp_path / "a", rows)), "reference:ares-7b")
    assert found.model == "ARES-7B"
    (line,) = found.lines
    assert (line.run, line.printed, line.difference) == pytest.approx((90, 95.2, -5.2))
    low, high = wilson(90, 100)
    low_p, high_p = wilson(476, 500)
    assert line.interval is not None
    assert line.interval[0] == pytest.approx(-5.2 - 100 * ((0.9 - low) ** 2 + (high_p - 0.952) ** 2) ** 0.5)
    assert line.interval[1] == pytest.approx(-5.2 + 100 * ((high - 0.9) ** 2 + (0.952 - low_p) ** 2) ** 0.5)
    said = "\n".join(found.left_out)
    assert "dynamath: the published 39.7 is worst_case" in said and "mine: nothing is published" in said
    assert "gpqa_diamond: nothing was measured" in said
    assert "math500: the run has 100 questions, the published number 500" in said


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reference"]) == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if "." in line]) >= 17
    assert main(["reference", "--model", "ares-7b"]) == 0
    assert "avg@16" in capsys.readouterr().out
    assert main(["reference", "--benchmark", "aime25", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 17 + 2 * 3
    assert main(["reference", "--model", "ARES-9B"]) == 2
    assert "ARES-7B" in capsys.readouterr().err
    assert main(["reference", "--benchmark", "nothing"]) == 2
    run = str(write_run(tmp_path / "a", [Row("q", task="math500")]))
    assert main(["compare", run, "reference:ARES-7B"]) == 0
    assert "nothing is paired" in capsys.readouterr().out
    assert main(["compare", run, "reference:ARES-7B", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"][0]["paired"] is False
    assert main(["compare", run, "reference:nobody"]) == 2
    assert main(["compare", "reference:ARES-7B", "reference:ARES-3B"]) == 2
