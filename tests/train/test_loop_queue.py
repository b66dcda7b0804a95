"""The loop's parts that need no evaluation: jobs, claims, the callback, settings, ranking, places of trackers."""

from __future__ import annotations

import ast
import concurrent.futures
import importlib.metadata
import logging
import os
import random
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ares_eval.series import steps
from ares_eval.series.steps import Gate, StepResult
from ares_train import checkpoints
from ares_train.loop import child, queue, ranking, settings, tracking
from ares_train.loop.callback import AresCheckpointCallback
from ares_train.loop.settings import SettingsError
from tests.train.loop_fakes import ROOT, checkpoint


def result(step: int, value: float | None = None, **changes: Any) -> StepResult:
    figures = {} if value is None else {"mean": value}
    whole: dict[str, Any] = {
        "format": steps.FORMAT, "step": step, "status": "complete", "digest": f"sha256:{step}", "stamp": "s",
        "checkpoint": f"global_step_{step}", "model": "m", "figures": figures,
    }  # fmt: skip
    return StepResult(**(whole | changes))


# ---------------------------------------------------------------- jobs and claims


def test_job_is_pending_until_there_is_a_result_of_its_files(tmp_path: Path) -> None:
    for step in (10, 2):
        queue.enqueue(checkpoint(tmp_path, step), trained={"git": "g"})
    jobs = queue.pending(tmp_path)
    assert [job.step for job in jobs] == [2, 10]
    assert jobs[0].trained == {"git": "g"}
    steps.write(steps.path(tmp_path, 2), result(2, stamp=jobs[0].stamp))
    assert [job.step for job in queue.pending(tmp_path)] == [10]
    queue.enqueue(checkpoint(tmp_path, 2, weights=b"other"))
    assert [job.step for job in queue.pending(tmp_path)] == [2, 10]


def test_queueing_again_changes_nothing_that_matters(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 2)
    first = queue.enqueue(made)
    again = queue.enqueue(made)
    assert (again.stamp, again.pin) == (first.stamp, first.pin)
    assert len(list((tmp_path / queue.PINNED).iterdir())) == 1
    assert queue.discover(tmp_path) == []


def test_pins_share_the_files(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 2)
    job = queue.enqueue(made)
    held = queue.pinned(tmp_path, job)
    name = Path("actor", checkpoints.HF_FOLDER, checkpoints.SINGLE)
    assert (held.folder / name).samefile(made.folder / name)
    assert checkpoints.digest(held) == checkpoints.digest(made)
    queue.unpin(tmp_path, 2)
    again = queue.pinned(tmp_path, job)
    assert (again.folder / name).samefile(made.folder / name)
    queue.unpin(tmp_path, 2)
    checkpoint(tmp_path, 2, weights=b"other")
    with pytest.raises(checkpoints.CheckpointError, match="other weights"):
        queue.pinned(tmp_path, job)


def test_claims_exclude_each_other_and_end_with_their_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ares_train.loop import queue\n"
        "with queue.claim(Path(sys.argv[1]), 7) as held:\n"
        "    print('held' if held else 'taken', flush=True); sys.stdin.read()"
    )

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    first, second = start(), None
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with queue.claim(tmp_path, 7) as held:
            assert held is None
        with queue.claim(tmp_path, 8) as other:
            assert other is not None
        first.kill()
        first.wait()
        second = start()
        assert second.stdout is not None
        assert second.stdout.readline() == "held\n"
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate()


def test_claim_outlives_us_in_a_child_that_inherits_it(tmp_path: Path) -> None:
    """So an orphan's evaluation keeps its step until it has ended."""
    with queue.claim(tmp_path, 7) as held:
        assert held is not None
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(held,))
    with queue.claim(tmp_path, 7) as other:
        assert other is None
    child.communicate(b"\n")
    with queue.claim(tmp_path, 7) as free:
        assert free is not None


def test_evaluator_holds_the_claim_of_its_step(tmp_path: Path) -> None:
    """Even when the watcher has let go (or died): no second evaluation begins beside the first."""
    mark, python = tmp_path / "began", tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch {mark}\nexec sleep 60\n")
    python.chmod(0o755)
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with queue.claim(tmp_path, 7) as held:
            assert held is not None
            work = tmp_path / "work"
            running = pool.submit(child.evaluate, str(python), {}, work, held=(held,), stop=stop, say=print)
            while not mark.exists():
                assert not running.done(), running.result()
                time.sleep(0.01)
        try:
            with queue.claim(tmp_path, 7) as other:
                assert other is None
        finally:
            stop.set()
        with pytest.raises(child.Interrupted):
            running.result()
    with queue.claim(tmp_path, 7) as free:
        assert free is not None


def test_tries_belong_to_the_files(tmp_path: Path) -> None:
    job = queue.enqueue(checkpoint(tmp_path, 2))
    queue.begin(tmp_path, job)
    queue.failed(tmp_path, job, "why")
    assert queue.begin(tmp_path, job) == queue.Tries(job.stamp, 2, ("why",))
    queue.forget_begin(tmp_path, job)
    assert queue.tries(tmp_path, job).begun == 1
    other = queue.enqueue(checkpoint(tmp_path, 2, weights=b"other"))
    assert queue.tries(tmp_path, other) == queue.Tries(other.stamp)


def test_broken_files_of_the_queue_are_named(tmp_path: Path) -> None:
    queue.enqueue(checkpoint(tmp_path, 2))
    (tmp_path / queue.QUEUE / "step_2.json").write_text('{"format": 1, "run": "rm"}')
    with pytest.raises(queue.QueueError, match=r"step_2\.json"):
        queue.pending(tmp_path)
    (tmp_path / queue.STOP).write_text("not JSON")
    assert "STOP.json" in (queue.stop_requested(tmp_path) or "")
    (tmp_path / "eval/step_4.json").write_text("{")
    (tmp_path / "eval/step_6.json").symlink_to("gone")
    assert queue.new_results(tmp_path, set()) == {}


def test_results_come_to_the_trainer_once_each(tmp_path: Path) -> None:
    seen: set[str] = set()
    assert queue.new_results(tmp_path, seen) == {}
    steps.write(steps.path(tmp_path, 10), result(10, 0.5, gate=Gate("pass", "b", "p")))
    steps.write(steps.path(tmp_path, 9), result(9, status="failed"))
    assert queue.new_results(tmp_path, seen) == {"eval/mean": 0.5, "eval/gate_passed": 1.0, "eval/ckpt_step": 10.0}
    steps.write(steps.path(tmp_path, 10), result(10, 0.5, weights="eval/weights/x"))
    assert queue.new_results(tmp_path, seen) == {}
    steps.write(steps.path(tmp_path, 10), result(10, 0.75, digest="sha256:again"))
    assert queue.new_results(tmp_path, seen)["eval/mean"] == 0.75


def test_asking_costs_the_trainer_no_heavy_import() -> None:
    program = (
        "import sys; from ares_train.loop import queue\n"
        "heavy = ('torch', 'numpy', 'verl', 'transformers', 'ray', 'yaml', 'aiohttp')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


# ---------------------------------------------------------------- ranking


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "fail", "pass", "inconclusive"]), st.booleans()),
                min_size=1, max_size=8), st.sampled_from(["max", "min"]), st.randoms())  # fmt: skip
def test_best_is_the_earliest_of_the_best(
    entries: list[tuple[int, str, bool]], mode: Any, shuffle: random.Random
) -> None:
    made = [
        result(step, value / 4, gate=Gate(verdict, "b", "p") if verdict else None,  # type: ignore[arg-type]
               status="complete" if whole else "incomplete")
        for step, (value, verdict, whole) in enumerate(entries)
    ]  # fmt: skip
    allowed = [one for one in made if one.status == "complete" and (one.gate is None or one.gate.verdict != "fail")]
    shuffle.shuffle(made)
    best = ranking.best_of(made, "mean", mode)
    if not allowed:
        assert best is None
        return
    top = (max if mode == "max" else min)(one.figures["mean"] for one in allowed)
    assert best == next(one for one in allowed if one.figures["mean"] == top)
    assert ranking.best_of(made, "other", mode) is None


def test_mean_needs_every_task() -> None:
    def task(primary: str, value: float | None) -> dict[str, Any]:
        return {"metrics": {"primary": primary, primary: value}}

    assert ranking.mean({"tasks": {"a": task("accuracy", 0.5), "b": task("avg@4", 1.0)}}) == {"mean": 0.75}
    assert ranking.mean({"tasks": {"a": task("accuracy", 0.5), "b": task("accuracy", None)}}) == {}
    assert ranking.mean({"tasks": {}}) == {}


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "datasets is missing"),
        ({"datasets": "a", "dataset": "b"}, "did you mean datasets"),
        ({"datasets": "a", "max_tokens": 5}, "under `run`"),
        ({"datasets": "a", "serve": "sglang"}, "serve"),
        ({"datasets": "a", "tries": 0}, "tries"),
        ({"datasets": "a", "run": {"max-tokens": -1}}, "max-tokens"),
        ({"datasets": "a", "run": {"limt": 1}}, "did you mean limit"),
        ({"datasets": "a", "run": {"model_revision": "x"}}, "decide it"),
        ({"datasets": "a", "run": {"judge-api-key": "k"}}, "environment"),
        ({"datasets": "a", "tracker": "comet"}, "no tracker"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        settings.from_mapping(values)


def test_flags_win_over_the_file_and_the_file_over_the_trainer(tmp_path: Path) -> None:
    settings.leave(tmp_path, {"datasets": "gsm8k", "serve": "hf", "tries": 5, "on_fail": "stop"})
    (tmp_path / "eval.yaml").write_text("serve: lmdeploy\ntries: 4\nrun: {limit: 3}\n")
    made = settings.load(tmp_path, tmp_path / "eval.yaml", {"tries": 7, "tracker": ["wandb", "mlflow:1"]})
    assert (made.datasets, made.serve, made.tries, made.on_fail, made.run) == (
        "gsm8k",
        "lmdeploy",
        7,
        "stop",
        {"limit": 3},
    )
    assert made.tracker == ("wandb", "mlflow:1")
    settings.leave(tmp_path, {})
    with pytest.raises(SettingsError, match="datasets is missing"):
        settings.load(tmp_path, None, {})
    (tmp_path / "eval.yaml").write_text("- no mapping")
    with pytest.raises(SettingsError, match="name: value"):
        settings.load(tmp_path, tmp_path / "eval.yaml", {})


# ---------------------------------------------------------------- the callback


def config(run_dir: Path, **section: Any) -> Any:
    trainer = {"default_local_dir": str(run_dir), "project_name": "p", "experiment_name": "e", "logger": ["console"]}
    if section:
        trainer["eval"] = section
    whole = OmegaConf.create({"trainer": trainer, "actor_rollout_ref": {"model": {"path": "base/model"}}, "due": "???"})
    OmegaConf.set_struct(whole, True)  # as Hydra composes it
    return whole


def test_callback_has_verls_signature() -> None:
    """verl calls it by keyword; read from its source, which is quicker than importing it."""
    source = importlib.metadata.distribution("verl").locate_file("verl/trainer/ppo/checkpoint_callback.py")
    tree = ast.parse(Path(str(source)).read_text(encoding="utf-8"))
    base = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "CheckpointCallback")
    method = next(node for node in base.body if isinstance(node, ast.FunctionDef) and node.name == "on_save")
    names = [argument.arg for argument in method.args.args]
    own = AresCheckpointCallback.on_save.__code__
    assert list(own.co_varnames[: own.co_argcount]) == names


def test_callback_queues_with_what_the_trainer_knows(tmp_path: Path) -> None:
    made = checkpoint(tmp_path, 3)
    callback = AresCheckpointCallback(config=config(tmp_path, mode="queue", datasets="gsm8k", serve="hf"))
    callback.on_save(trainer=object(), global_step=3, checkpoint_dir=str(made.folder), async_save=False, more=1)
    (job,) = queue.pending(tmp_path)
    assert (job.step, job.checkpoint, job.stamp) == (3, "global_step_3", queue.stamp_of(made))
    assert job.trained["model"] == "base/model"
    assert job.trained["config"].startswith("sha256:")
    assert settings.load(tmp_path, None, {}).datasets == "gsm8k"
    other = AresCheckpointCallback(config=config(tmp_path, mode="queue", datasets="math500"))
    other.on_save(trainer=None, global_step=3, checkpoint_dir=str(made.folder))
    assert queue.pending(tmp_path)[0].trained["config"] != job.trained["config"]


def test_callback_never_raises_into_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = AresCheckpointCallback(config=config(tmp_path))
    with caplog.at_level(logging.WARNING):
        callback.on_save(trainer=None, global_step=9, checkpoint_dir=str(tmp_path / "global_step_9"))
    assert "step 9 is not queued" in caplog.text
    assert "\n" not in caplog.records[-1].getMessage()
    (tmp_path / "eval").write_text("a file where a folder must be")
    callback.on_save(trainer=None, global_step=9, checkpoint_dir=str(checkpoint(tmp_path, 9).folder))


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"mode": "sometimes"}, "mode"),
        ({"mode": "inline"}, "datasets is missing"),
        ({"mode": "queue", "datsets": "x"}, "did you mean datasets"),
        ({"mode": "inline", "datasets": "x", "tracker": ["wandb"]}, "own loggers"),
    ],
)
def test_wrong_settings_end_the_trainer_before_it_begins(
    tmp_path: Path, section: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        AresCheckpointCallback(config=config(tmp_path, **section))


# ---------------------------------------------------------------- where figures go


def test_places_of_trackers(tmp_path: Path) -> None:
    """The trainer's run where it can be shared, else one of our own beside it, the same one at every time."""
    run_dir = tmp_path / "training"
    own = {name: tracking.place(run_dir, name, "m")[1] for name in ("wandb", "mlflow", "trackio", "tensorboard")}
    assert {place.name for place in own.values()} == {"training-eval"}
    assert {place.joined for place in own.values()} == {False}
    assert own["tensorboard"].folder == run_dir / "eval/tensorboard"
    assert tracking.place(run_dir, "wandb", "m")[1] == own["wandb"]
    told = tracking.TrainerRuns(project="p", experiment="e", wandb="w1", mlflow="m1", tensorboard="/tb", trackio=True)
    steps.write(run_dir / tracking.TRAINER, told)
    found = {name: tracking.place(run_dir, name, "m")[1] for name in own}
    assert (found["mlflow"].id, found["mlflow"].joined) == ("m1", True)
    assert found["tensorboard"].folder == Path("/tb")
    assert (found["trackio"].name, found["trackio"].project) == ("e", "p")
    assert (found["wandb"].name, found["wandb"].group, found["wandb"].joined) == ("e-eval", "e", False)
    assert found["wandb"].id == own["wandb"].id
    shared = tracking.TrainerRuns(project="p", experiment="e", wandb="w1", wandb_shared=True)
    steps.write(run_dir / tracking.TRAINER, shared)
    assert tracking.place(run_dir, "wandb", "m")[1].id == "w1"
    assert tracking.place(run_dir, "mlflow:given", "m")[1].id == "given"


def test_trainer_tells_of_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = types.SimpleNamespace(id="w1", settings=types.SimpleNamespace(mode="shared"))
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=run))
    active = types.SimpleNamespace(info=types.SimpleNamespace(run_id="m1"))
    monkeypatch.setitem(sys.modules, "mlflow", types.SimpleNamespace(active_run=lambda: active))
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path / "tb"))
    tracking.write_trainer_runs(tmp_path, "p", "e", ["wandb", "mlflow", "tensorboard"])
    found = tracking.trainer_runs(tmp_path)
    assert (found.wandb, found.wandb_shared, found.mlflow) == ("w1", True, "m1")
    assert found.tensorboard == str(tmp_path / "tb")
    tracking.write_trainer_runs(tmp_path, "p", "e", ["console"])
    assert tracking.trainer_runs(tmp_path) == tracking.TrainerRuns(project="p", experiment="e")
    (tmp_path / tracking.TRAINER).write_text("{")
    assert tracking.trainer_runs(tmp_path) == tracking.TrainerRuns()


def test_queue_survives_a_writer_that_dies(tmp_path: Path) -> None:
    """What a killed process leaves half written (``.part``) is never read."""
    queue.enqueue(checkpoint(tmp_path, 2))
    (tmp_path / queue.QUEUE / ".step_4.json.part").write_text('{"form')
    (tmp_path / queue.EVAL / ".step_2.json.part").write_text('{"form')
    assert [job.step for job in queue.pending(tmp_path)] == [2]
    assert steps.read_all(tmp_path) == {}


def test_draft_of_a_pin_is_removed_once_it_is_old(tmp_path: Path) -> None:
    queue.enqueue(checkpoint(tmp_path, 2))
    drafts = [tmp_path / queue.PINNED / f".step_2-x-{name}" for name in ("old", "new")]
    for draft in drafts:
        draft.mkdir()
    os.utime(drafts[0], (1e9, 1e9))
    queue.unpin(tmp_path, 2)
    assert [draft.exists() for draft in drafts] == [False, True]


def test_several_writers_one_reader(tmp_path: Path) -> None:
    """Trainer and watchers may queue a step at once; a job is whole whenever it is looked at."""
    made, ended = checkpoint(tmp_path, 2), threading.Event()

    def write() -> None:
        while not ended.is_set():
            queue.enqueue(made, trained={"note": "x" * random.randrange(5000)})
            queue.unpin(tmp_path, 2)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        writers = [pool.submit(write) for _ in range(2)]
        try:
            for _ in range(300):
                job = queue.read_job(tmp_path, 2)
                assert job is None or set(job.trained.get("note", "x")) <= {"x"}
        finally:
            ended.set()
        assert [writer.result() for writer in writers] == [None, None]
