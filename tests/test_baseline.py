"""Baselines: they pair like the run they came from, hold no text, and refuse what they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ares_eval import resources
from ares_eval.cli import main
from ares_eval.compare import Mismatch, compare_paths, report
from ares_eval.foreign import load_any
from ares_eval.outcomes import of_run
from ares_eval.records import load_run
from tests.comparison_runs import Row, write_run


def _rows() -> list[Row]:
    outcomes = ("correct", "incorrect", "unverifiable", "timeout")
    return [
        Row(
            f"q{i}",
            outcomes[i % 4],
            draw,
            group=f"g{i // 2}",
            level=("easy", "hard")[i % 2],
            tokens=10 + i,
            truncated=i % 5 == 0,
            entropies=None if i % 4 == 3 else [0.1] * 10 + [2.0 + i % 3] * 6,
            reference=f"secret answer {i}",
        )
        for i in range(40)
        for draw in range(2)
    ]


def test_a_baseline_stands_for_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", _rows())
    b = write_run(
        tmp_path / "b",
        [replace(r, outcome="incorrect", tokens=(r.tokens or 0) * 2) if r.sample == "q0" else r for r in _rows()],
    )
    assert main(["baseline", "save", str(a), "base", "--dir", str(tmp_path)]) == 0
    assert "base.json" in capsys.readouterr().out
    path = tmp_path / "base.json"
    run, baseline = of_run(load_run(a)).tasks["t"], load_any(path).tasks["t"]
    assert {key: o._replace(line=None, hwe=None) for key, o in run.draws.items()} == {
        key: o._replace(hwe=None) for key, o in baseline.draws.items()
    }
    from_run, from_baseline = (report.as_json(compare_paths(first, b)) for first in (a, path))
    for content in (from_run, from_baseline):
        content.pop("a")
        content["tasks"]["t"].pop("files")
        for flips in ("lost", "gained"):
            for flip in content["tasks"]["t"][flips]:
                flip.pop("line_a")
    assert from_run == from_baseline
    assert from_run["tasks"]["t"]["hwe"]["a"] > 0


def test_a_baseline_holds_no_text(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", _rows())
    assert main(["baseline", "save", str(a), "base", "--dir", str(tmp_path)]) == 0
    text = (tmp_path / "base.json").read_text()
    for private in ("private reply", "secret answer", "secret prompt"):
        assert private not in text
    assert len(text) < 120 * len(_rows()) + 2000


def test_a_changed_task_is_refused(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", _rows())
    main(["baseline", "save", str(a), "base", "--dir", str(tmp_path)])
    b = write_run(tmp_path / "b", _rows(), fingerprints={"t": "0" * 64})
    with pytest.raises(Mismatch, match="definition"):
        compare_paths(tmp_path / "base.json", b)
    other = write_run(tmp_path / "c", [replace(row, reference="another") for row in _rows()])
    with pytest.raises(Mismatch, match="another right answer"):
        compare_paths(tmp_path / "base.json", other)


def test_what_cannot_be_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", _rows())
    assert main(["baseline", "save", str(a), "../up", "--dir", str(tmp_path)]) == 3
    assert main(["baseline", "save", str(tmp_path), "x", "--dir", str(tmp_path)]) == 3
    manifest = json.loads((a / "run.json").read_text())
    manifest["tasks"]["t"]["planned"] = 81
    (a / "run.json").write_text(json.dumps(manifest))
    assert main(["baseline", "save", str(a), "x", "--dir", str(tmp_path)]) == 3
    assert "unfinished" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"ares_baseline": 2},
        {"tasks": {"t": {"fingerprint": None, "planned": 1, "judges": [], "columns": ["sample"], "draws": [["q"]]}}},
        {"tasks": {"t": {"fingerprint": None, "planned": 1, "judges": [], "columns": ["x"], "draws": [["q"]]}}},
        {
            "tasks": {
                "t": {
                    "fingerprint": None,
                    "planned": 1,
                    "judges": [],
                    "columns": ["sample", "draw", "score"],
                    "draws": [["q", 0, "x"]],
                }
            }
        },
        {"tasks": []},
    ],
)
def test_a_broken_baseline_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object]
) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"ares_baseline": 1, "name": "b", "model": "m", "tasks": {}} | change))
    a = write_run(tmp_path / "a", _rows())
    assert main(["compare", str(path), str(a)]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_committed_baselines_load_and_are_of_this_version_of_their_tasks() -> None:
    from ares_eval import tasks

    for path in resources.folder("results/baselines").glob("*.json"):
        outcomes = load_any(path)
        for name, task in outcomes.tasks.items():
            assert task.fingerprint == tasks.load(name).fingerprint, f"save {path.name} anew: {name} has changed"
