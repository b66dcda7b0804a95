"""A rule held against two paired runs: one Test for each scope, with the evidence on both sides of its bound.

``p_broken`` is the p-value of "the bound is kept": small where the candidate is shown to break it. ``p_kept`` is that
of "the bound is broken": small where the candidate is shown to keep it. Both can be large (too little data), both
cannot be small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ares_eval.analysis import paired
from ares_eval.analysis.paired import Cluster, Difference, Normal
from ares_eval.analysis.statistics import incomplete_beta, proportion
from ares_eval.compare.comparison import clusters, hwe_of, ratio, sides, tokens_of
from ares_eval.compare.pairing import Pair, TaskPairs
from ares_eval.compare.tiers import tiers
from ares_eval.gate.policy import Policy, Rule


@dataclass(frozen=True, slots=True)
class Test:
    """One rule over one scope (a task, or the mean of several). ``observed`` with its two-sided ``interval`` in the
    unit of the bound. ``missing``: why there is nothing to test; then nothing else is set. ``advice``: what sample
    would decide."""

    rule: Rule
    scope: str
    bound: float
    pairs: int = 0
    observed: float | None = None
    interval: tuple[float, float] | None = None
    p_broken: float = 1.0
    p_kept: float = 1.0
    advice: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class _Scope:
    """A task's measured pairs, of one tier where the rule asks for it."""

    task: str
    pairs: tuple[Pair, ...]
    missing: str = ""


def tests(rule: Rule, tasks: Sequence[TaskPairs], policy: Policy) -> list[Test]:
    """The tests of ``rule`` over the tasks it is for."""
    chosen = [task for task in tasks if not rule.tasks or task.task in rule.tasks]
    lost = sorted(set(rule.tasks) - {task.task for task in tasks})
    if lost or not chosen:
        return [Test(rule, ", ".join(lost) or "no task", rule.bound, missing="the runs do not have this task")]
    scopes = [_scope(rule, task, policy) for task in chosen]
    if rule.over == "tasks" or len(scopes) == 1:
        return [_test(rule, [scope], policy) for scope in scopes]
    if rule.tier is not None:  # a mean over the tasks that know tiers
        scopes = [scope for scope in scopes if not scope.missing] or scopes
    return [_test(rule, scopes, policy)]


def _scope(rule: Rule, task: TaskPairs, policy: Policy) -> _Scope:
    pairs = tuple(pair for pair in task.pairs if pair.measured)
    if rule.tier is not None:
        tier_of = tiers(task, policy.tiers, policy.levels)
        if tier_of is None:
            return _Scope(task.task, (), f"{task.task} has neither levels of difficulty nor several draws")
        pairs = tuple(pair for pair in pairs if tier_of(pair) == rule.tier)
        if not pairs:
            return _Scope(task.task, (), f"{task.task} has no {rule.tier} questions")
    return _Scope(task.task, pairs, "" if pairs else f"{task.task} has no pair that both runs measured")


def _test(rule: Rule, scopes: Sequence[_Scope], policy: Policy) -> Test:
    name = scopes[0].task if len(scopes) == 1 else f"mean of {len(scopes)} tasks"
    if lost := [scope.missing for scope in scopes if scope.missing]:
        return Test(rule, name, rule.bound, missing="; ".join(lost))
    if rule.kind == "accuracy":
        return _accuracy(rule, name, scopes, policy)
    if rule.kind == "truncation":
        return _truncation(rule, name, scopes)
    return _ratio(rule, name, scopes, policy)


# ---------------------------------------------------------------- accuracy


def _accuracy(rule: Rule, name: str, scopes: Sequence[_Scope], policy: Policy) -> Test:
    sums = [clusters(scope.pairs) for scope in scopes]
    found = [paired.difference(entry) for entry in sums]
    if len(found) == 1:
        above, below = found[0].above(rule.bound), found[0].below(rule.bound)
        normal, mean, interval = found[0].normal, found[0].mean, found[0].interval(1 - policy.alpha)
    else:
        normal = paired.average([entry.normal for entry in found])
        above, below = normal.above(rule.bound), normal.below(rule.bound)
        mean = math.fsum(entry.mean for entry in found) / len(found)
        interval = normal.interval(1 - policy.alpha)
    return Test(
        rule,
        name,
        rule.bound,
        pairs=sum(len(scope.pairs) for scope in scopes),
        observed=mean,
        interval=interval,
        p_broken=below,
        p_kept=above,
        advice=_accuracy_advice(rule, found, sums, normal, mean, policy),
    )


def _accuracy_advice(
    rule: Rule,
    found: Sequence[Difference],
    sums: Sequence[Sequence[Cluster]],
    normal: Normal,
    mean: float,
    policy: Policy,
) -> str:
    questions = sum(entry.clusters for entry in found)
    if rule.bound == 0:
        return "with a margin of 0 no sample shows that nothing was lost"
    needed = paired.needed_clusters(normal, questions, -rule.bound, policy.alpha, policy.power)
    if needed <= questions:
        return _near(questions, normal, abs(mean - rule.bound), policy)
    text = f"about {needed:,} questions instead of {questions:,} would decide for a candidate as good as the baseline"
    if len(sums) == 1:
        draws = paired.needed_draws(sums[0], -rule.bound, policy.alpha, policy.power)
        if draws is not None:
            text += f", or {draws:,} draws of each of these"
    return text


def _near(questions: int, normal: Normal, distance: float, policy: Policy) -> str:
    """The sample was large enough for a candidate like the baseline: this one lies between."""
    if distance < 1e-9:
        return "the observed value lies on the bound"
    needed = paired.needed_clusters(normal, questions, distance, policy.alpha, policy.power)
    return f"the true value seems to lie near the bound; about {needed:,} questions would decide if it is as observed"


# ---------------------------------------------------------------- tokens, high-entropy windows


def _ratio(rule: Rule, name: str, scopes: Sequence[_Scope], policy: Policy) -> Test:
    quantity = tokens_of if rule.kind == "tokens" else hwe_of
    what = "token counts" if rule.kind == "tokens" else "token traces (--logprobs)"
    ratios = [ratio(scope.pairs, quantity) for scope in scopes]
    for scope, entry in zip(scopes, ratios, strict=True):
        if entry is None:
            return Test(rule, name, rule.bound, missing=f"{scope.task}: not both runs have comparable {what}")
        if entry.a == 0:
            return Test(
                rule, name, rule.bound, missing=f"{scope.task}: there is nothing in the baseline to compare with"
            )
    logs = [entry.log for entry in ratios if entry is not None and entry.log is not None]
    log = None if len(logs) < len(ratios) else logs[0] if len(logs) == 1 else paired.average(logs)
    bound = math.log(rule.bound)
    sums = [sides(scope.pairs, quantity) for scope in scopes]
    over, under = paired.ratio_above(sums, rule.bound, log), paired.ratio_below(sums, rule.bound, log)
    interval = None
    if log is not None:
        low, high = log.interval(1 - policy.alpha)
        interval = (math.exp(low), math.exp(min(high, 700.0)))
    questions = len({(scope.task, pair.group) for scope in scopes for pair in scope.pairs})
    return Test(
        rule,
        name,
        rule.bound,
        pairs=sum(entry.pairs for entry in ratios if entry is not None),
        observed=0.0 if log is None else math.exp(log.centre),
        interval=interval,
        p_broken=over if rule.kind == "tokens" else under,
        p_kept=under if rule.kind == "tokens" else over,
        advice="" if log is None else _ratio_advice(log, bound, questions, policy),
    )


def _ratio_advice(log: Normal, bound: float, questions: int, policy: Policy) -> str:
    if bound == 0:
        return "with a ratio of 1 no sample shows that nothing changed"
    needed = paired.needed_clusters(log, questions, abs(bound), policy.alpha, policy.power)
    if needed <= questions:
        return _near(questions, log, abs(log.centre - bound), policy)
    return f"about {needed:,} questions instead of {questions:,} would decide for a candidate like the baseline"


# ---------------------------------------------------------------- truncation


def _truncation(rule: Rule, name: str, scopes: Sequence[_Scope]) -> Test:
    """Exact binomial tails, with the effective number of replies where draws of a question hang together."""
    groups: dict[tuple[str, str], list[float]] = {}
    for scope in scopes:
        for pair in scope.pairs:
            groups.setdefault((scope.task, pair.group), []).append(float(pair.b.truncated))
    found = proportion(list(groups.values()))
    n = float(sum(map(len, groups.values())))
    if n > len(groups) and found.stderr:
        n = min(n, found.mean * (1 - found.mean) / found.stderr**2) if 0 < found.mean < 1 else float(len(groups))
    cut = found.mean * n
    return Test(
        rule,
        name,
        rule.bound,
        pairs=sum(len(scope.pairs) for scope in scopes),
        observed=found.mean,
        interval=found.interval,
        p_broken=1.0 if cut <= 0 else incomplete_beta(cut, n - cut + 1, rule.bound),
        p_kept=0.0 if cut >= n and rule.bound >= 1 else 1.0 - incomplete_beta(cut + 1, max(n - cut, 1e-9), rule.bound),
        advice="more questions would decide",
    )
