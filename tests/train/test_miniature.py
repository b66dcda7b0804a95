"""The miniature study: exact tasks, one policy in sampler and loss, `literal` equal to GRPO, one resumable command."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.miniature import results, rl, sft, study
from examples.miniature.arms import MAIN, SINGLE, config_of
from examples.miniature.model import log_probs, pack
from examples.miniature.rollout import roll
from examples.miniature.sample import sample
from examples.miniature.task import Task, is_right, questions
from examples.miniature.task_chain import Chain
from examples.miniature.task_search import Search
from examples.miniature.vocabulary import ANSWER, END, METHODS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder with a checkpoint of *search* that has at least learned to end its answers."""
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("study")
    study.execute(study.Run("search", "sft", "sft", 0), study.SMOKE, folder)
    return folder


@pytest.fixture(scope="module")
def search(folder: Path) -> tuple[Task, rl.Weights]:
    return Search(), torch.load(study.checkpoint_path("search", folder), weights_only=True)


@pytest.mark.parametrize("task", [Search(), Chain()])
def test_teacher_and_questions(task: Task) -> None:
    asked = questions(task, random.Random(1), 80, "train")
    assert [question.level for question in asked[:8]] == [0, 1, 2, 3, 0, 1, 2, 3]
    held_out = questions(task, random.Random(1), 80, "test")
    assert not {question.prompt for question in asked} & {question.prompt for question in held_out}
    rng = random.Random(2)
    for question in asked:
        assert len(question.prompt) <= task.prompt_length
        answer = task.trace(rng, question)
        assert len(answer) <= task.answer_length
        assert max(answer) < task.vocabulary.size
        if task.behaviour(answer).verified and task.name == "search":
            assert is_right(answer, question), "the teacher does not err about a trial"
        if task.name == "chain":
            assert is_right(answer, question), "the teacher's wrong answers are dropped"


def test_search_has_one_hit() -> None:
    task = Search()
    words = task.vocabulary
    for question in questions(task, random.Random(3), 40, "train"):
        chain = [token - words.operator(0) for token in question.prompt if token >= words.operator(0)]
        hits = []
        for candidate in question.prompt[2 : -1 - len(chain)]:
            state = candidate - words.state(0)
            for operator in chain:
                state = words.table[operator][state]
            if words.state(state) == question.prompt[1]:
                hits.append(candidate)
        assert hits == [question.answer]


def test_behaviour_is_counted() -> None:
    words = Search.vocabulary
    a, b, operator = words.state(3), words.state(4), words.operator(0)
    miss, hit = [a, operator, words.state(0), words.diff], [b, operator, words.state(1), words.same]
    did = Search().behaviour([*miss, *hit, *hit, ANSWER, b, END])
    assert (did.useful, did.rechecks, did.verified) == (2, 1, True)
    did = Search().behaviour([*miss, ANSWER, b, END])
    assert (did.useful, did.rechecks, did.verified) == (1, 0, False)

    slow, _, fast = Chain.vocabulary.words(METHODS)
    step = [Chain.vocabulary.operator(0), Chain.vocabulary.state(0)]
    did = Chain().behaviour([fast, *step, *step, slow, *step, Chain.vocabulary.same, ANSWER, step[1], END])
    assert (did.useful, did.rechecks, did.verified) == (2, 1, True)


def test_sampler_and_loss_see_the_same_policy(search: tuple[Task, rl.Weights]) -> None:
    """Log-probabilities from the cache (left-padded, rows dropped) equal a plain forward's; prefixes are kept."""
    task, weights = search
    model = sft.new_model(task)
    model.load_state_dict(weights)
    asked = questions(task, random.Random(4), 24, "train")
    rng = random.Random(5)
    prefixes = [task.trace(rng, question)[: rng.randrange(4)] for question in asked]
    answers = sample(model, [q.prompt for q in asked], 40, torch.Generator().manual_seed(0), prefixes)
    tokens, own = pack([q.prompt for q in asked], answers.tokens)
    with torch.no_grad():
        plain = log_probs(model, tokens, own)
    torch.testing.assert_close(answers.log_prob[answers.mask], plain, atol=1e-4, rtol=0)
    for answer, prefix, cut in zip(answers.tokens, prefixes, answers.truncated, strict=True):
        assert answer[: len(prefix)] == prefix
        assert (answer[-1] != END) == bool(cut)


def test_budget_branching_fills_each_group(search: tuple[Task, rl.Weights]) -> None:
    task, weights = search
    model = sft.new_model(task)
    model.load_state_dict(weights)
    config = config_of(MAIN["aepo_adaptive"], task.answer_length)
    asked = questions(task, random.Random(6), 4, "train")
    batch = roll(model, task, asked, 8, config, rl.AEPOState(), torch.Generator().manual_seed(0))
    rollouts = batch.rollouts
    assert np.bincount(rollouts.question).tolist() == [8] * 4
    forks = np.flatnonzero(rollouts.parent >= 0)
    assert len(forks)
    for fork in forks:
        parent, at = rollouts.parent[fork], rollouts.fork_at[fork]
        assert batch.tokens[fork][:at] == batch.tokens[parent][:at]
        assert not rollouts.own[fork, :at].any()


def test_literal_is_grpo_to_the_last_bit(search: tuple[Task, rl.Weights]) -> None:
    """Lambda with the batch's own mean as target is zero; a shaped arm does move elsewhere."""
    task, weights = search
    settings = rl.RLSettings(steps=2, questions=4)

    def trained(arm: dict[str, object]) -> list[torch.Tensor]:
        model, _ = rl.train(task, weights, config_of(arm, task.answer_length, 0.4), settings, seed=0)
        return list(model.state_dict().values())

    grpo = trained(MAIN["grpo"])
    assert all(torch.equal(a, b) for a, b in zip(grpo, trained(SINGLE["literal"]), strict=True))
    shaped = {**MAIN["aepo_adaptive"], "branch": {"mode": "off"}}
    assert not all(torch.equal(a, b) for a, b in zip(grpo, trained(shaped), strict=True))


def test_paired_interval() -> None:
    """A constant paired difference has an interval of no width, however much seeds and questions differ."""
    rng = np.random.default_rng(0)
    level = np.tile(np.arange(4), 25)
    base = rng.normal(size=(5, 1)) + rng.normal(size=(5, 100)) * 3
    found = results.interval([base - 0.5, base], level, (0, 1), lambda a, b: a - b)
    assert (found.value, found.low, found.high) == pytest.approx((-0.5, -0.5, -0.5))
    alone = results.interval([base], level, (0, 1), lambda a: a)
    assert alone.low < alone.value < alone.high


def test_one_command_does_what_is_not_done(folder: Path) -> None:
    """`--smoke` runs every stage but the checkpoint that is there, writes tables and pictures; a lost file is known."""
    checkpoint = study.checkpoint_path("search", folder).stat().st_mtime_ns
    command = [sys.executable, "-m", "examples.miniature", "--output", str(folder), "--smoke", "--seeds", "1"]
    command += ["--task", "search", "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert study.checkpoint_path("search", folder).stat().st_mtime_ns == checkpoint
    assert all(found for _, found in study.progress(["search"], 1, study.SMOKE, folder))
    assert "aepo_adaptive" in (folder / "tables.md").read_text()
    assert (folder / "search-training.svg").exists()

    grpo = folder / "search" / "main" / "grpo-s0.json"
    scores = json.loads(grpo.read_text())["scores"]
    assert json.loads((folder / "search" / "single" / "literal-s0.json").read_text())["scores"] == scores

    grpo.unlink()
    still_open = [name for name, found in study.progress(["search"], 1, study.SMOKE, folder) if not found]
    assert still_open == ["search/main/grpo-s0"]
    study.execute(study.Run("search", "main", "grpo", 0), study.SMOKE, folder)
    assert json.loads(grpo.read_text())["scores"] == scores, "a run made again is the same"


def test_other_settings_are_not_done(tmp_path: Path) -> None:
    run = study.Run("search", "main", "grpo", 0)
    path = tmp_path / f"{run.name}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"settings": study.settings_of(run, study.SMOKE)}))
    assert study.result_of(run, study.SMOKE, tmp_path) is not None
    assert study.result_of(run, study.FULL, tmp_path) is None
