"""Which runs there are, which are done, and the running of the rest: resumable, in parallel, nothing done twice.

A run is done when its file is there and was made with the same settings; files are written whole or not at all. Seeds
come one after the other, each with all arms, so that whatever is there is balanced.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ares_train.aepo.config import AEPOConfig, WindowConfig
from examples.miniature import rl, sft
from examples.miniature.arms import LENGTH_COEFFICIENTS, LONG, MAIN, SINGLE, WINDOW, config_of
from examples.miniature.evaluate import EvaluationSettings, evaluate, starting_tau
from examples.miniature.task import Task
from examples.miniature.task_chain import Chain
from examples.miniature.task_search import Search
from examples.miniature.window_grid import window_grid

TASKS: dict[str, type[Task]] = {"search": Search, "chain": Chain}
MEASURING = WindowConfig(**WINDOW)
"""The window that evaluation counts HWE tokens with, whatever the arm trains with."""

TUNING_SEED = 1000
"""No main seed: what is chosen with it is chosen on other questions than those of the comparison."""

EASY_LEVELS = (0, 1)
"""Levels whose tokens the length penalty is tuned to match; level 4 alone would decide if all tokens were matched."""


@dataclass(frozen=True)
class Plan:
    """A study. Settings were chosen on GRPO and the tuning split alone, then frozen: results/miniature/README.md."""

    sft: sft.SFTSettings
    rl: rl.RLSettings
    longer: rl.RLSettings
    """Of the rows that are trained longer, which were added after all others were frozen."""
    tuning: EvaluationSettings
    final: EvaluationSettings
    length_coefficients: tuple[float, ...] = LENGTH_COEFFICIENTS
    main: tuple[str, ...] = tuple(MAIN)
    single: tuple[str, ...] = tuple(SINGLE)
    long: dict[str, int] = field(default_factory=lambda: dict(LONG))
    """Arms that are trained longer, and their number of seeds."""


FULL = Plan(
    sft.SFTSettings(),
    rl.RLSettings(),
    rl.RLSettings(steps=60, questions=32),
    EvaluationSettings("tune", 256, 2),
    EvaluationSettings("test", 512, 2),
)
SMOKE = Plan(
    sft.SFTSettings(steps=60, batch=8),
    rl.RLSettings(steps=2, questions=4, rollouts=8),
    rl.RLSettings(steps=3, questions=4, rollouts=8),
    EvaluationSettings("tune", 16, 1),
    EvaluationSettings("test", 32, 1),
    length_coefficients=(0.2,),
    main=("grpo", "aepo_adaptive", "grpo_length"),
    single=("literal",),
    long={"grpo": 1},
)


@dataclass(frozen=True)
class Run:
    """One file of results. ``kind``: sft, tuning, main, single or long. ``coefficient`` is the length penalty's."""

    task: str
    kind: str
    arm: str
    seed: int
    coefficient: float | None = None

    @property
    def name(self) -> str:
        """Also the file's, without its suffix, below the output folder."""
        if self.kind == "sft":
            return f"{self.task}/sft"
        tried = f"-{self.coefficient:g}" if self.kind == "tuning" and self.coefficient is not None else ""
        return f"{self.task}/{self.kind}/{self.arm}{tried}-s{self.seed}"


def settings_of(run: Run, plan: Plan) -> dict[str, Any]:
    """Everything that decides a run's result: what a file must have been made with to count as done."""
    settings: dict[str, Any] = {"sft": asdict(plan.sft), "evaluation": asdict(evaluation_of(run, plan))}
    if run.kind != "sft":
        settings |= {"rl": asdict(rl_of(run, plan)), "aepo": aepo_of(run).to_dict(), "seed": run.seed}
    return json.loads(json.dumps(settings))  # type: ignore[no-any-return]


def evaluation_of(run: Run, plan: Plan) -> EvaluationSettings:
    return plan.tuning if run.kind == "tuning" else plan.final


def rl_of(run: Run, plan: Plan) -> rl.RLSettings:
    return plan.longer if run.kind == "long" else plan.rl


def aepo_of(run: Run) -> AEPOConfig:
    arm = MAIN[run.arm] if run.arm in MAIN else SINGLE[run.arm]
    return config_of(arm, TASKS[run.task].answer_length, run.coefficient)


def result_of(run: Run, plan: Plan, folder: Path) -> dict[str, Any] | None:
    """The run's result if it is done with these settings."""
    path = folder / f"{run.name}.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    current = result["settings"] == settings_of(run, plan)
    if run.kind == "sft":
        current &= checkpoint_path(run.task, folder).exists()
    return result if current else None


def checkpoint_path(task: str, folder: Path) -> Path:
    return folder / task / "sft.pt"


def runs(tasks: Sequence[str], seeds: int, plan: Plan) -> list[Run]:
    """All runs in the order in which they are wanted; the length penalty's coefficient is not in it yet.

    Checkpoints; then task by task the first seed, the tuning and the other seeds; then the single-seed rows, and those
    that are trained longer, of *search* alone (*chain* has nothing left to learn by then).
    """
    out = [Run(task, "sft", "sft", 0) for task in tasks]
    for task in tasks:
        first, *others = ([Run(task, "main", arm, seed) for arm in plan.main] for seed in range(seeds))
        tuning = [Run(task, "tuning", "grpo_length", TUNING_SEED, each) for each in plan.length_coefficients]
        out += [*first, Run(task, "tuning", "aepo_adaptive", TUNING_SEED), *tuning, *itertools.chain(*others)]
    out += [Run(task, "single", arm, 0) for task in tasks for arm in plan.single]
    for task in (task for task in tasks if task == Search.name):
        every = [Run(task, "long", arm, seed) for arm, count in plan.long.items() for seed in range(count)]
        out += sorted(every, key=lambda run: run.seed)
    return out


def chosen_coefficient(task: str, plan: Plan, folder: Path) -> float | None:
    """The length penalty that leaves about as many tokens on easy questions as `aepo_adaptive`; None until tuned."""

    def easy_tokens(run: Run) -> float | None:
        result = result_of(run, plan, folder)
        if result is None:
            return None
        scores = result["scores"]
        kept = [t for t, level in zip(scores["sums"]["tokens"], scores["level"], strict=True) if level in EASY_LEVELS]
        return float(sum(kept) / len(kept) / scores["draws"])

    aim = easy_tokens(Run(task, "tuning", "aepo_adaptive", TUNING_SEED))
    found = {c: easy_tokens(Run(task, "tuning", "grpo_length", TUNING_SEED, c)) for c in plan.length_coefficients}
    known = {coefficient: tokens for coefficient, tokens in found.items() if tokens is not None}
    if aim is None or len(known) < len(found):
        return None
    return min(known, key=lambda coefficient: abs(known[coefficient] - aim))


def execute(run: Run, plan: Plan, folder: Path) -> str:
    """Do one run and write its file; a line that says how it went. Runs in a process of its own, on one thread."""
    torch.set_num_threads(1)
    began = time.monotonic()
    task = TASKS[run.task]()
    checkpoint = checkpoint_path(run.task, folder)
    result: dict[str, Any] = {"run": asdict(run), "settings": settings_of(run, plan)}

    def told(step: int, of: int, text: str) -> None:
        if step % 20 == 0 or step == of:
            print(f"  {run.name} {step}/{of} {text} {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    if run.kind == "sft":
        model = sft.train(task, plan.sft, lambda step, loss: told(step, plan.sft.steps, f"loss {loss:.3f}"))
        write(checkpoint, lambda path: torch.save(model.state_dict(), path))
        result["tau"] = starting_tau(model, task, plan.tuning, MEASURING)
        result["window_grid"] = window_grid(model, task, plan.final)
    else:
        start, settings = torch.load(checkpoint, weights_only=True), rl_of(run, plan)
        model, result["log"] = rl.train(
            task,
            start,
            aepo_of(run),
            settings,
            run.seed,
            lambda record: told(record["step"], settings.steps, f"right {record['right']} tokens {record['tokens']}"),
        )
        result["tau"] = json.loads((folder / run.task / "sft.json").read_text())["tau"]
    result["scores"] = asdict(evaluate(model, task, evaluation_of(run, plan), result["tau"], MEASURING))
    result["seconds"] = round(time.monotonic() - began)
    write(folder / f"{run.name}.json", lambda path: path.write_text(json.dumps(result, separators=(",", ":")) + "\n"))
    return f"{run.name}: {result['seconds']} s"


def write(path: Path, how: Callable[[Path], Any]) -> None:
    """``how(temporary path)``, then the file in its place at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    how(temporary)
    temporary.replace(path)


def ready(run: Run, plan: Plan, folder: Path) -> Run | None:
    """The run as it can be done now; None while it waits for its checkpoint or for the length penalty's tuning."""
    if run.kind != "sft" and result_of(Run(run.task, "sft", "sft", 0), plan, folder) is None:
        return None
    if run.arm != "grpo_length" or run.kind == "tuning":
        return run
    coefficient = chosen_coefficient(run.task, plan, folder)
    return None if coefficient is None else replace(run, coefficient=coefficient)


def is_done(run: Run, plan: Plan, folder: Path) -> bool:
    found = ready(run, plan, folder)
    return found is not None and result_of(found, plan, folder) is not None


def progress(tasks: Sequence[str], seeds: int, plan: Plan, folder: Path) -> list[tuple[str, bool]]:
    """Every run's name and whether it is done."""
    return [(run.name, is_done(run, plan, folder)) for run in runs(tasks, seeds, plan)]


def run_all(tasks: Sequence[str], seeds: int, workers: int, plan: Plan, folder: Path) -> None:
    """Every run that is not done yet, ``workers`` at a time, the first that is ready next.

    The first run that fails ends the study with its error, once the others in work are done.
    """
    todo = [run for run in runs(tasks, seeds, plan) if not is_done(run, plan, folder)]
    count = 0
    running: set[Future[str]] = set()
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        while todo or running:
            for run in list(todo):
                found = ready(run, plan, folder) if len(running) < workers else None
                if found is not None:
                    todo.remove(run)
                    running.add(pool.submit(execute, found, plan, folder))
            if not running:
                raise RuntimeError(f"nothing is ready of {', '.join(run.name for run in todo)}")
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                count += 1
                print(f"[{count} done, {len(todo) + len(running)} to go] {future.result()}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


def write_settings(plan: Plan, folder: Path) -> Path:
    """settings.json: the plan and every arm as written in arms.py; its path."""
    path = folder / "settings.json"
    settings = {"plan": asdict(plan), "window": WINDOW, "main": MAIN, "single": SINGLE}
    write(path, lambda temporary: temporary.write_text(json.dumps(settings, indent=1) + "\n"))
    return path
