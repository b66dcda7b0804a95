"""`ares-eval list` and `ares-eval show`, as a person and as a program reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ares_eval.cli import main
from tests.tasks import tiny


def test_list_shows_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "SUITE", "MODALITY", "SIZE", "HERE", "SOURCE"]
    table = {line.split()[0]: line for line in lines[1:]}
    assert "30 x 16" in table["aime25"]
    assert " hub " in table["gsm8k"]
    assert " yes " in table["smoke_text"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("aime", {"aime24", "aime25"}),
        ("smoke_*", {"smoke_text", "smoke_pictures"}),
        ("multimodal", {"mathvision", "logicvista", "dynamath"}),
    ],
)
def test_list_takes_a_pattern(capsys: pytest.CaptureFixture[str], pattern: str, names: set[str]) -> None:
    assert main(["list", pattern, "--json"]) == 0
    assert names <= {task["name"] for task in json.loads(capsys.readouterr().out)["tasks"]}


def test_list_says_what_is_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.task_file(tmp_path / "tasks")
    tiny.native(tmp_path / "data")

    def of(*words: str) -> dict[str, object]:
        main(["list", "tiny", "--json", "--include-path", str(tmp_path / "tasks"), *words])
        task: dict[str, object] = json.loads(capsys.readouterr().out)["tasks"][0]
        return task

    assert of()["available"] is None
    here = of("--dataset-dir", str(tmp_path / "data"))
    assert here["available"] is True
    assert str(here["source"]).startswith("native: ")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert of()["available"] is False
    (tmp_path / "hf" / "hub" / "datasets--org--tiny" / "snapshots" / "abc").mkdir(parents=True)
    assert of()["available"] is True


def test_list_with_a_broken_file_shows_the_others(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("task: [\n")
    assert main(["list", "--include-path", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "gsm8k" in told.out
    assert f"{tmp_path / 'bad.yaml'}:2: " in told.err


def test_list_imports_nothing_heavy_and_needs_no_network() -> None:
    code = (
        "import sys; from ares_eval.cli import main; main(['list', '--json']); "
        "sys.exit(any(m in sys.modules for m in ('datasets', 'pyarrow', 'PIL', 'numpy', 'huggingface_hub')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_show_gives_the_definition_and_the_first_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "smoke_pictures"]) == 0
    told = capsys.readouterr().out
    assert "smoke_pictures.yaml (in lm-eval: ares_smoke_pictures)" in told
    assert "[system]\nYou FIRST think" in told
    assert "image/png, 640 x 480, untouched" in told
    assert "How many red discs are there?" in told


def test_show_json_is_what_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "show",
        "smoke_pictures",
        "--json",
        "--prompt-style",
        "user-suffix",
        "--system-prompt",
        "Think.",
        "--max-pixels",
    ]
    assert main([*words, "300000"]) == 0
    sample = json.loads(capsys.readouterr().out)["sample"]
    (turn,) = sample["messages"]
    assert turn["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert turn["content"][1]["text"] == "\nHow many red discs are there? Think."
    assert sample["reference"] == "3"


def test_show_without_data_shows_the_definition(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "gsm8k"]) == 3
    told = capsys.readouterr()
    assert "openai/gsm8k" in told.out
    assert told.err.count("\n") == 1
    assert "gsm8k: data unavailable: " in told.err


@pytest.mark.parametrize("words", [["gsm8kk"], ["gsm8k", "--min-pixels", "5", "--max-pixels", "4"]])
def test_show_of_what_is_not_there_is_a_usage_error(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["show", *words]) == 2
    assert capsys.readouterr().err.startswith("ares-eval show: ")
