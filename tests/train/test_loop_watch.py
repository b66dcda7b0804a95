"""The watcher on runs that were never trained: what it publishes, and what it does when something goes wrong.

ares-eval is real and asks loopback servers; no weights are loaded.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ares_eval.records import load_run
from ares_eval.series import steps
from ares_train import checkpoints, cli
from ares_train.loop import queue
from ares_train.loop.callback import AresCheckpointCallback
from tests import loopback
from tests.train import loop_fakes
from tests.train.loop_fakes import ANSWERS, ROOT, Loop, checkpoint


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, loopback.Server]]:
    with loop_fakes.servers() as found:
        yield found


@pytest.fixture
def loop(started: dict[str, loopback.Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = loop_fakes.loop(tmp_path, started)
    monkeypatch.setenv("LOOP", str(made.plans))
    for server in started.values():
        server.reset()
    return made


def saved(run_dir: Path, step: int, **options: Any) -> str:
    """A checkpoint that the trainer's callback was told of; its digest."""
    made = checkpoint(run_dir, step, **options)
    AresCheckpointCallback().on_save(trainer=None, global_step=step, checkpoint_dir=str(made.folder), async_save=False)
    return checkpoints.digest(made)


# ---------------------------------------------------------------- what is published


def test_scores_belong_to_the_weights(loop: Loop) -> None:
    digests = {step: saved(loop.run_dir, step, right=step != 4) for step in (2, 4)}
    done = loop.watch()
    assert [result.step for result in done.results] == [2, 4]
    for step, right in ((2, 1.0), (4, 0.0)):
        result = loop.result(step)
        assert result["status"] == "complete"
        assert result["digest"] == digests[step]
        assert result["figures"]["gsm8k/accuracy"] == result["figures"]["mean"] == right
        assert result["figures"]["gsm8k/n"] == len(ANSWERS)
        assert result["trained"]["ares"]
        run = load_run(loop.run_dir / result["run"])
        assert run.manifest["revision"] == digests[step]
        assert sum(1 for _ in run.records()) == len(ANSWERS)
    assert loop.result(2)["threshold"] == loop.result(4)["threshold"] != None  # noqa: E711
    assert [entry["revision"] for entry in loop.evaluated()] == [digests[2], digests[4]]
    lines = [json.loads(line) for line in (loop.run_dir / "eval/metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["data"]["eval/gsm8k/accuracy"], line["data"]["eval/ckpt_step"]) for line in lines] == [
        (2, 1.0, 2.0),
        (4, 0.0, 4.0),
    ]


def test_nothing_is_evaluated_twice(loop: Loop) -> None:
    saved(loop.run_dir, 2)
    loop.watch()
    before = loop.result(2)
    saved(loop.run_dir, 4)
    assert [result.step for result in loop.watch().results] == [4]
    assert loop.watch().results == ()
    assert loop.result(2) == before
    assert len(loop.evaluated()) == 2
    assert sorted(loop.asked()) == sorted([*ANSWERS, *ANSWERS])


def test_best_and_kept_weights(loop: Loop) -> None:
    """Of equal ones the earlier; its weights are held and linked, the others' are let go."""
    for step in (2, 4, 6):
        saved(loop.run_dir, step, right=step > 2)
    loop.watch()
    best = json.loads((loop.run_dir / "eval/best.json").read_text())
    assert (best["step"], best["score"]) == (4, {"metric": "mean", "value": 1.0})
    link = loop.run_dir / "eval/best"
    assert (link / checkpoints.SINGLE).read_bytes() == b"weights of step 4"
    assert [place.name.split("-")[0] for place in (loop.run_dir / "eval/pinned").glob("step_*")] == ["step_4"]
    loop.watch(best_metric="gsm8k/completion_tokens_mean", best_mode="min", keep="none")
    assert (
        json.loads((loop.run_dir / "eval/best.json").read_text())["score"]["metric"] == "gsm8k/completion_tokens_mean"
    )
    assert not link.exists()
    assert not list((loop.run_dir / "eval/pinned").glob("step_*"))
    loop.watch(best_metric="gsm8k/acuracy")
    assert "did you mean gsm8k/accuracy" in loop.lines[-1]


def test_gate_stop_and_metrics_for_the_trainer(loop: Loop) -> None:
    for step, right in ((2, True), (4, False), (6, True)):
        saved(loop.run_dir, step, right=right)
    assert queue.stop_requested(loop.run_dir) is None
    loop.watch(baseline="first", policy=loop.policy, on_fail="stop")
    assert loop.result(2)["gate"] is None
    gate = loop.result(4)["gate"]
    assert (gate["verdict"], gate["baseline"]) == ("fail", "step 2")
    assert any(line.startswith("broken: gsm8k: accuracy") for line in gate["findings"])
    assert loop.result(6)["gate"]["verdict"] != "fail"
    reason = queue.stop_requested(loop.run_dir)
    assert reason is not None
    assert "step 4" in reason
    assert "STOP.json" in reason
    assert "\n" not in reason
    seen: set[str] = set()
    found = [queue.new_results(loop.run_dir, seen) for _ in range(4)]
    assert [metrics.get("eval/ckpt_step") for metrics in found] == [2.0, 4.0, 6.0, None]
    assert [metrics.get("eval/gsm8k/accuracy") for metrics in found] == [1.0, 0.0, 1.0, None]
    assert found[1]["eval/gate_passed"] == 0.0
    (loop.run_dir / "eval/STOP.json").unlink()
    loop.watch(baseline="first", policy=loop.policy, on_fail="stop")
    assert queue.stop_requested(loop.run_dir) is None, "who removed the file wants to go on"


def test_stop_is_an_exit_code(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    saved(loop.run_dir, 2)
    assert cli.main(loop.command("--baseline", "first")) == 0
    saved(loop.run_dir, 4, right=False)
    assert cli.main(loop.command("--baseline", "step:2", "--policy", loop.policy, "--on-fail", "stop")) == 1
    shown = capsys.readouterr().out
    assert "step 4: complete" in shown
    assert "gate: fail (against step 2)" in shown


def test_a_baseline_step_without_a_result_is_told(loop: Loop) -> None:
    for step in (2, 4):
        saved(loop.run_dir, step)
    loop.watch(baseline="step:3", on_fail="stop")
    assert loop.result(2)["gate"] is None
    gate = loop.result(4)["gate"]
    assert (gate["verdict"], gate["findings"]) == ("incomplete", ["step 3 has no complete result to compare with"])
    assert any("gate: incomplete (against step:3): step 3 has no complete result" in line for line in loop.lines)


# ---------------------------------------------------------------- trackers


def test_trainers_run_gets_the_figures(loop: Loop) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = loop.run_dir.parent / "trainers-own"
    (loop.run_dir / "tracker.json").write_text(json.dumps({"experiment": "e", "tensorboard": str(folder)}))
    saved(loop.run_dir, 2)
    loop.watch()
    assert not folder.exists()
    saved(loop.run_dir, 4, right=False)
    loop.watch(tracker=["tensorboard"])
    loop.watch(tracker=["tensorboard"])
    events = EventAccumulator(str(folder))
    events.Reload()
    logged = [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors("eval/gsm8k/accuracy")]
    assert logged in ([(2, 1.0), (4, 0.0)], [(2, 1.0), (4, pytest.approx(0.0))])
    assert loop.result(2)["logged"] == ["tensorboard"]
    seen: set[str] = set()
    assert queue.new_results(loop.run_dir, seen)["eval/ckpt_step"] == 2.0
    assert queue.new_results(loop.run_dir, seen) == {}, "what its watcher logs is not the trainer's to log"


# ---------------------------------------------------------------- faults of the evaluation


def test_failing_evaluation_is_tried_again(loop: Loop) -> None:
    saved(loop.run_dir, 2)
    loop.plan("fail", 4, 4)
    loop.watch()
    result = loop.result(2)
    assert (result["status"], result["tries"], result["figures"]["mean"]) == ("complete", 3, 1.0)
    assert len(loop.evaluated()) == 3


def test_failure_is_recorded_and_the_watcher_goes_on(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    saved(loop.run_dir, 2)
    saved(loop.run_dir, 4)
    loop.plan("fail", 4)
    assert cli.main(loop.command("--tries", "1")) == 3
    failed = loop.result(2)
    assert (failed["status"], failed["tries"]) == ("failed", 1)
    assert "planned failure 4" in failed["reason"]
    assert loop.result(4)["status"] == "complete"
    assert json.loads((loop.run_dir / "eval/best.json").read_text())["step"] == 4
    assert cli.main(loop.command("--tries", "1")) == 0
    assert len(loop.evaluated()) == 2, "a recorded failure is not tried again"
    (loop.run_dir / "eval/step_2.json").unlink()
    loop.watch(tries=1)
    assert loop.result(2)["status"] == "complete", "unless it is removed"
    assert "given up" in capsys.readouterr().out


def test_unusable_evaluator_ends_the_watcher(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    saved(loop.run_dir, 2)
    assert cli.main(loop.command("--datasets", "no_such_task")) == 2
    assert "no_such_task" in capsys.readouterr().err
    loop.plan("fail", 2)
    assert cli.main(loop.command()) == 2
    assert "planned failure 2" in capsys.readouterr().err
    assert cli.main(loop.command()) == 0
    assert loop.result(2)["status"] == "complete"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--baseline", "none-of-that-name"], "no baseline"),
        (["--policy", "none-of-that-name"], "no policy"),
        (["--tracker", "comet"], "no tracker"),
        (["--serve-args", '"unbalanced'], "no closing quotation"),
        (["--eval-python", "/no/such/python"], "cannot be run"),
    ],
)
def test_wrong_words_are_refused_at_once(
    loop: Loop, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(loop.command(*words)) == 2
    assert complaint in capsys.readouterr().err


# ---------------------------------------------------------------- faults around the weights


def test_pruned_while_it_is_evaluated(loop: Loop) -> None:
    digest = saved(loop.run_dir, 2)
    loop.plan("prune", loop.run_dir / "global_step_2")
    loop.watch()
    assert not (loop.run_dir / "global_step_2").exists()
    assert loop.result(2)["digest"] == digest
    assert (loop.run_dir / "eval/best" / checkpoints.SINGLE).read_bytes() == b"weights of step 2"


def test_pruned_before_it_is_taken_up(loop: Loop) -> None:
    digest = saved(loop.run_dir, 2)
    shutil.rmtree(loop.run_dir / "global_step_2")
    loop.watch()
    assert loop.result(2)["digest"] == digest


def test_trained_again_under_the_same_step(loop: Loop) -> None:
    saved(loop.run_dir, 2)
    old = saved(loop.run_dir, 4, right=False)
    loop.watch(baseline="first", policy=loop.policy, on_fail="stop")
    assert queue.stop_requested(loop.run_dir)
    new = saved(loop.run_dir, 4, right=True, weights=b"better weights")
    assert new != old
    loop.watch(baseline="first", policy=loop.policy, on_fail="stop")
    assert loop.result(4)["digest"] == new
    assert loop.result(4)["figures"]["mean"] == 1.0
    kept = json.loads(next((loop.run_dir / "eval/superseded").glob("step_4-*.json")).read_text())
    assert (kept["digest"], kept["figures"]["mean"]) == (old, 0.0)
    assert queue.stop_requested(loop.run_dir) is None, "those weights are gone"
    assert [entry["revision"] for entry in loop.evaluated()][1:] == [old, new]


def test_saved_again_while_it_is_evaluated(loop: Loop) -> None:
    """The hard link sees the new weights: that evaluation gives no result, the next one does."""
    saved(loop.run_dir, 2)
    loop.plan("resave", loop.run_dir / f"global_step_2/actor/{checkpoints.HF_FOLDER}/{checkpoints.SINGLE}")
    done = loop.watch()
    assert done.results == ()
    assert [job.step for job in done.left] == [2]
    assert not (loop.run_dir / "eval/step_2.json").exists()
    new = saved(loop.run_dir, 2, weights=b"weights of another training")
    loop.watch()
    assert (loop.result(2)["digest"], loop.result(2)["tries"]) == (new, 1)


def test_new_files_with_the_old_weights(loop: Loop) -> None:
    """Copied, or trained again to the bit: the result stands."""
    saved(loop.run_dir, 2)
    loop.watch()
    before = loop.result(2)
    copy = loop.run_dir.parent / "copy"
    shutil.copytree(loop.run_dir / "global_step_2", copy, copy_function=shutil.copy)
    shutil.rmtree(loop.run_dir / "global_step_2")
    copy.rename(loop.run_dir / "global_step_2")
    for file in (loop.run_dir / "global_step_2").rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    loop.watch()
    after = loop.result(2)
    assert after.pop("stamp") != before.pop("stamp")
    assert after == before
    assert len(loop.evaluated()) == 1
    assert (loop.run_dir / "eval/best" / checkpoints.SINGLE).exists()


def test_without_a_callback_checkpoints_are_found(loop: Loop) -> None:
    """As with verl's SFT trainer, or a trainer that died between saving and queueing."""
    made = checkpoint(loop.run_dir, 2)
    unfinished = loop.run_dir / "global_step_4/actor/huggingface"
    unfinished.mkdir(parents=True)
    (unfinished / "config.json").write_text("{}")
    loop.watch()
    assert loop.result(2)["digest"] == checkpoints.digest(made)
    assert not (loop.run_dir / "eval/step_4.json").exists()


def test_asynchronous_save_is_waited_for(loop: Loop) -> None:
    made = checkpoint(loop.run_dir, 2)
    weights = made.actor / checkpoints.HF_FOLDER / checkpoints.SINGLE
    content = weights.read_bytes()
    weights.unlink()
    (loop.run_dir / checkpoints.TRACKER).unlink()
    AresCheckpointCallback().on_save(None, global_step=2, checkpoint_dir=str(made.folder), async_save=True)
    done = loop.watch()
    assert [job.step for job in done.left] == [2]
    assert any("still being written" in line for line in loop.lines)
    weights.write_bytes(content)
    assert [job.step for job in loop.watch().left] == [2], "nobody says that it is complete"
    (loop.run_dir / checkpoints.TRACKER).write_text("2")
    loop.watch()
    assert loop.result(2)["digest"] == checkpoints.digest(made)


# ---------------------------------------------------------------- death and company

ALIKE = ("format", "step", "status", "digest", "stamp", "checkpoint", "model", "run", "figures", "threshold", "gate")
"""What of a result does not depend on how it came about."""


def started_watcher(loop: Loop, *words: str, module: str = "ares_train.cli") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", module, *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, loopback.Server]]:
    with loop_fakes.servers(latency=0.05) as found:
        yield found


@pytest.mark.parametrize("place", ["merged", "serving", "evaluated", "written", "logged"])
def test_killed_watcher(
    place: str, slow: dict[str, loopback.Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one goes on: the same result, no question asked again that had its answer, nothing left undone."""
    loop = loop_fakes.loop(tmp_path, slow, eval_threads=1)
    monkeypatch.setenv("LOOP", str(loop.plans))
    for server in slow.values():
        server.reset()
    saved(loop.run_dir, 2)
    words = loop.command("--tracker", "tensorboard")
    killed = started_watcher(loop, place, *words, module="tests.train.loop_killed")
    said = killed.communicate(timeout=120)[0]
    assert killed.returncode == -signal.SIGKILL, said
    again = started_watcher(loop, *words)
    said = again.communicate(timeout=120)[0]
    assert again.returncode == 0, said
    result, asked = loop.result(2), loop.asked()
    assert result["figures"]["gsm8k/accuracy"] == 1.0
    assert result["logged"] == ["tensorboard"]
    assert json.loads((loop.run_dir / "eval/best.json").read_text())["step"] == 2
    assert set(asked) == set(ANSWERS)
    assert len(asked) <= len(ANSWERS) + (place == "serving"), "at most what was in flight is asked twice"
    assert len(loop.evaluated()) == (2 if place in ("serving", "evaluated") else 1)
    if place == "serving":
        shutil.copytree(loop.run_dir / "global_step_2", loop.run_dir.parent / "again/global_step_2")
        fresh = dataclasses.replace(loop, run_dir=loop.run_dir.parent / "again", lines=[])
        (fresh.run_dir / checkpoints.TRACKER).write_text("2")
        fresh.watch()
        assert {key: fresh.result(2)[key] for key in ALIKE} == {key: result[key] for key in ALIKE}


def test_two_watchers_share_a_run(loop: Loop) -> None:
    for step in (2, 4, 6):
        saved(loop.run_dir, step)
    both = [started_watcher(loop, *loop.command()) for _ in range(2)]
    said = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(loop.evaluated()) == 3
    assert len({entry["revision"] for entry in loop.evaluated()}) == 3
    assert sorted(steps.read_all(loop.run_dir)) == [2, 4, 6]


def test_interrupted_watcher_keeps_what_it_has(
    slow: dict[str, loopback.Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = loop_fakes.loop(tmp_path, slow, eval_threads=1)
    monkeypatch.setenv("LOOP", str(loop.plans))
    for server in slow.values():
        server.reset()
    saved(loop.run_dir, 2)
    watcher = started_watcher(loop, *loop.command())
    while not any(file.stat().st_size for file in loop.run_dir.glob("eval/runs/*/*/samples.jsonl")):
        assert watcher.poll() is None, watcher.communicate()[0]
        time.sleep(0.02)
    watcher.send_signal(signal.SIGINT)
    said = watcher.communicate(timeout=60)[0]
    assert watcher.returncode == 130, said
    assert "goes on from here" in said
    assert not (loop.run_dir / "eval/step_2.json").exists()
    loop.watch()
    assert (loop.result(2)["tries"], loop.result(2)["figures"]["mean"]) == (1, 1.0)
    assert sorted(loop.asked()) == sorted(ANSWERS), "what was in flight was waited for"
