"""The whole loop with a real model: verl's shards, merged, served by transformers, scored, shown as a series.

The model is tiny and random; that its replies are its own is what matters here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ares_eval import cli as eval_cli
from ares_eval.inference import servers
from ares_eval.records import load_run
from ares_eval.series import steps
from ares_train import checkpoints
from ares_train.checkpoints import Checkpoint
from ares_train.loop.callback import AresCheckpointCallback
from tests.models import tiny_text
from tests.train.loop_fakes import ROOT

QUESTIONS = 5


def save(run_dir: Path, step: int, scratch: Path) -> Checkpoint:
    """A one-rank checkpoint as verl's FSDP manager lays it out."""
    import torch
    from transformers import AutoModelForCausalLM

    base = tiny_text.build(scratch / f"base-{step}", seed=step, layers=1, width=64)
    folder = run_dir / f"global_step_{step}"
    texts = folder / "actor" / checkpoints.HF_FOLDER
    shutil.copytree(base, texts, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = AutoModelForCausalLM.from_pretrained(base).state_dict()
    torch.save(weights, folder / "actor/model_world_size_1_rank_0.pt")
    (folder / "actor/fsdp_config.json").write_text('{"FSDP_version": 2, "world_size": 1}')
    (run_dir / checkpoints.TRACKER).write_text(str(step))
    return Checkpoint(step, folder, folder / "actor")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Step 1 by a watcher after one that was killed while it merged, step 2 inline, in the trainer's process."""
    scratch = tmp_path_factory.mktemp("loop")
    folder = scratch / "training"
    folder.mkdir()
    section: dict[str, Any] = {
        "datasets": "smoke_text", "serve": "hf", "model_name": "tiny", "baseline": "first", "keep": "all", "poll": 0.1,
        "run": {"limit": QUESTIONS, "max_tokens": 12, "logprobs": 5, "temperature": 0.0, "no_cache": True},
    }  # fmt: skip
    (scratch / "eval.yaml").write_text(json.dumps(section))
    save(folder, 1, scratch)
    words = ["watch", str(folder), "--config", str(scratch / "eval.yaml"), "--once"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def watcher(*start: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *start, *words]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    killed = watcher("tests.train.loop_killed", "merging")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not list((folder / "eval/weights").glob("step_*"))
    done = watcher("ares_train.cli")
    assert done.returncode == 0, done.stdout + done.stderr
    second = save(folder, 2, scratch)
    trainer = {
        "default_local_dir": str(folder),
        "experiment_name": "e",
        "logger": [],
        "eval": {"mode": "inline", **section},
    }
    callback = AresCheckpointCallback(config=OmegaConf.create({"trainer": trainer}))
    callback.on_save(trainer=None, global_step=2, checkpoint_dir=str(second.folder), async_save=False)
    return folder


def test_every_step_has_the_score_of_its_weights(run_dir: Path) -> None:
    results = steps.read_all(run_dir)
    assert list(results) == [1, 2]
    texts = []
    for step, result in results.items():
        saved = run_dir / f"global_step_{step}"
        assert result.status == "complete"
        assert result.digest == checkpoints.digest(Checkpoint(step, saved, saved / "actor"))
        assert result.run is not None
        assert result.weights is not None
        run = load_run(run_dir / result.run)
        assert run.manifest["revision"] == result.digest
        assert run.manifest["server"]["weights"] == servers.weights_digest(f"hf:{run_dir / result.weights}")
        assert result.figures["smoke_text/n"] == QUESTIONS
        assert result.figures["smoke_text/not_measured"] == 0
        assert result.figures["smoke_text/entropy"] > 0
        assert result.threshold is not None
        assert result.threshold.estimate == "exact"
        texts.append([record.text for record in run.records()])
    assert results[1].threshold == results[2].threshold
    assert texts[0] != texts[1]
    assert results[1].tries == 2


def test_gate_and_best(run_dir: Path) -> None:
    results = steps.read_all(run_dir)
    assert results[1].gate is None
    assert results[2].gate is not None
    assert results[2].gate.baseline == "step 1"
    best = steps.read_best(run_dir)
    assert best is not None
    assert (run_dir / "eval/best").resolve() == (run_dir / str(results[best.step].weights)).resolve()
    assert (run_dir / "eval/best/model.safetensors").stat().st_size > 100_000
    assert not list((run_dir / "eval/pinned").glob("step_*"))


def test_series_of_the_run(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eval_cli.main(["series", str(run_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["step"] for point in found["points"]] == [1, 2]
    assert found["notes"] == []
    for point in found["points"]:
        task = point["tasks"]["smoke_text"]
        assert task["n"] == QUESTIONS
        assert task["tokens"]["value"] > 0
        assert task["hwe"]["value"] >= 0
