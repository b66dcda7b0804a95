"""What differs between two paired runs, with how sure that is.

Per task and over all tasks: accuracy difference with a paired, question-clustered interval and p-value, token ratio,
flips in both directions, per tier of difficulty the same and tokens in high-entropy windows. Differences are b - a,
ratios b / a. Only pairs that both runs measured count; how far the others could move a difference is said beside it.
The overall difference is the plain mean over tasks, as in results.json; the overall ratio the geometric one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

from ares_eval.analysis import paired
from ares_eval.analysis.paired import Cluster, Difference, Normal, Sides
from ares_eval.compare.pairing import Pair, Pairing, TaskPairs
from ares_eval.compare.tiers import Source, tiers
from ares_eval.outcomes import Outcome

ALPHA, POWER = 0.05, 0.8
"""Of the smallest effect that is reported as detectable."""

LEVEL = 1 - ALPHA


@dataclass(frozen=True, slots=True)
class Ratio:
    """Means of a quantity in both runs over ``pairs`` in which both know it, and b / a with its interval."""

    a: float
    b: float
    pairs: int
    log: Normal | None

    @property
    def value(self) -> float | None:
        """b / a; None where a is 0."""
        return self.b / self.a if self.a > 0 else None

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Two-sided interval of b / a; None where nothing tells its error."""
        if self.log is None:
            return None
        low, high = self.log.interval(level)
        return math.exp(low), math.exp(min(high, 700.0))


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier of difficulty of one task."""

    name: str
    pairs: int
    accuracy_a: float
    accuracy_b: float
    tokens: Ratio | None
    hwe: Ratio | None


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """Two runs on one task. ``measured``: pairs that count. ``p`` two-sided, ``p_holm`` adjusted over the tasks.

    ``worst`` and ``best``: the difference if every unmeasured draw went against b, or for it. ``lost``: pairs that a
    had right and b has not; ``gained`` the other way. ``difference`` and what follows from it are None without pairs.
    """

    pairs: TaskPairs
    measured: int
    not_measured_a: int
    not_measured_b: int
    accuracy_a: float | None
    accuracy_b: float | None
    difference: Difference | None
    p: float | None
    p_method: str
    p_holm: float | None
    worst: float
    best: float
    tokens: Ratio | None
    hwe: Ratio | None
    truncated_a: int
    truncated_b: int
    unverifiable_a: int
    unverifiable_b: int
    tiers: tuple[Tier, ...]
    lost: tuple[Pair, ...]
    gained: tuple[Pair, ...]

    @property
    def task(self) -> str:
        """The task's name."""
        return self.pairs.task


@dataclass(frozen=True, slots=True)
class Overall:
    """The mean over all tasks, each weighing the same."""

    tasks: int
    mean: float
    normal: Normal
    p: float
    tokens: Normal | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it. ``overall`` is None for a single task, or where a task has no pair that was measured."""

    pairing: Pairing
    tasks: tuple[TaskComparison, ...]
    overall: Overall | None


def compare(pairing: Pairing, *, tier_source: Source = "auto") -> Comparison:
    """Compare two paired runs; p-values are Holm-adjusted over the tasks."""
    tasks = [_task(task, tier_source) for task in pairing.tasks]
    return Comparison(pairing, tuple(_adjusted(tasks)), overall(tasks))


def adjust_all(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Several comparisons with the same first run, Holm-adjusted over the tasks of all."""
    tasks = iter(_adjusted([task for comparison in comparisons for task in comparison.tasks]))
    return [replace(comparison, tasks=tuple(islice(tasks, len(comparison.tasks)))) for comparison in comparisons]


def _adjusted(tasks: Sequence[TaskComparison]) -> list[TaskComparison]:
    tested = [i for i, task in enumerate(tasks) if task.p is not None]
    values = paired.holm([task.p for task in tasks if task.p is not None])
    found = dict(zip(tested, values, strict=True))
    return [replace(task, p_holm=found.get(i)) for i, task in enumerate(tasks)]


# ---------------------------------------------------------------- one task


def _task(task: TaskPairs, source: Source) -> TaskComparison:
    measured = [pair for pair in task.pairs if pair.measured]
    sums = clusters(measured)
    found = paired.difference(sums) if sums else None
    p, method = two_sided(measured, sums) if found is not None else (None, "")
    tier_of = tiers(task, source)
    named: dict[str, list[Pair]] = defaultdict(list)
    if tier_of is not None:
        for pair in measured:
            named[tier_of(pair) or "other"].append(pair)
    n = len(task.pairs)
    return TaskComparison(
        pairs=task,
        measured=len(measured),
        not_measured_a=sum(not pair.a.measured for pair in task.pairs),
        not_measured_b=sum(not pair.b.measured for pair in task.pairs),
        accuracy_a=_mean(pair.a.score for pair in measured),
        accuracy_b=_mean(pair.b.score for pair in measured),
        difference=found,
        p=p,
        p_method=method,
        p_holm=p,
        worst=math.fsum(_bound(pair, 0.0, 1.0) for pair in task.pairs) / n if n else -1.0,
        best=math.fsum(_bound(pair, 1.0, 0.0) for pair in task.pairs) / n if n else 1.0,
        tokens=tokens(measured),
        hwe=hwe(measured),
        truncated_a=sum(pair.a.truncated for pair in measured),
        truncated_b=sum(pair.b.truncated for pair in measured),
        unverifiable_a=sum(pair.a.unverifiable for pair in measured),
        unverifiable_b=sum(pair.b.unverifiable for pair in measured),
        tiers=tuple(_tier(name, named[name]) for name in sorted(named, key=_tier_order)),
        lost=tuple(pair for pair in measured if pair.a.score > pair.b.score),
        gained=tuple(pair for pair in measured if pair.a.score < pair.b.score),
    )


def _tier(name: str, pairs: Sequence[Pair]) -> Tier:
    return Tier(
        name,
        len(pairs),
        math.fsum(pair.a.score for pair in pairs) / len(pairs),
        math.fsum(pair.b.score for pair in pairs) / len(pairs),
        tokens(pairs),
        hwe(pairs),
    )


def _tier_order(name: str) -> tuple[int, str]:
    return ({"easy": 0, "medium": 1, "hard": 2, "other": 4}.get(name, 3), name)


def _bound(pair: Pair, b: float, a: float) -> float:
    """b - a of a pair, with ``b`` and ``a`` for scores that were not measured."""
    return (pair.b.score if pair.b.measured else b) - (pair.a.score if pair.a.measured else a)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return math.fsum(found) / len(found) if found else None


# ---------------------------------------------------------------- from pairs to sums


def clusters(pairs: Iterable[Pair]) -> list[Cluster]:
    """Score differences of measured pairs, summed by question, in the order of the questions' names."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for pair in pairs:
        d = pair.b.score - pair.a.score
        entry = sums[pair.group]
        entry[0] += d
        entry[1] += d * d
        entry[2] += 1
    return [Cluster(sums[name][0], sums[name][1], int(sums[name][2])) for name in sorted(sums)]


def two_sided(pairs: Sequence[Pair], sums: Sequence[Cluster]) -> tuple[float, str]:
    """p of "no difference", and the test's name."""
    binary = all(pair.a.score in (0, 1) and pair.b.score in (0, 1) for pair in pairs)
    if binary and len(sums) == len(pairs):
        gains = sum(pair.b.score > pair.a.score for pair in pairs)
        losses = sum(pair.b.score < pair.a.score for pair in pairs)
        return paired.mcnemar(gains, losses), "mcnemar-exact"
    return paired.permutation([cluster.total for cluster in sums]), "permutation"


Quantity: TypeAlias = Callable[[Outcome], int | None]


def tokens_of(outcome: Outcome) -> int | None:
    """Generated tokens."""
    return outcome.tokens


def hwe_of(outcome: Outcome) -> int | None:
    """Positions of high window entropy."""
    return outcome.hwe


def tokens(pairs: Iterable[Pair]) -> Ratio | None:
    """Generated tokens of measured pairs; None where no pair has both counts."""
    return ratio(pairs, tokens_of)


def hwe(pairs: Iterable[Pair]) -> Ratio | None:
    """Positions of high window entropy, likewise."""
    return ratio(pairs, hwe_of)


def ratio(pairs: Iterable[Pair], quantity: Quantity) -> Ratio | None:
    """Means of ``quantity`` over the pairs where both have it, clustered by question."""
    clustered = sides(pairs, quantity)
    count = sum(side.pairs for side in clustered)
    if not count:
        return None
    total_a, total_b = math.fsum(side.a for side in clustered), math.fsum(side.b for side in clustered)
    return Ratio(total_a / count, total_b / count, count, paired.log_ratio(clustered))


def sides(pairs: Iterable[Pair], quantity: Quantity) -> list[Sides]:
    """Sums of ``quantity`` by question, over the pairs where both runs have it."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for pair in pairs:
        a, b = quantity(pair.a), quantity(pair.b)
        if a is None or b is None:
            continue
        entry = sums[pair.group]
        entry[0] += a
        entry[1] += b
        entry[2] += 1
    return [Sides(sums[name][0], sums[name][1], int(sums[name][2])) for name in sorted(sums)]


def overall(tasks: Sequence[TaskComparison]) -> Overall | None:
    """The mean over ``tasks``, which must all have a difference; None for fewer than two."""
    differences = [task.difference for task in tasks if task.difference is not None]
    if len(differences) < 2 or len(differences) < len(tasks):
        return None
    weighted = [
        cluster.total / (len(tasks) * task.measured)
        for task in tasks
        for cluster in clusters(pair for pair in task.pairs.pairs if pair.measured)
    ]
    logs = [task.tokens.log for task in tasks if task.tokens is not None and task.tokens.log is not None]
    return Overall(
        tasks=len(tasks),
        mean=math.fsum(found.mean for found in differences) / len(differences),
        normal=paired.average([found.normal for found in differences]),
        p=paired.permutation(weighted),
        tokens=paired.average(logs) if len(logs) == len(tasks) else None,
    )
