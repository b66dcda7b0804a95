"""The wheel carries everything: installed elsewhere, the evaluator finds its tasks and presets and runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import loopback

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=300)
    (wheel,) = folder.glob("ares-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True, timeout=300
    )
    return folder


def run(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    elsewhere = installed / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(installed / "site"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", "import sys; from ares_eval.cli import main; sys.exit(main())", *words]
    return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120)


def test_what_ships(installed: Path) -> None:
    (wheel,) = installed.glob("ares-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in ("tasks/gsm8k.yaml", "tasks/smoke_text.jsonl", "configs/presets/reasoning.yaml"):
        assert f"ares_eval/_shipped/{part}" in names
    assert any(name.startswith("ares_eval/_shipped/results/baselines") for name in names)
    assert any(name.startswith("ares_eval/_shipped/results/reference") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("tests/" in name or "benchmarks/" in name for name in names)


def test_it_runs_from_elsewhere(installed: Path) -> None:
    where = run(installed, "--version")
    assert where.returncode == 0, where.stderr
    listed = run(installed, "list")
    assert listed.returncode == 0, listed.stderr
    assert "gsm8k" in listed.stdout
    assert str(ROOT) not in listed.stdout
    with loopback.start() as server:
        cache = str(installed / "cache")
        words = ["--model-name", "m", "--openai-base-url", server.url, "--preset", "greedy", "--cache-dir", cache]
        done = run(installed, *words, "--datasets", "smoke_text", "--limit", "5", "--quiet")
    assert done.returncode == 0, done.stderr
    assert len(list((installed / "elsewhere" / "results" / "runs").rglob("results.json"))) == 1
