"""Pass, fail, inconclusive or incomplete: what all tests of a policy together say of a candidate.

incomplete     a run has too many draws without a reply, or lacks what a rule needs: nothing is decided
fail           some rule is shown to be broken: its p-value, Holm-adjusted over every test of the policy, is at
               most alpha. So a candidate that keeps all bounds fails with probability at most alpha
pass           every rule that needs proof is shown to be kept, each at level alpha. All must be shown, so a
               candidate that breaks such a bound passes with probability at most alpha without an adjustment
               (intersection-union test; Berger 1982)
inconclusive   neither: the sample is too small, and the tests say what would do
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ares_eval.analysis.paired import holm
from ares_eval.compare.pairing import Pairing, TaskPairs
from ares_eval.gate.policy import Policy
from ares_eval.gate.rules import Test, tests

Verdict: TypeAlias = Literal["pass", "fail", "inconclusive", "incomplete"]
State: TypeAlias = Literal["kept", "not broken", "broken", "open", "skipped", "missing"]

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "incomplete": 3, "inconclusive": 5}


@dataclass(frozen=True, slots=True)
class Finding:
    """A test, its Holm-adjusted p of being broken, and what follows.

    kept: shown to be kept; not broken: not shown to be broken, which is all the rule asks; broken: shown to be broken;
    open: neither shown, where proof is needed; skipped, missing: nothing to test (the rule's ``missing``).
    """

    test: Test
    p_broken_holm: float
    state: State


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict with its findings, and in ``incomplete`` the causes of that verdict."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    incomplete: tuple[str, ...]
    policy: Policy


def decide(pairing: Pairing, policy: Policy) -> Decision:
    """Hold candidate (``pairing.b``) against baseline (``pairing.a``)."""
    once: dict[tuple[str, float, str | None, str], Test] = {}
    for rule in policy.rules:
        for test in tests(rule, pairing.tasks, policy):
            # With a single task "mean" and "tasks" are the same test; twice, it would cost power twice.
            key = (rule.kind, rule.bound, rule.tier, test.scope)
            if key not in once or (rule.proof and not once[key].rule.proof):
                once[key] = test
    return judge(list(once.values()), pairing, policy)


def judge(found: Sequence[Test], pairing: Pairing, policy: Policy) -> Decision:
    """The decision over tests that are done."""
    tested = [test for test in found if not test.missing]
    adjusted = dict(zip(map(id, tested), holm([test.p_broken for test in tested]), strict=True))
    findings = tuple(Finding(test, adjusted.get(id(test), 1.0), _state(test, adjusted, policy)) for test in found)
    causes = [cause for task in pairing.tasks if (cause := _not_measured(task, policy))]
    causes += [
        f"{finding.test.rule.title}: {finding.test.missing}" for finding in findings if finding.state == "missing"
    ]
    states = {finding.state for finding in findings}
    verdict: Verdict = "pass"
    if causes:
        verdict = "incomplete"
    elif "broken" in states:
        verdict = "fail"
    elif "open" in states or not tested:
        verdict = "inconclusive"
    return Decision(verdict, findings, tuple(causes), policy)


def _state(test: Test, adjusted: dict[int, float], policy: Policy) -> State:
    if test.missing:
        return "skipped" if test.rule.missing == "skip" else "missing"
    if adjusted[id(test)] <= policy.alpha:
        return "broken"
    if test.p_kept <= policy.alpha:
        return "kept"
    return "open" if test.rule.proof else "not broken"


def _not_measured(task: TaskPairs, policy: Policy) -> str:
    """Why too few draws of a task have a reply; empty where enough have."""
    total = len(task.pairs)
    a = sum(not pair.a.measured for pair in task.pairs)
    b = sum(not pair.b.measured for pair in task.pairs)
    worst = max(a, b)
    if total and worst <= policy.not_measured / 100 * total:
        return ""
    return (
        f"{task.task}: not measured are {a} draws of the baseline and {b} of the candidate, of {total}; "
        f"the policy allows {policy.not_measured:g} %"
    )
