"""Figures in trackers: what each of them is handed, and what is said where one is missing."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ares_eval import cli, report, trackers
from ares_eval.records import Run
from tests.report.planted import QUESTIONS, planted_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return planted_run(tmp_path / "run")


def logged(run: Run, tracker: str) -> str:
    found = report.gather([run.folder]).runs[0]
    return trackers.log_run(tracker, found.run, found.results, found.analysis)


class Recorder(types.ModuleType):
    """A tracker's package that remembers what it was told; wandb and trackio share these three functions."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun: dict[str, Any] = {}
        self.numbers: dict[str, float] = {}
        self.params: dict[str, str] = {}
        self.finished = False
        self.steps: list[int | None] = []
        self.defined: dict[str, str] = {}

    def init(self, **options: Any) -> types.SimpleNamespace:
        self.begun = options
        return types.SimpleNamespace(url="https://tracker.invalid/run")

    def log(self, numbers: dict[str, float], step: int | None = None) -> None:
        self.numbers |= numbers
        self.steps.append(step)

    def define_metric(self, name: str, step_metric: str = "") -> None:
        self.defined[name] = step_metric

    def Settings(self, **options: Any) -> dict[str, Any]:
        return options

    def finish(self) -> None:
        self.finished = True

    # mlflow's names for the same
    def set_experiment(self, name: str) -> None:
        self.begun["experiment"] = name

    @contextmanager
    def start_run(self, run_name: str) -> Iterator[types.SimpleNamespace]:
        self.begun["name"] = run_name
        yield types.SimpleNamespace(info=types.SimpleNamespace(run_id="1"))
        self.finished = True

    def log_params(self, params: dict[str, str]) -> None:
        self.params |= params

    def log_metrics(self, numbers: dict[str, float]) -> None:
        self.numbers |= numbers

    def get_tracking_uri(self) -> str:
        return "file:here"


@pytest.mark.parametrize("tracker", ["wandb", "trackio", "mlflow"])
def test_figures_reach_the_tracker(tracker: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Recorder(tracker)
    monkeypatch.setitem(sys.modules, tracker, module)
    said = logged(run, tracker)
    right = sum(i % 3 > 0 for i in range(QUESTIONS))
    assert module.numbers["sums/accuracy"] == pytest.approx(right / QUESTIONS)
    assert module.numbers["sums/accuracy_ci95_low"] < right / QUESTIONS < module.numbers["sums/accuracy_ci95_high"]
    assert module.numbers["odd/not_measured"] == 1
    assert module.numbers["sums/length_slope"] == pytest.approx(60)
    assert module.numbers["sums/hwe_tokens"] > 0
    assert module.finished
    assert module.begun["name"] == "planted/run"
    assert tracker in said


NUMBERS = {"gsm8k/accuracy": 0.5, "mean": 0.5}
NAMED = {"eval/gsm8k/accuracy": 0.5, "eval/mean": 0.5, "eval/ckpt_step": 20.0}


def test_a_checkpoints_figures_have_their_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb, whose steps only rise, by a metric; a run that a trainer writes is joined in shared mode only."""
    module = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    trackers.log_step("wandb", trackers.Place("e-eval", id="1", project="p", group="e"), 20, NUMBERS)
    assert (module.begun["id"], module.begun["project"], module.begun["group"]) == ("1", "p", "e")
    assert "settings" not in module.begun
    assert module.defined == {"eval/ckpt_step": "", "eval/*": "eval/ckpt_step"}
    assert (module.numbers, module.steps) == (NAMED, [None])
    trackers.log_step("wandb", trackers.Place("e", id="w", joined=True), 40, NUMBERS)
    assert (module.begun["settings"]["mode"], module.begun["settings"]["x_primary"]) == ("shared", False)
    trackio = Recorder("trackio")
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    trackers.log_step("trackio", trackers.Place("e", project="p"), 20, NUMBERS)
    assert (trackio.begun["resume"], trackio.numbers, trackio.steps) == ("allow", NAMED, [20])


class Mlflow(types.ModuleType):
    """As much of MLflow's client as a series needs, with one experiment."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.entities = types.SimpleNamespace(Metric=lambda key, value, when, step: (key, value, step))
        self.runs: dict[str, dict[str, Any]] = {"trainers": {"tags": {}, "metrics": []}}

    def MlflowClient(self) -> Mlflow:
        return self

    def get_tracking_uri(self) -> str:
        return "file:here"

    def get_experiment_by_name(self, name: str) -> types.SimpleNamespace | None:
        return types.SimpleNamespace(experiment_id="0") if name == "p" else None

    def search_runs(self, experiments: list[str], filter_string: str, max_results: int) -> list[types.SimpleNamespace]:
        return [
            self._shown(key) for key, run in self.runs.items() if any(v in filter_string for v in run["tags"].values())
        ]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> types.SimpleNamespace:
        self.runs[run_name] = {"tags": tags, "metrics": []}
        return self._shown(run_name)

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        self.runs[run_id]["metrics"] += metrics

    def _shown(self, key: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=key))


def test_mlflow_joins_the_trainers_run_or_finds_its_own_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", module)
    for step in (20, 40):
        trackers.log_step("mlflow", trackers.Place("e", id="trainers", joined=True), step, {"mean": 0.5})
        trackers.log_step("mlflow", trackers.Place("e-eval", id="series", project="p"), step, {"mean": 0.5})
    assert list(module.runs) == ["trainers", "e-eval"]
    for run in module.runs.values():
        assert run["metrics"] == [
            ("eval/mean", 0.5, 20), ("eval/ckpt_step", 20.0, 20), ("eval/mean", 0.5, 40), ("eval/ckpt_step", 40.0, 40),
        ]  # fmt: skip


def test_tensorboard_for_real(run: Run) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged(run, "tensorboard")
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    values = {}
    for tag in events.Tags()["tensors"]:
        tensor = events.Tensors(tag)[-1].tensor_proto
        values[tag] = tensor.float_val[0] if tensor.float_val else None
    assert values.keys() >= {"sums/accuracy", "sums/length_slope"}


def test_missing_package_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(trackers.TrackerUnavailable, match="pip install wandb"):
        logged(run, "wandb")


def test_refusal_of_a_tracker_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)

    def refuse(**options: Any) -> None:
        raise PermissionError("no key")

    monkeypatch.setattr(module, "init", refuse)
    with pytest.raises(trackers.TrackerUnavailable, match="no key"):
        logged(run, "wandb")


def test_unknown_tracker(run: Run) -> None:
    with pytest.raises(trackers.TrackerUnavailable, match="tensorboard"):
        logged(run, "comet")


def test_run_flag_asks_for_the_package_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = ["--model-name", "m", "--openai-base-url", "http://127.0.0.1:9/v1", "--datasets", "smoke_text"]
    assert cli.main([*words, "--tracker", "wandb"]) == 2
    assert "pip install wandb" in capsys.readouterr().err


def test_run_logs_itself_when_done(
    start_loopback: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    words = ["--model-name", "m", "--openai-base-url", start_loopback().url, "--datasets", "smoke_text", "--limit", "4"]
    folders = ["--output-dir", str(tmp_path / "runs"), "--cache-dir", str(tmp_path / "cache"), "--quiet"]
    assert cli.main([*words, *folders, "--tracker", "wandb"]) == 0
    assert module.numbers["smoke_text/n"] == 4
    assert module.begun["config"]["model_name"] == "m"
    assert module.finished
