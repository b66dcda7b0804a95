"""Planted truth through whole runs: what was put into the records comes out of the analysis."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ares_eval import cli
from ares_eval.analysis import summary
from ares_eval.analysis.hwe import DEFAULT_WINDOW
from ares_eval.analysis.observe import Options, observe
from ares_eval.analysis.tokens import BATCH_TOKENS, TokenOptions
from ares_eval.records import Run, RunError
from tests.analysis.synthetic import Reply, run_of

TAU = 2.0


def entropies(length: int, spikes: int, rng: np.random.Generator) -> np.ndarray:
    """Low entropy everywhere but in ``spikes`` groups of 4 high tokens, apart from each other: with w = 4 and tau = 2
    each makes exactly one HWE position, since its neighbours' windows mix in low tokens (mean at most 1.9)."""
    values = rng.uniform(0.0, 0.2, size=length)
    for i in range(spikes):
        at = 10 + 12 * i
        values[at : at + 4] = 2.4
    return values


def planted(rng: np.random.Generator, questions: int = 120, draws: int = 4) -> list[Reply]:
    """Level 1 to 5; E[length] = 200 + 100 (level - 1) tokens; 2 (level - 1) HWE positions; fewer right where hard."""
    made = []
    for q in range(questions):
        level = q % 5 + 1
        for draw in range(draws):
            length = int(200 + 100 * (level - 1) + rng.integers(-30, 31))
            right = bool(rng.random() < 1.1 - 0.2 * level)
            made.append(
                Reply(
                    f"q{q:03}",
                    draw,
                    right=right,
                    text=f"\\boxed{{{1 if right else 2}}}",
                    level=f"Level {level}",
                    entropy=entropies(length, 2 * (level - 1), rng),
                )
            )
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_of(tmp_path_factory.mktemp("planted") / "run", planted(np.random.default_rng(0)))


FIXED = Options(tokens=TokenOptions(tau_value=TAU), resamples=300)


@pytest.fixture(scope="module")
def analysis(run: Run) -> summary.Analysis:
    return summary.analyse(run, FIXED)


def test_planted_slopes_and_counts_are_recovered(analysis: summary.Analysis) -> None:
    (task,) = analysis.tasks
    assert (task.draws, task.questions) == (480, 120)
    assert task.difficulty is not None and task.difficulty.kind == "level"
    assert task.difficulty.tiers == {"easy": 192, "medium": 96, "hard": 192}
    curve = task.adaptivity
    assert curve is not None
    slope = curve.length_slope
    assert slope is not None and slope.low is not None and slope.high is not None
    assert slope.low <= 400 <= slope.high and slope.high - slope.low < 20
    assert curve.length_correlation is not None and curve.length_correlation.value > 0.95
    assert curve.hwe_slope is not None and curve.hwe_slope.value == pytest.approx(8)
    assert [point.hwe.value for point in curve.rungs if point.hwe] == [0, 2, 4, 6, 8]
    assert [point.name for point in curve.rungs] == [f"Level {i}" for i in range(1, 6)]
    assert curve.length_ratio is not None and curve.length_ratio.value == pytest.approx(550 / 250, rel=0.02)


def test_planted_regression_of_length_on_hwe(analysis: summary.Analysis) -> None:
    """Length is 200 + 50 N_HE by construction."""
    hwe = analysis.tasks[0].hwe
    assert hwe is not None and hwe.regression is not None
    assert hwe.regression.slope.value == pytest.approx(50, abs=1)
    assert hwe.regression.intercept == pytest.approx(200, abs=5)
    assert hwe.count.value == pytest.approx(4)
    assert hwe.windows is not None and hwe.windows.value == pytest.approx(4)
    # Levels 2 to 5 have positions, the first at token 10.
    assert hwe.first is not None and hwe.first.value == 10
    assert hwe.any is not None and hwe.any.value == pytest.approx(0.8)


def test_the_analysis_is_written_and_read_back_whole(analysis: summary.Analysis, tmp_path: Path) -> None:
    path = tmp_path / "analysis.json"
    summary.write(analysis, path)
    assert summary.read(path) == analysis
    assert "NaN" not in path.read_text()
    path.write_text('{"format": 1}')
    with pytest.raises(RunError, match="no analysis"):
        summary.read(path)


def test_the_order_of_the_file_changes_nothing(run: Run, analysis: summary.Analysis, tmp_path: Path) -> None:
    replies = planted(np.random.default_rng(0))
    shuffled = [replies[i] for i in np.random.default_rng(9).permutation(len(replies))]
    other = summary.analyse(run_of(tmp_path / "run", shuffled), FIXED)
    assert other == dataclasses.replace(analysis, run="run")


def test_the_papers_threshold_is_the_mean_of_reply_percentiles(run: Run) -> None:
    seen = observe(run, Options(answers=False), study=False)
    assert seen.tokens is not None
    wanted = np.mean([np.quantile(np.float32(r.entropy), 0.95) for r in planted(np.random.default_rng(0))])
    assert np.unique(seen.tokens.tau) == pytest.approx([wanted], rel=1e-6)


def test_batches_do_not_change_counts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = observe(run, Options(answers=False), study=False).tokens
    monkeypatch.setattr("ares_eval.analysis.tokens.BATCH_TOKENS", 1000)
    parts = observe(run, Options(answers=False), study=False).tokens
    assert whole is not None and parts is not None
    np.testing.assert_array_equal(whole.hwe, parts.hwe)
    np.testing.assert_array_equal(whole.tau, parts.tau)
    assert BATCH_TOKENS > 1000


def test_without_log_probs_entropy_is_not_recorded_and_the_rest_is(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [Reply(f"q{i}", draw, length=100 + i) for i in range(10) for draw in range(2)])
    found = summary.analyse(run, Options(resamples=100))
    assert found.entropy is None and found.window_study is None
    assert "--logprobs" in found.not_recorded["entropy"]
    (task,) = found.tasks
    assert task.hwe is None and "--logprobs" in task.not_recorded["hwe"]
    assert task.lengths.completion is not None and task.lengths.completion.mean.value == pytest.approx(104.5)
    assert task.difficulty is not None and task.difficulty.kind == "pass_rate"


def test_one_draw_without_levels_has_no_difficulty_and_says_why(tmp_path: Path) -> None:
    found = summary.analyse(run_of(tmp_path / "run", [Reply("a"), Reply("b")]), Options(resamples=100))
    assert found.tasks[0].adaptivity is None
    assert "--samples" in found.tasks[0].not_recorded["difficulty"]


def test_draws_that_were_not_measured_are_left_out(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [Reply("a"), Reply("b", cause="server")])
    assert (found := summary.analyse(run, Options(resamples=100))).measured == 1
    assert found.not_measured == 1
    with pytest.raises(RunError, match="nothing to analyse"):
        summary.analyse(run_of(tmp_path / "none", [Reply("b", cause="server")]))


def test_think_and_answer_parts(tmp_path: Path) -> None:
    """High entropy in the thinking part only; its boundary is the token that closes it."""
    tokens = ("<think>", *[" hm"] * 20, "</think>", *[" so"] * 10, " 1")
    entropy = [0.0, *[3.0] * 20, 0.0, *[0.0] * 11]
    reply = Reply("a", entropy=entropy, tokens=tokens, text="".join(tokens))
    figures = observe(run_of(tmp_path / "run", [reply]), FIXED, study=False).tokens
    assert figures is not None
    assert figures.think_tokens.tolist() == [22] and figures.answer_tokens.tolist() == [11]
    assert figures.hwe.tolist() == figures.think_hwe.tolist() == [19]  # starts 0 and 18 reach 9/4 nats as well
    assert figures.answer_hwe.tolist() == [0]
    part = Options(tokens=TokenOptions(tau_value=TAU, part="answer"))
    figures = observe(run_of(tmp_path / "other", [reply]), part, study=False).tokens
    assert figures is not None and figures.tokens.tolist() == [11] and figures.hwe.tolist() == [0]


def test_traces_of_two_kinds_are_not_mixed(run: Run, tmp_path: Path) -> None:
    from ares_eval.records import RunWriter, load_run
    from tests.analysis.synthetic import record_of, trace_of

    folder = tmp_path / "run"
    run_of(folder, [Reply(f"q{i}", entropy=[1.0] * 8) for i in range(3)])
    odd = Reply("odd", entropy=[1.0] * 8)
    trace = trace_of(odd)
    assert trace is not None
    with RunWriter(folder) as writer:
        writer.append(record_of(odd), dataclasses.replace(trace, top=5))
    seen = observe(load_run(folder), FIXED, study=False)
    assert seen.tokens is not None
    assert int(np.isnan(seen.tokens.hwe).sum()) == 1
    assert "not mixed" in seen.notes[0]


# ---------------------------------------------------------------- interaction and AdaCS's target


def test_planted_interaction(tmp_path: Path) -> None:
    """Easy: many HWE positions go with wrong replies; hard: with right ones, as in the paper's figure 4b."""
    rng = np.random.default_rng(4)
    replies = []
    for q in range(80):
        level = "easy" if q % 2 else "hard"
        for draw in range(4):
            many = draw % 2
            right = rng.random() < ((0.9 - 0.5 * many) if level == "easy" else (0.1 + 0.5 * many))
            entropy = entropies(150, 8 if many else 2, rng)
            replies.append(Reply(f"q{q}", draw, right=bool(right), level=level, entropy=entropy))
    (task,) = summary.analyse(run_of(tmp_path / "run", replies), FIXED).tasks
    assert task.adaptivity is not None
    easy, hard = task.adaptivity.interaction
    assert (easy.tier, hard.tier) == ("easy", "hard")
    assert easy.threshold == hard.threshold == 5.0
    assert easy.difference is not None and hard.difference is not None
    assert easy.difference.value < -0.3 and hard.difference.value > 0.3
    assert easy.difference.high is not None and easy.difference.high < 0
    assert easy.hwe_right is not None and easy.hwe_wrong is not None
    assert easy.hwe_right.value < easy.hwe_wrong.value


def test_adacs_target(tmp_path: Path) -> None:
    """L(0) = 800 and L(1) = 200, so L(1/2) = 500; replies of pass rate 1/2 have 600 tokens, a fifth too many."""
    replies = []
    for q in range(30):
        solved = (0, 1, 2)[q % 3]
        length = {0: 800, 1: 600, 2: 200}[solved]
        replies += [Reply(f"q{q}", draw, right=draw < solved, length=length) for draw in range(2)]
    options = Options(difficulty="pass_rate", cross_fit="same_draws", resamples=100)
    (task,) = summary.analyse(run_of(tmp_path / "run", replies), options).tasks
    assert task.adaptivity is not None
    fit = task.adaptivity.target
    assert fit is not None
    assert (fit.length_at_0, fit.length_at_1, fit.monotone) == (800, 200, True)
    assert [(p.pass_rate, p.target, p.median) for p in fit.points] == [(0, 800, 800), (0.5, 500, 600), (1, 200, 200)]
    assert fit.points[1].relative == pytest.approx(0.2)
    assert fit.deviation.value == pytest.approx(0.2 / 3)


# ---------------------------------------------------------------- the command


def test_analyze_prints_tables_and_writes_files(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", str(run.folder), "--tau", str(TAU), "--resamples", "100", "--csv", str(tmp_path / "csv")]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "Does thinking follow difficulty?" in out
    assert f"HWE: window {DEFAULT_WINDOW}, tau 2.0000 nats (given), low estimate, top 20" in out
    assert summary.read(run.folder / "analysis.json").tasks[0].name == "planted"
    rows = (tmp_path / "csv" / "draws.csv").read_text().splitlines()
    assert len(rows) == 481
    assert rows[0].startswith("task,sample,draw,verdict,level,tier")
    rungs = (tmp_path / "csv" / "rungs.csv").read_text().splitlines()
    assert rungs[0].split(",")[5:8] == ["accuracy", "accuracy_low", "accuracy_high"]


def test_analyze_json_is_the_file(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["analyze", str(run.folder), "--json", "--no-answers", "--resamples", "100"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run.folder / "analysis.json").read_text())


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--tau", "mean"], "per_question"),
        (["--window", "65"], "1 to 64"),
        (["--percentile", "101"], "between 0 and 100"),
        (["--difficulty", "hard"], "run:FOLDER"),
        (["--difficulty", "run:"], "run:FOLDER"),
        (["--difficulty", "run:/nowhere"], "no run"),
        (["--resamples", "5"], "at least 100"),
        (["--trigger-words", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_options_are_refused(run: Run, more: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["analyze", str(run.folder), "--no-answers", *more]) == 2
    assert complaint in capsys.readouterr().err


def test_no_run_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["analyze", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
