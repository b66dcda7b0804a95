"""Every benchmark end to end: rows in the hub's form over the hub's protocol, asked over HTTP, scored, in one table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ares_eval.tasks import catalog, suites
from ares_eval.tasks.definition import read_definition
from tests import loopback
from tests.tasks import hub_rows

VARIANTS = sorted(d.name for d in catalog.definitions() if d.variant_of)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[loopback.Server]:
    """A hub with all benchmarks, and a model that knows all their answers."""
    folder = tmp_path_factory.mktemp("hub")
    known = hub_rows.write(folder)
    with loopback.start(
        answers=known, hub=str(folder), hub_gated="Idavidrein/gpqa", hub_token="t", check_pictures=True
    ) as server:
        yield server


@pytest.fixture
def run(tmp_path: Path, hub: loopback.Server) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run(word, ...)``: `ares-eval run` against that model and that hub."""
    server = hub
    environment = {**os.environ, "HF_ENDPOINT": server.root, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "t"}

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from ares_eval.cli import main; sys.exit(main())"
        command = [
            sys.executable, "-c", code, "run", "--model-name", "m", "--openai-base-url", server.url, "--openai-api-key",
            "k", "--output-dir", str(tmp_path / "runs"), "--cache-dir", str(tmp_path / "cache"), "--eval-threads", "32",
            "--quiet", *words,
        ]  # fmt: skip
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    return start


def results_in(folder: Path) -> dict[str, Any]:
    (file,) = folder.rglob("results.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_all_benchmarks_complete_in_one_table(tmp_path: Path, run: Callable[..., Any]) -> None:
    done = run("--datasets", "all," + ",".join(VARIANTS), "--limit", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    found = results_in(tmp_path / "runs")
    assert set(found["tasks"]) == {*suites()["all"], *VARIANTS}
    assert found["suites"]["all"]["tasks"] == sorted(suites()["all"])
    rows = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert set(found["tasks"]) <= rows
    for name, task in found["tasks"].items():
        groups = read_definition(catalog.find(name)).grouped
        draws = {"dynamath": 50, "wemath": 15}.get(name, 80 if name in ("aime24", "aime25", "hmmt25") else 5)
        assert (task["n"], task["correct"], task["not_measured"]) == (draws, draws, {}), name
        assert task["metrics"][task["metrics"]["primary"]] == 1, name
        assert groups == (name in ("dynamath", "wemath"))
    assert set(found["tasks"]["mmmu_pro"]["metrics"]["parts"]) == {"standard (10 options)", "vision"}
    assert found["tasks"]["dynamath"]["metrics"]["primary"] == "worst_case"
    assert found["tasks"]["wemath"]["metrics"]["wemath_loose"] == 1


def test_official_scoring_is_another_run_and_the_table_says_so(tmp_path: Path, run: Callable[..., Any]) -> None:
    words = ("--datasets", "mmlu_pro,charxiv,math500", "--limit", "4")
    sound, official = run(*words), run(*words, "--scoring", "official")
    assert (sound.returncode, official.returncode) == (0, 0)
    assert "scored as the official scripts do: mmlu_pro; by the usual rules: charxiv, math500" in official.stdout
    assert "scored as" not in sound.stdout
    manifests = [json.loads(file.read_text()) for file in (tmp_path / "runs").rglob("run.json")]
    assert {manifest["settings"]["scoring"] for manifest in manifests} == {"sound", "official"}
    assert len({manifest["digest"] for manifest in manifests}) == 2
    for file in (tmp_path / "runs").rglob("samples.jsonl"):
        methods = {(record := json.loads(line))["task"]: record["verdict"]["method"] for line in file.open()}
        run_json = json.loads((file.parent / "run.json").read_text())
        named = methods["mmlu_pro"] == "official:mmlu_pro"
        assert named == (run_json["settings"]["scoring"] == "official")
        assert not methods["math500"].startswith("official")
    rescore = "import sys; from ares_eval.cli import main; sys.exit(main(['rescore', sys.argv[1]]))"
    for file in (tmp_path / "runs").rglob("samples.jsonl"):
        again = subprocess.run([sys.executable, "-c", rescore, str(file.parent)], capture_output=True, text=True)
        assert "0 verdicts flip" in again.stdout


def test_what_rules_cannot_decide_is_said_where_a_judge_is_official(
    tmp_path: Path, start_loopback: Callable[..., Any]
) -> None:
    hub_rows.write(tmp_path / "hub", "princeton-nlp/CharXiv")
    server = start_loopback(hub=str(tmp_path / "hub"), reply="It shows, as far as I can tell, a plot of durations.")
    code = "import sys; from ares_eval.cli import main; sys.exit(main())"
    command = [
        sys.executable, "-c", code, "run", "--model-name", "m", "--openai-base-url", server.url,
        "--openai-api-key", "k", "--output-dir", str(tmp_path / "runs"), "--cache-dir", str(tmp_path / "cache"),
        "--quiet", "--datasets", "charxiv_descriptive", "--limit", "8",
    ]  # fmt: skip
    environment = {**os.environ, "HF_ENDPOINT": server.root, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    task = results_in(tmp_path / "runs")["tasks"]["charxiv_descriptive"]
    assert task["unverifiable"] > 0
    assert "officially a judge decides (charxiv_descriptive)" in done.stdout


def test_only_the_configs_that_are_reached_are_downloaded(tmp_path: Path, run: Callable[..., Any]) -> None:
    assert run("--datasets", "mmmu,bbh", "--limit", "7").returncode == 0
    for task, dataset, expected in (("mmmu", "MMMU___mmmu", 2), ("bbh", "SaylorTwift___bbh", 2)):
        assert task in results_in(tmp_path / "runs")["tasks"]
        (folder,) = (tmp_path / "hf" / "datasets").glob(f"{dataset}*")
        assert len([path for path in folder.iterdir() if path.is_dir()]) == expected
