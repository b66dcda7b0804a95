"""Training runs that were never trained, and the stand-in evaluator: what the loop's tests are made of."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ares_train import checkpoints
from ares_train.checkpoints import Checkpoint
from ares_train.loop import settings, watch
from ares_train.loop.settings import Settings
from ares_train.loop.watch import End, Watched
from tests import loopback

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = {f"What is {n} plus {n}?": 2 * n for n in range(24)}


def checkpoint(run_dir: Path, step: int, *, right: bool = True, weights: bytes | None = None) -> Checkpoint:
    """A checkpoint with whole Hugging Face weights (of no model: the stand-in loads none), and verl's tracker."""
    folder = run_dir / f"global_step_{step}"
    texts = folder / "actor" / checkpoints.HF_FOLDER
    texts.mkdir(parents=True, exist_ok=True)
    for name, content in (("config", {"model_type": "qwen2"}), ("tokenizer", {}), ("quality", {"right": right})):
        (texts / f"{name}.json").write_text(json.dumps(content))
    (texts / checkpoints.SINGLE).write_bytes(weights or f"weights of step {step}".encode())
    (run_dir / checkpoints.TRACKER).write_text(str(step))
    return Checkpoint(step, folder, folder / "actor")


@dataclass
class Loop:
    """A training run's folder with an evaluator that answers from loopback servers.

    ``words``: flags of `ares-train watch` that reach it; ``lines``: what watchers in this process said.
    """

    run_dir: Path
    plans: Path
    python: Path
    config: Path
    servers: dict[str, loopback.Server]
    lines: list[str] = field(default_factory=list)

    def settings(self, **changes: Any) -> Settings:
        """Those of the file, changed."""
        return settings.load(self.run_dir, self.config, changes)

    def watch(self, end: End | None = None, **changes: Any) -> Watched:
        """A watcher in this process, until everything has a result."""
        asked = self.settings(**changes)
        return watch.watch(self.run_dir, asked, end or End(once=True), stop=threading.Event(), say=self.lines.append)

    @property
    def policy(self) -> str:
        """A gate that fails whoever is shown to have lost ten points."""
        return str(self.config.with_name("policy.yaml"))

    def plan(self, name: str, *lines: object) -> None:
        """What the evaluator is to do, a line for each evaluation."""
        (self.plans / name).write_text("\n".join(map(str, lines)))

    def evaluated(self) -> list[dict[str, Any]]:
        """What the evaluator was called for, in order."""
        journal = self.plans / "journal"
        return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []

    def asked(self) -> list[str]:
        """Every question that reached the servers."""
        bodies = [request["body"] for server in self.servers.values() for request in server.requests()]
        return [question for body in bodies for question in ANSWERS if question in json.dumps(body)]

    def command(self, *more: str) -> list[str]:
        """The words of a watcher in a process of its own."""
        return ["watch", str(self.run_dir), "--config", str(self.config), "--once", *more]

    def result(self, step: int) -> dict[str, Any]:
        """A step file as it lies there."""
        found: dict[str, Any] = json.loads((self.run_dir / f"eval/step_{step}.json").read_text())
        return found


@contextlib.contextmanager
def servers(latency: float = 0.0) -> Iterator[dict[str, loopback.Server]]:
    """One that knows the answers, one that does not."""
    common: dict[str, Any] = {"keep_bodies": True, "tokens": 24, "latency": latency}
    with (
        loopback.start(answers=ANSWERS, **common) as right,
        loopback.start(answers=ANSWERS, wrong=1.0, **common) as wrong,
    ):
        yield {"right": right, "wrong": wrong}


def loop(folder: Path, started: dict[str, loopback.Server], **run: Any) -> Loop:
    """A run's folder without checkpoints; ``run``: further settings of ares-eval. The caller sets ``$LOOP``."""
    data = folder / "data/gsm8k/grade_school_math/data"
    data.mkdir(parents=True)
    rows = [json.dumps({"question": q, "answer": f"#### {a}"}) for q, a in ANSWERS.items()]
    (data / "test.jsonl").write_text("\n".join(rows) + "\n")
    plans, run_dir = folder / "plans", folder / "training"
    plans.mkdir()
    run_dir.mkdir()
    (plans / "urls.json").write_text(json.dumps({name: server.url for name, server in started.items()}))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests/train/loop_evaluator.py"} "$@"\n')
    python.chmod(0o755)
    (folder / "policy.yaml").write_text("rules: [{kind: accuracy, margin: 10, need: no_disproof}]\n")
    config = folder / "eval.yaml"
    asked = {"dataset_dir": str(folder / "data"), "no_cache": True, "max_tokens": 64, "logprobs": 5, **run}
    whole = {
        "datasets": "gsm8k",
        "serve": "hf",
        "model_name": "m",
        "eval_python": str(python),
        "poll": 0.1,
        "run": asked,
    }
    config.write_text(json.dumps(whole))
    return Loop(run_dir, plans, python, config, started)
