"""Metrics over a whole task that a benchmark asks for by name: worst case, We-Math's four dimensions, means over parts.

A task's YAML names them under ``metadata.metrics``; results.py adds what they return to the task's metrics. A benchmark
with an official metric of its own adds a function here. No metric counts what was not measured as wrong: it leaves
it out and says with its bounds (NAME_worst, NAME_best) what that could change.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from ares_eval import metrics
from ares_eval.analysis.statistics import Estimate, from_sums, interval_of_mean
from ares_eval.types import Json, Usage


@dataclass(frozen=True, slots=True)
class TaskMeta:
    """What results need to know of a task as it was run.

    ``suites``: the suites of this run that hold it. ``metrics``: names from METRICS to report besides accuracy; the
    first one (else accuracy) is the primary metric, which suites average. ``questions`` x ``draws`` draws were asked
    for; None means: those that have a record. ``groups``: number of variants asked for in each group, needed with
    ``questions`` by metrics over variants. ``own``: metrics of the task's own scorer (tasks/scoring.py), by name.
    ``scoring``: "sound", or "official" with its rule. ``judged``: the official protocol asks a judge.
    """

    name: str
    suites: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    questions: int | None = None
    draws: int = 1
    groups: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, Json] = field(default_factory=dict)
    scoring: str = "sound"
    judged: bool = False

    @property
    def primary(self) -> str:
        """Name of the metric that stands for the task."""
        return self.metrics[0] if self.metrics else "accuracy"


class Draw(NamedTuple):
    """What a metric sees of a Record.

    ``cause`` is set where the draw was not measured, ``verdict`` (correct, incorrect, unverifiable) where it was. A
    measured reply that nobody judged is unverifiable. ``answer``: as it was compared, else as it was extracted.
    """

    sample: str
    draw: int
    group: str
    level: str | None
    fields: Mapping[str, Json]
    cause: str | None
    verdict: str | None
    answer: str | None
    usage: Usage
    truncated: bool

    @property
    def right(self) -> bool:
        """Whether it was measured and found correct."""
        return self.verdict == "correct"


Metric: TypeAlias = Callable[[Sequence[Draw], TaskMeta], Mapping[str, Json]]
"""A further metric: one task's draws (each at most once, measured or not, sorted by sample and draw) to named values.

It returns its own name (a fraction in [0, 1], or None where nothing could be computed) and may add NAME_stderr,
NAME_ci95, NAME_worst, NAME_best and whatever explains it. It must not count what was not measured as wrong.
"""


def estimated(name: str, estimate: Estimate | None) -> dict[str, Json]:
    """NAME, NAME_stderr and NAME_ci95 of an estimate; all None where there is none."""
    if estimate is None:
        return {name: None, f"{name}_stderr": None, f"{name}_ci95": None}
    interval = None if estimate.interval is None else list(estimate.interval)
    return {name: estimate.mean, f"{name}_stderr": estimate.stderr, f"{name}_ci95": interval}


# ---------------------------------------------------------------- variants of a question


def _worst_case(draws: Sequence[Draw], meta: TaskMeta) -> dict[str, Json]:
    """A question counts only if all its variants are right, for each draw; the mean over questions and draws.

    Over the groups of which every variant was measured; the others are named in ``worst_case_partial`` and make the
    bounds: a group with a wrong variant is lost whatever the rest would have been. Where the groups of some questions
    are not known (``meta.groups``), neither is any group's size: no value, and bounds of 0 and 1.
    """
    seen: dict[str, set[str]] = defaultdict(set)
    cells: dict[tuple[str, int], list[Draw]] = defaultdict(list)
    for draw in draws:
        seen[draw.group].add(draw.sample)
        if draw.cause is None:
            cells[draw.group, draw.draw].append(draw)
    known = meta.questions is None or sum(meta.groups.values()) == meta.questions
    sizes = meta.groups or {group: len(samples) for group, samples in seen.items()}
    complete: dict[str, list[bool]] = defaultdict(list)
    shares: dict[str, list[bool]] = defaultdict(list)
    partial: list[str] = []
    lost = won = 0
    for group in sorted(sizes):
        for number in range(meta.draws):
            variants = cells.get((group, number), [])
            right = [draw.right for draw in variants]
            lost += any(draw.verdict == "incorrect" for draw in variants)
            if right:
                shares[group] += right
            if len(variants) == sizes[group]:
                complete[group].append(all(right))
                won += all(right)
            elif group not in partial[-1:]:
                partial.append(group)
    total = len(sizes) * meta.draws
    worst = from_sums([(sum(cell), len(cell)) for cell in complete.values()]) if complete and known else None
    average = from_sums([(metrics.avg_at_k(right), 1) for right in shares.values()]) if shares else None
    return {
        **estimated("worst_case", worst),
        "worst_case_worst": won / total if total and known else 0.0,
        "worst_case_best": (total - lost) / total if total and known else 1.0,
        "worst_case_groups": len(sizes) if known else None,
        "worst_case_partial": partial,
        **estimated("average_case", average),
    }


# ---------------------------------------------------------------- We-Math


class _Problem(NamedTuple):
    """A composite problem in one draw: its one-step questions and the composite one. None: not known."""

    steps: tuple[bool | None, ...]
    whole: bool | None


def _scores(problem: _Problem, unknown: bool) -> tuple[str, str]:
    """(strict, loose) dimension of a problem, everything unknown taken as ``unknown``: CM, RM, IG or IK."""
    steps = [unknown if step is None else step for step in problem.steps]
    whole = unknown if problem.whole is None else problem.whole
    if not whole:
        return ("IG", "IG") if all(steps) else ("IK", "IK")
    return ("CM" if all(steps) else "RM"), ("CM" if any(steps) else "RM")


_POINTS = {"CM": 1.0, "IG": 0.5, "RM": 0.0, "IK": 0.0}


def _wemath(draws: Sequence[Draw], meta: TaskMeta) -> dict[str, Json]:
    """We-Math's score (Qiao et al. 2024, arXiv:2407.01284; four_dimensional_metrics.py): mean points of the problems.

    A problem is a group: its one-step questions (field ``step``: ``2steps_1``) and the composite one (``..._multi``).
    Complete mastery (CM, 1 point): the composite is right and so are all steps (strict) or at least one (loose); rote
    memorisation (RM, 0): right all the same; inadequate generalisation (IG, half): only the composite is wrong;
    insufficient knowledge (IK, 0): the composite and a step are wrong. The authors' score is the same number over their
    525 problems; this one is over the problems asked, so that it holds for a part of them too. Shares: IK and IG of
    all problems, CM likewise, RM of those whose composite is right, as the authors print them. Problems of which a
    question was not measured are in ``wemath_partial``; they, and answers that nobody could verify, make the bounds.
    """
    known = meta.questions is None or sum(meta.groups.values()) == meta.questions
    seen: dict[str, set[str]] = defaultdict(set)
    cells: dict[tuple[str, int], list[Draw]] = defaultdict(list)
    for draw in draws:
        seen[draw.group].add(draw.sample)
        cells[draw.group, draw.draw].append(draw)
    sizes = meta.groups or {group: len(samples) for group, samples in seen.items()}
    dimensions: dict[str, list[tuple[str, str]]] = defaultdict(list)
    lows, highs = [[0.0, 0.0], [0.0, 0.0]]
    partial: list[str] = []
    for group in sorted(sizes):
        for number in range(meta.draws):
            problem = _problem(cells.get((group, number), []), sizes[group])
            for kind, name in enumerate(_scores(problem, False)):
                lows[kind] += _POINTS[name]
            for kind, name in enumerate(_scores(problem, True)):
                highs[kind] += _POINTS[name]
            if sum(draw.cause is None for draw in cells.get((group, number), [])) == sizes[group]:
                dimensions[group].append(_scores(problem, False))
            elif group not in partial[-1:]:
                partial.append(group)
    total = len(sizes) * meta.draws
    values: dict[str, Json] = {}
    for kind, name in enumerate(("strict", "loose")):
        sums = [(math.fsum(_POINTS[d[kind]] for d in found), len(found)) for found in dimensions.values()]
        values |= estimated(f"wemath_{name}", from_sums(sums) if sums and known else None)
        values[f"wemath_{name}_worst"] = lows[kind] / total if total and known else 0.0
        values[f"wemath_{name}_best"] = highs[kind] / total if total and known else 1.0
        counts = [d[kind] for found in dimensions.values() for d in found]
        right = counts.count("CM") + counts.count("RM")
        values[f"wemath_{name}_rm"] = counts.count("RM") / right if right else None
        values[f"wemath_{name}_cm"] = counts.count("CM") / len(counts) if counts else None
        values["wemath_ig"] = counts.count("IG") / len(counts) if counts else None
        values["wemath_ik"] = counts.count("IK") / len(counts) if counts else None
    return values | {"wemath_groups": len(sizes) if known else None, "wemath_partial": partial}


def _problem(draws: Sequence[Draw], size: int) -> _Problem:
    whole: bool | None = None
    steps: list[bool | None] = []
    composite = False
    for draw in draws:
        value = draw.right if draw.verdict in ("correct", "incorrect") else None
        if str(draw.fields.get("step", "")).endswith("_multi"):
            whole, composite = value, True
        else:
            steps.append(value)
    # A composite question without a record is one of those that are missing.
    steps += [None] * (size - len(draws) - (0 if composite else 1))
    return _Problem(tuple(steps), whole)


# ---------------------------------------------------------------- parts of a benchmark


def _parts(draws: Sequence[Draw]) -> dict[str, list[Draw]]:
    """Draws by the field ``part`` that the task keeps (MMMU-Pro's setting, a BBEH task)."""
    parts: dict[str, list[Draw]] = defaultdict(list)
    for draw in draws:
        parts[str(draw.fields.get("part"))].append(draw)
    return dict(sorted(parts.items()))


def _accuracy(draws: Sequence[Draw]) -> Estimate | None:
    groups: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for draw in draws:
        if draw.cause is None:
            groups[draw.group][0] += draw.right
            groups[draw.group][1] += 1
    return from_sums([(right, count) for right, count in groups.values()]) if groups else None


def _part_mean(draws: Sequence[Draw], meta: TaskMeta) -> dict[str, Json]:
    """The plain mean of the parts' accuracies, however large each is (MMMU-Pro's overall score, BBH's average).

    Over the parts that were asked; None where nothing of one of them was measured. ``parts``: each one's accuracy.
    """
    found = {name: _accuracy(part) for name, part in _parts(draws).items()}
    estimates = [estimate for estimate in found.values() if estimate is not None]
    values: dict[str, Json] = {"part_mean": None, "part_mean_stderr": None, "part_mean_ci95": None}
    if estimates and len(estimates) == len(found):
        values["part_mean"] = math.fsum(e.mean for e in estimates) / len(estimates)
        errors = [e.stderr for e in estimates if e.stderr is not None]
        if len(errors) == len(estimates):
            values["part_mean_stderr"] = math.sqrt(math.fsum(e * e for e in errors)) / len(errors)
        intervals = [(e.mean, e.interval) for e in estimates if e.interval is not None]
        if len(intervals) == len(estimates):
            values["part_mean_ci95"] = list(interval_of_mean(intervals))
    asked = meta.questions is None or meta.questions * meta.draws == len(draws)
    for name, taken in (("worst", ("correct",)), ("best", ("correct", "unverifiable", None))):
        shares = [sum(d.verdict in taken for d in part) / len(part) for part in _parts(draws).values()]
        certain = asked and shares
        values[f"part_mean_{name}"] = math.fsum(shares) / len(shares) if certain else float(name == "best")
    return values | {"parts": {name: estimate and estimate.mean for name, estimate in found.items()}}


def _part_harmonic(draws: Sequence[Draw], meta: TaskMeta) -> dict[str, Json]:  # noqa: ARG001
    """The harmonic mean of the parts' accuracies, one point (0.01) added to each so that a zero does not end it.

    BBEH's headline number (Kazemi et al. 2025, arXiv:2502.19187). At most 1.
    """
    found = [_accuracy(part) for part in _parts(draws).values()]
    means = [estimate.mean for estimate in found if estimate is not None]
    if not means or len(means) != len(found):
        return {"part_harmonic": None}
    return {"part_harmonic": min(1.0, len(means) / math.fsum(1 / (mean + 0.01) for mean in means))}


METRICS: dict[str, Metric] = {
    "worst_case": _worst_case,
    "wemath_strict": _wemath,
    "part_mean": _part_mean,
    "part_harmonic": _part_harmonic,
}
"""Metrics that a task may ask for by name, besides accuracy and what several draws add."""

GROUP_METRICS = frozenset({"worst_case", "wemath_strict"})
"""Metrics over whole groups: they need to know how many variants each group has, and `--limit` counts groups."""
