"""Comparing runs: what is paired, what is refused, and that planted flips, lengths and depths come out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ares_eval.analysis.scored_traces import scored_writer
from ares_eval.cli import main
from ares_eval.compare import Comparison, Mismatch, compare_paths, report
from ares_eval.compare.comparison import adjust_all
from ares_eval.compare.tiers import tiers
from ares_eval.foreign import load_any
from ares_eval.records import load_run
from ares_eval.types import TokenTrace
from tests.comparison_runs import Row, write_run


def rows(right: str, task: str = "t", **more: object) -> list[Row]:
    """Rows q0, q1, ...: + for correct, - for incorrect, ? for unverifiable, ! for not measured."""
    words = {"+": "correct", "-": "incorrect", "?": "unverifiable", "!": "timeout"}
    return [Row(f"q{i:03d}", words[c], task=task, **more) for i, c in enumerate(right)]  # type: ignore[arg-type]


def compared(folder: Path, a: list[Row], b: list[Row], **options: object) -> Comparison:
    return compare_paths(write_run(folder / "a", a), write_run(folder / "b", b), **options)  # type: ignore[arg-type]


def test_planted_flips_are_found_with_their_lines(tmp_path: Path) -> None:
    a = rows("+" * 40 + "-" * 20)
    b = list(reversed(rows("+" * 35 + "-" * 5 + "+" * 2 + "-" * 18)))
    (task,) = compared(tmp_path, a, b).tasks
    assert [pair.sample for pair in task.lost] == [f"q{i:03d}" for i in range(35, 40)]
    assert [pair.sample for pair in task.gained] == ["q040", "q041"]
    assert task.difference is not None and task.difference.mean == pytest.approx(-3 / 60)
    assert task.p_method == "mcnemar-exact" and task.p == pytest.approx(2 * (1 + 7 + 21) / 2**7)
    line = task.lost[0].b.line
    assert line is not None
    found = (tmp_path / "b" / "samples.jsonl").read_text().splitlines()[line - 1]
    assert json.loads(found)["sample"] == "q035"


def test_what_was_not_measured_is_no_flip_and_is_counted(tmp_path: Path) -> None:
    (task,) = compared(tmp_path, rows("++++!-"), rows("+!!++-")).tasks
    assert (task.measured, task.not_measured_a, task.not_measured_b) == (3, 1, 2)
    assert task.lost == task.gained == ()
    # Worst: the two of b wrong where a was right, the one of a right where b was right. Best: the other way.
    assert task.worst == pytest.approx(-2 / 6)
    assert task.best == pytest.approx(1 / 6)
    assert "3 of 6 pairs do not count" in report.text(compare_paths(tmp_path / "a", tmp_path / "b"))


def test_a_later_success_replaces_a_failure_and_not_the_other_way(tmp_path: Path) -> None:
    a = rows("++")
    b = [*rows("!!"), *rows("+-"), Row("q000", "timeout")]
    (task,) = compared(tmp_path, a, b).tasks
    assert task.measured == 2 and [pair.sample for pair in task.lost] == ["q001"]


def test_unverifiable_is_measured_and_not_right(tmp_path: Path) -> None:
    (task,) = compared(tmp_path, rows("++"), rows("+?")).tasks
    assert task.measured == 2 and task.unverifiable_b == 1 and len(task.lost) == 1


def test_missing_questions_are_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(Mismatch) as caught:
        compared(tmp_path, rows("+++++"), rows("+++"))
    assert "2 of 5 draws only in m/a: q003, q004" in str(caught.value)
    assert "--allow-partial compares the 3 draws" in str(caught.value)
    assert caught.value.candidate_lacks
    partial = compare_paths(tmp_path / "a", tmp_path / "b", partial=True)
    assert partial.tasks[0].measured == 3
    assert any("only in m/a" in note for note in partial.pairing.notes)
    with pytest.raises(Mismatch) as other_way:
        compare_paths(tmp_path / "b", tmp_path / "a")
    assert not other_way.value.candidate_lacks


def test_missing_draws_and_tasks_are_refused(tmp_path: Path) -> None:
    several = [replace(row, draw=draw) for row in rows("++") for draw in range(3)]
    with pytest.raises(Mismatch, match="2 of 6 draws only in m/a: q000#2, q001#2"):
        compared(tmp_path, several, [row for row in several if row.draw < 2])
    with pytest.raises(Mismatch, match="u: only in m/c"):
        compare_paths(tmp_path / "b", write_run(tmp_path / "c", [*several[:2], *several[3:5], *rows("++", "u")]))


def test_a_changed_task_is_refused(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", rows("++-"))
    b = write_run(tmp_path / "b", rows("++-"), fingerprints={"t": "0" * 64})
    with pytest.raises(Mismatch, match=r"its definition .* differs") as caught:
        compare_paths(a, b)
    assert not caught.value.candidate_lacks
    noted = compare_paths(a, b, changed=True)
    assert any("definition" in note for note in noted.pairing.notes)


def test_another_right_answer_under_the_same_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="1 of 3 questions have another right answer: q001"):
        compared(
            tmp_path, rows("+++"), [replace(row, reference="8" if row.sample == "q001" else "7") for row in rows("+++")]
        )


def test_other_words_are_noted(tmp_path: Path) -> None:
    found = compared(tmp_path, rows("+++"), rows("+++", prompt="other"))
    assert any("3 of 3 draws were asked in other words" in note for note in found.pairing.notes)


def test_runs_without_a_common_name(tmp_path: Path) -> None:
    other = [replace(row, sample=f"x{row.sample}") for row in rows("+-+")]
    with pytest.raises(Mismatch, match="--pair-by position"):
        compared(tmp_path, rows("+++"), other)
    (task,) = compare_paths(tmp_path / "a", tmp_path / "b", by="position").tasks
    assert [pair.sample for pair in task.lost] == ["000001"]
    write_run(tmp_path / "c", [replace(row, reference=row.sample) for row in other])
    with pytest.raises(Mismatch, match="3 of 3 questions have another right answer"):
        compare_paths(tmp_path / "a", tmp_path / "c", by="position")
    write_run(tmp_path / "d", rows("+++", "gsm8k"))
    with pytest.raises(Mismatch, match="share no task"):
        compare_paths(tmp_path / "a", tmp_path / "d")
    assert compare_paths(tmp_path / "a", tmp_path / "d", names={"gsm8k": "t"}).tasks[0].measured == 3


def test_draws_are_clustered_by_question_and_variants_by_group(tmp_path: Path) -> None:
    a = [Row(f"q{i}", "correct", draw) for i in range(10) for draw in range(8)]
    b = [replace(row, outcome="incorrect" if row.sample in ("q0", "q1") else "correct") for row in a]
    (task,) = compared(tmp_path, a, b).tasks
    assert task.difference is not None
    assert task.p_method == "permutation" and task.p == pytest.approx(0.5)  # two questions, not 16 draws
    assert task.difference.clusters == 10 and task.difference.effective < 15
    variants = compared(
        tmp_path / "v",
        [replace(row, sample=f"{row.sample}v{row.draw}", draw=0, group=row.sample) for row in a],
        [replace(row, sample=f"{row.sample}v{row.draw}", draw=0, group=row.sample) for row in b],
    )
    assert variants.tasks[0].difference == task.difference


def test_holm_runs_over_the_tasks_of_all_comparisons(tmp_path: Path) -> None:
    a = rows("+" * 30, "t") + rows("+" * 30, "u")
    b = rows("-" * 8 + "+" * 22, "t") + rows("-" * 3 + "+" * 27, "u")
    found = compared(tmp_path, a, b)
    p = [task.p for task in found.tasks]
    assert p == pytest.approx([2 / 2**8, 2 / 2**3])
    assert [task.p_holm for task in found.tasks] == pytest.approx([4 / 2**8, 2 / 2**3])
    twice = adjust_all([found, found])
    assert [task.p_holm for task in twice[1].tasks] == pytest.approx([8 / 2**8, 4 / 2**3])
    assert found.overall is not None
    assert found.overall.mean == pytest.approx(-11 / 60)
    assert found.overall.p == pytest.approx(2 / 2**11, abs=1e-6)


def test_token_ratio_of_a_planted_factor(tmp_path: Path) -> None:
    a = [Row(f"q{i}", tokens=100 + i) for i in range(50)]
    b = [replace(row, tokens=(row.tokens or 0) * 3) for row in a]
    b[7] = replace(b[7], tokens=None)
    (task,) = compared(tmp_path, a, b).tasks
    assert task.tokens is not None and task.tokens.pairs == 49
    assert task.tokens.value == pytest.approx(3)
    assert task.tokens.interval() == pytest.approx((3, 3))


def test_levels_become_tiers(tmp_path: Path) -> None:
    def named(levels: list[str]) -> dict[str, str | None]:
        made = [Row(f"q{i}", level=level) for i, level in enumerate(levels)]
        pairing = compared(tmp_path / "-".join(levels), made, made).pairing
        tier = tiers(pairing.tasks[0])
        return {} if tier is None else {pair.a.level or "": tier(pair) for pair in pairing.tasks[0].pairs}

    assert named(["Level 1", "Level 2", "Level 3", "Level 4", "Level 5"]) == {
        "Level 1": "easy", "Level 2": "easy", "Level 3": "medium", "Level 4": "hard", "Level 5": "hard"
    }  # fmt: skip
    assert named(["Hard", "easy", "medium"]) == {"Hard": "hard", "easy": "easy", "medium": "medium"}
    assert named(["2", "2"]) == {}
    assert named(["algebra", "geometry"]) == {"algebra": "algebra", "geometry": "geometry"}


def test_pass_rate_tiers_come_from_the_other_half_of_the_draws(tmp_path: Path) -> None:
    # Even draws right and short, odd ones wrong and long, by luck alone. From the same draws, half of them would be
    # "easy and short" in the baseline, and any rerun would seem longer.
    a = [Row(f"q{i}", ("correct", "incorrect")[d % 2], d, tokens=(10, 90)[d % 2]) for i in range(8) for d in range(4)]
    (task,) = compared(tmp_path, a, a).tasks
    assert {tier.name: tier.tokens and tier.tokens.a for tier in task.tiers} == {"easy": 90, "hard": 10}


def test_planted_window_entropy_by_tier(tmp_path: Path) -> None:
    quiet, loud = [0.1] * 40, [0.1] * 20 + [3.0] * 12 + [0.1] * 8
    a = [Row(f"q{i}", level=("easy", "hard")[i % 2], entropies=(quiet, loud)[i % 2]) for i in range(20)]
    calm = [0.1] * 20 + [3.0] * 6 + [0.1] * 14
    b = [replace(row, entropies=calm) if row.level == "hard" else row for row in a]
    found = compared(tmp_path, a, b)
    rule = found.pairing.a.window_entropy
    assert rule is not None and rule.threshold == pytest.approx((0.1 + 3.0) / 2)
    tiers_found = {tier.name: tier.hwe for tier in found.tasks[0].tiers}
    hard = tiers_found["hard"]
    assert hard is not None
    # Means of 4 tokens reach 1.55 where at least 2 of them are loud: 12 + 1 and 6 + 1 positions.
    assert (hard.a, hard.b) == (13 - 2 + 2, 7 - 2 + 2)
    easy = tiers_found["easy"]
    assert easy is not None and (easy.a, easy.b) == (0, 0)


def test_window_entropy_of_other_estimates_is_not_compared(tmp_path: Path) -> None:
    a = [Row(f"q{i}", entropies=[1.0] * 9) for i in range(5)]
    found = compared(tmp_path, a, [replace(row, top=5) for row in a])
    assert found.tasks[0].hwe is None
    assert any("not comparable: m/a has topk-bounds, top 20, m/b topk-bounds, top 5" in n for n in found.pairing.notes)
    none = compared(tmp_path / "n", a, [replace(row, entropies=None) for row in a])
    assert none.tasks[0].hwe is None
    assert any("not recorded in m/b" in note for note in none.pairing.notes)


def test_exact_entropies_of_a_scorer_count_before_recorded_bounds(tmp_path: Path) -> None:
    rows_a = [Row(f"q{i}", entropies=[0.1] * 9) for i in range(4)]
    folders = [write_run(tmp_path / name, rows_a) for name in ("a", "b")]
    for folder in folders:
        with scored_writer(folder) as writer:
            for record in load_run(folder).records():
                high = np.array([0.1] * 5 + [2.0] * 7)
                writer.append(record, TokenTrace(("x",) * 12, high, high, high, high * 0, 0, "exact"))
    found = compare_paths(*folders)
    rule = found.pairing.a.window_entropy
    assert rule is not None and rule.estimator == "exact, top 0" and rule.threshold == pytest.approx(2.0)
    assert found.tasks[0].hwe is not None and found.tasks[0].hwe.a == 4


def test_every_form_of_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = [replace(row, level=("easy", "hard")[i % 2]) for i, row in enumerate(rows("++-+"))]
    b = [replace(row, level=("easy", "hard")[i % 2], sample=row.sample) for i, row in enumerate(rows("+--+"))]
    first, second = str(write_run(tmp_path / "a", a)), str(write_run(tmp_path / "b", b))
    assert main(["compare", first, second]) == 0
    text = capsys.readouterr().out
    assert "-25.0" in text and f"q001  A {first}/samples.jsonl:2  B {second}/samples.jsonl:2" in text
    assert main(["compare", first, second, "--markdown"]) == 0
    assert f"q001  [A]({first}/samples.jsonl#L2)" in capsys.readouterr().out
    assert main(["compare", first, second, second, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["comparisons"]) == 2
    task = content["comparisons"][0]["tasks"]["t"]
    assert task["lost"] == [{"sample": "q001", "draw": 0, "line_a": 2, "line_b": 2}]
    assert task["difference"] == -0.25 and set(task["tiers"]) == {"easy", "hard"}


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = str(write_run(tmp_path / "a", rows("+++")))
    second = str(write_run(tmp_path / "b", rows("++")))
    assert main(["compare", first]) == 2
    assert main(["compare", first, second]) == 2
    assert "only in m/a" in capsys.readouterr().err
    assert main(["compare", first, second, "--allow-partial"]) == 0
    assert main(["compare", first, second, "--task-map", "nonsense"]) == 2
    assert main(["compare", first, second, "--task-map", "x=t"]) == 2
    assert main(["compare", first, str(tmp_path / "nowhere")]) == 3
    (tmp_path / "empty").mkdir()
    assert main(["compare", first, str(tmp_path / "empty")]) == 3
    assert "is no run that is known" in capsys.readouterr().err


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", rows("++"))
    manifest = json.loads((folder / "run.json").read_text())
    manifest["tasks"]["t"]["planned"] = 5
    (folder / "run.json").write_text(json.dumps(manifest))
    notes = compare_paths(folder, folder).pairing.notes
    assert any("3 of 5 draws were never recorded" in note for note in notes)
    assert load_any(folder).tasks["t"].planned == 5
