"""The gate: policies, verdicts, exit codes, files, and by simulation that it neither cries wolf nor waves through."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from ares_eval import gate, resources
from ares_eval.cli import main
from ares_eval.gate.policy import Policy, PolicyError, Rule, load
from ares_eval.types import Json
from benchmarks.gate_power import Effect, simulate, verdicts
from tests.comparison_runs import Row, write_run

ACCURACY = Rule(kind="accuracy", margin=10)


def run(folder: Path, right: str, **more: object) -> str:
    words = {"+": "correct", "-": "incorrect", "!": "timeout"}
    return str(write_run(folder, [Row(f"q{i:03d}", words[c], **more) for i, c in enumerate(right)]))  # type: ignore[arg-type]


def policy_file(folder: Path, text: str) -> str:
    path = folder / "policy.yaml"
    path.write_text(text)
    return str(path)


TEN = "rules: [{kind: accuracy, margin: 10}]"


@pytest.mark.parametrize(
    ("candidate", "code", "word"),
    [
        ("+" * 80 + "-" * 40, 0, "PASS"),
        ("+" * 40 + "-" * 80, 1, "FAIL"),
        ("+" * 70 + "-" * 50, 5, "INCONCLUSIVE"),
        ("+" * 78 + "!" * 2 + "-" * 40, 3, "INCOMPLETE"),
    ],
)
def test_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str], candidate: str, code: int, word: str) -> None:
    a, b = run(tmp_path / "a", "+" * 80 + "-" * 40), run(tmp_path / "b", candidate)
    policy = policy_file(tmp_path, TEN)
    assert main(["gate", "--candidate", b, "--baseline", a, "--policy", policy]) == code
    assert word in capsys.readouterr().out


def test_an_inconclusive_gate_says_what_would_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = "+" * 20 + "-" * 20
    a, b = run(tmp_path / "a", right), run(tmp_path / "b", "-" + right[1:-1] + "+")
    command = [
        "gate",
        "--candidate",
        b,
        "--baseline",
        a,
        "--policy",
        policy_file(tmp_path, "rules: [{kind: accuracy}]"),
    ]
    assert main(command) == 5
    assert "questions instead of 40 would decide" in capsys.readouterr().out
    assert main([*command, "--inconclusive", "pass"]) == 0
    assert main([*command, "--inconclusive", "fail"]) == 1


def test_files_that_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = run(tmp_path / "a", "+" * 80 + "-" * 40), run(tmp_path / "b", "-" * 120)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    files = {name: tmp_path / f"gate.{name}" for name in ("markdown", "junit", "json")}
    flags = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    assert main(["gate", "--candidate", b, "--baseline", a, "--policy", policy_file(tmp_path, TEN), *flags]) == 1
    markdown = files["markdown"].read_text()
    assert markdown.startswith("## Gate of m/b: FAIL") and "❌ broken" in markdown and "80 lost" in markdown
    assert summary.read_text() == "before\n" + markdown
    suite = ElementTree.fromstring(files["junit"].read_bytes()).find("testsuite")
    assert suite is not None and suite.attrib["failures"] == "2" and suite.attrib["tests"] == "2"
    content = json.loads(files["json"].read_text())
    assert (content["verdict"], content["exit_code"]) == ("fail", 1)
    assert content["tests"][0]["observed"] == pytest.approx(-80 / 120)
    assert len(content["comparison"]["tasks"]["t"]["lost"]) == 80


def test_a_finished_baseline_against_an_unfinished_or_other_run(tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", "+" * 20), run(tmp_path / "b", "+" * 15)
    assert main(["gate", "--candidate", b, "--baseline", a]) == 3
    changed = write_run(tmp_path / "c", [Row(f"q{i:03d}") for i in range(20)], fingerprints={"t": "0" * 64})
    assert main(["gate", "--candidate", str(changed), "--baseline", a]) == 2
    assert main(["gate", "--candidate", str(tmp_path / "none"), "--baseline", a]) == 3
    assert main(["gate", "--candidate", a, "--baseline", "no-such-baseline"]) == 3


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("rules: [{kind: accuracy, marign: 2}]", "marign"),
        ("rule: []", "rule"),
        ("rules: []", "decides nothing"),
        ("rules: [{kind: speed}]", "speed"),
        ("rules: [{kind: accuracy, ratio: 1.1}]", "belongs to another kind"),
        ("rules: [{kind: accuracy, margin: two}]", "margin"),
        ("rules: [{kind: accuracy, margin: 200}]", "between 0 and 100"),
        ("alpha: 3\nrules: [{kind: accuracy}]", "alpha"),
        ("rules: [", "no YAML"),
        ("- 1", "object"),
    ],
)
def test_a_bad_policy_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, cause: str
) -> None:
    a = run(tmp_path / "a", "+++")
    assert main(["gate", "--candidate", a, "--baseline", a, "--policy", policy_file(tmp_path, text)]) == 2
    assert cause in capsys.readouterr().err


@pytest.mark.parametrize("name", ["default", "smoke"])
def test_shipped_policies_load(name: str) -> None:
    policy = load(name)
    assert (policy.alpha, policy.power) == (0.05, 0.8)
    if name == "default":
        bounds = {(rule.kind, rule.tier, rule.over): rule.bound for rule in policy.rules}
        assert bounds["accuracy", None, "mean"] == -0.02 and bounds["tokens", None, "mean"] == 1.10
        assert bounds["tokens", "easy", "mean"] == bounds["hwe", "hard", "mean"] == 1.0
    with pytest.raises(PolicyError, match="no policy"):
        load("nothing")


def _decide(tmp_path: Path, rules: list[Rule], a: list[Row], b: list[Row], **options: object) -> gate.Decision:
    from ares_eval.compare import compare_paths

    pairing = compare_paths(write_run(tmp_path / "a", a), write_run(tmp_path / "b", b)).pairing
    return gate.decide(pairing, Policy(rules=tuple(rules), **options))  # type: ignore[arg-type]


def _tiered(tokens: Callable[[str, int], int], entropies: bool = False) -> list[Row]:
    levels = ("easy", "medium", "hard")
    return [
        Row(
            f"q{i:03d}",
            level=(level := levels[i % 3]),
            tokens=tokens(level, i),
            entropies=([0.1] * 10 + [3.0] * (4 + i % 5)) if entropies else None,
        )
        for i in range(240)
    ]


def test_tokens_that_move_to_easy_questions_break_their_rule_alone(tmp_path: Path) -> None:
    a = _tiered(lambda _, i: 100 + i % 7)
    b = _tiered(lambda level, i: int((100 + i % 7) * (1.15 if level == "easy" else 0.9)))
    rules = [Rule(kind="tokens", ratio=1.1), Rule(kind="tokens", tier="easy", ratio=1.0, need="no_disproof")]
    whole, easy = _decide(tmp_path, rules, a, b).findings
    assert (whole.state, easy.state) == ("kept", "broken")
    assert easy.test.observed == pytest.approx(1.15, abs=0.01)


def test_depth_lost_on_hard_questions_breaks_its_rule(tmp_path: Path) -> None:
    a = _tiered(lambda _, i: 100, entropies=True)
    b = [replace(row, entropies=[0.1] * 12 + [3.0] * 2) if row.level == "hard" else row for row in a]
    rule = Rule(kind="hwe", tier="hard", ratio=1.0, need="no_disproof")
    (finding,) = _decide(tmp_path, [rule], a, b).findings
    assert finding.state == "broken"
    (same,) = _decide(tmp_path / "same", [rule], a, a).findings
    assert same.state == "not broken"


def test_a_rule_without_its_data_is_incomplete_or_skipped_as_it_says(tmp_path: Path) -> None:
    a = [Row(f"q{i}", tokens=None) for i in range(50)]
    rules = [ACCURACY, Rule(kind="tokens"), Rule(kind="hwe", missing="skip")]
    decision = _decide(tmp_path, rules, a, a)
    assert [finding.state for finding in decision.findings] == ["kept", "missing", "skipped"]
    assert decision.verdict == "incomplete" and "token counts" in decision.incomplete[0]
    skipped = _decide(tmp_path / "s", [ACCURACY, Rule(kind="tokens", missing="skip")], a, a)
    assert skipped.verdict == "pass"
    nothing = _decide(tmp_path / "n", [Rule(kind="tokens", missing="skip")], a, a)
    assert nothing.verdict == "inconclusive"


def test_truncation_is_held_against_its_ceiling(tmp_path: Path) -> None:
    a = [Row(f"q{i}") for i in range(100)]
    for share, state in ((4, "not broken"), (8, "not broken"), (20, "broken")):
        b = [replace(row, truncated=i < share) for i, row in enumerate(a)]
        (finding,) = _decide(tmp_path / str(share), [Rule(kind="truncation", ceiling=5)], a, b).findings
        assert finding.state == state
    tail = sum(math.comb(100, k) * 0.05**k * 0.95 ** (100 - k) for k in range(20, 101))
    assert finding.test.p_broken == pytest.approx(tail, rel=1e-6)


def test_a_rule_for_each_task(tmp_path: Path) -> None:
    good = [Row(f"q{i:03d}", ("correct", "incorrect")[i % 2], task="good") for i in range(120)]
    bad = [Row(f"q{i:03d}", "correct", task="bad") for i in range(120)]
    worse = [replace(row, outcome="incorrect") if i % 2 else row for i, row in enumerate(bad)]
    rules = [Rule(kind="accuracy", margin=10, over="tasks"), Rule(kind="accuracy", margin=30)]
    decision = _decide(tmp_path, rules, good + bad, good + worse)
    assert {f.test.scope: f.state for f in decision.findings} == {
        "bad": "broken",
        "good": "kept",
        "mean of 2 tasks": "kept",
    }
    absent = _decide(tmp_path / "x", [Rule(kind="accuracy", tasks=("aime25",))], good, good)
    assert absent.verdict == "incomplete"


def test_holm_takes_more_evidence_among_more_rules(tmp_path: Path) -> None:
    a = [Row(f"q{i:03d}") for i in range(123)]
    b = [replace(row, outcome="incorrect") if i < 22 else row for i, row in enumerate(a)]
    (alone,) = _decide(tmp_path, [ACCURACY], a, b).findings
    among = _decide(
        tmp_path / "m", [ACCURACY, Rule(kind="tokens"), Rule(kind="truncation"), Rule(kind="tokens", ratio=1.2)], a, b
    )
    assert among.findings[0].p_broken_holm == pytest.approx(min(1.0, 4 * alone.test.p_broken))


# ---------------------------------------------------------------- simulation, fixed seeds


def _limit(rate: float, runs: int) -> float:
    """Two standard errors above ``rate``, as a count."""
    return runs * rate + 2 * math.sqrt(runs * rate * (1 - rate))


@pytest.mark.parametrize(("questions", "draws", "tasks"), [(120, 1, 1), (60, 4, 1), (60, 1, 3)])
def test_an_equal_candidate_fails_no_more_often_than_the_level(questions: int, draws: int, tasks: int) -> None:
    found = verdicts(load("default"), questions, draws, Effect(), 150, tasks)
    assert found["fail"] <= _limit(0.05, 150)


def test_a_candidate_at_the_bounds_fails_and_passes_no_more_often_than_the_level() -> None:
    policy = Policy(rules=(Rule(kind="accuracy", margin=10), Rule(kind="tokens", ratio=1.1)))
    found = verdicts(policy, 250, 1, Effect(lost=0.10, tokens=1.10), 200)
    assert found["fail"] <= _limit(0.05, 200)
    assert found["pass"] <= _limit(0.05, 200)


def test_a_bad_candidate_fails_and_a_good_one_passes() -> None:
    policy = load("smoke")
    own = 0.25
    assert verdicts(policy, 123, 1, Effect(own=own), 60)["pass"] >= 54
    assert verdicts(policy, 123, 1, Effect(lost=0.3, own=own), 60)["fail"] >= 57
    assert verdicts(policy, 123, 1, Effect(tokens=1.6, own=own), 60)["fail"] >= 57


def test_the_advised_number_of_questions_decides() -> None:
    policy = Policy(rules=(Rule(kind="accuracy", margin=5),))
    advice = gate.decide(simulate(200, 1, Effect(), 1), policy).findings[0].test.advice
    needed = int(advice.split()[1].replace(",", ""))
    assert 500 < needed < 2500
    passed = verdicts(policy, needed, 1, Effect(), 50)["pass"]
    assert 0.65 <= passed / 50 <= 0.95


def test_a_policy_survives_the_round_trip() -> None:
    policy = load("default")
    assert msgspec.convert(msgspec.to_builtins(policy), Policy) == policy


# ---------------------------------------------------------------- the project's own gate


def _planted(folder: Path, change: Callable[[dict[str, Json]], None]) -> str:
    """The committed baseline as a candidate, every draw changed by ``change``."""
    content = json.loads((resources.folder("results/baselines") / "smoke_text-smollm2.json").read_text())
    for task in content["tasks"].values():
        rows = [dict(zip(task["columns"], row, strict=True)) for row in task["draws"]]
        for row in rows:
            change(row)
        task["draws"] = [list(row.values()) for row in rows]
    path = folder / "candidate.json"
    path.write_text(json.dumps(content))
    return str(path)


def _smoke_gate(candidate: str) -> int:
    return main(["gate", "--candidate", candidate, "--baseline", "smoke_text-smollm2", "--policy", "smoke"])


def test_the_projects_gate_passes_itself_and_fails_planted_candidates(tmp_path: Path) -> None:
    assert _smoke_gate(_planted(tmp_path, lambda row: None)) == 0

    def broken(row: dict[str, Json]) -> None:
        row["score"] = 0.0

    def rambling(row: dict[str, Json]) -> None:
        row["tokens"] = 48

    def cut(row: dict[str, Json]) -> None:
        row["truncated"] = row["sample"] > "t040"

    def unreachable(row: dict[str, Json]) -> None:
        row["cause"] = "network" if row["sample"] < "t010" else None

    codes = [_smoke_gate(_planted(tmp_path, change)) for change in (broken, rambling, cut, unreachable)]
    assert codes == [1, 1, 1, 3]
