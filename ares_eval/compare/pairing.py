"""Which draws of two runs belong together, and the refusal to compare what does not.

A pair is the same draw of the same question of the same task. Two runs are refused, with all reasons at once, where
their tasks, questions or draws differ (``partial`` takes what both have and says what is left out), where a task's
definition differs (``changed``: compare all the same), and where a question of one name has another right answer.
Failed draws pair like any others; whether a pair can be judged (both measured) is asked later and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

from ares_eval.outcomes import Key, Outcome, Outcomes, TaskOutcomes

NAMED = 5
"""Samples named in a message; counts cover the rest."""

SAME_REFERENCES = 0.9
"""Pairing by position wants so many right answers to agree; harnesses spell a few of them differently."""

By: TypeAlias = Literal["id", "position"]


class Mismatch(Exception):
    """Two runs that cannot be compared as asked; ``reasons`` has a line for each cause and its mend.

    ``candidate_lacks``: the only cause is that run b lacks tasks or draws which run a has, so finishing it would help.
    """

    def __init__(self, reasons: Sequence[str], *, candidate_lacks: bool = False) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = tuple(reasons)
        self.candidate_lacks = candidate_lacks


class Pair(NamedTuple):
    """One draw of one question in both runs."""

    sample: str
    draw: int
    a: Outcome
    b: Outcome

    @property
    def measured(self) -> bool:
        """Whether both were measured, so that they can be compared."""
        return self.a.measured and self.b.measured

    @property
    def group(self) -> str:
        """The question whose variants and draws are not independent."""
        return self.a.group or self.b.group or self.sample


@dataclass(frozen=True, slots=True)
class TaskPairs:
    """All pairs of one task, sorted; ``only_a`` and ``only_b``: draws that the other run does not have."""

    task: str
    pairs: tuple[Pair, ...]
    only_a: int
    only_b: int
    files: tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two runs, paired; ``notes`` say what a reader must know about how far they are alike."""

    a: Outcomes
    b: Outcomes
    tasks: tuple[TaskPairs, ...]
    notes: tuple[str, ...]


def pair(
    a: Outcomes,
    b: Outcomes,
    *,
    partial: bool = False,
    changed: bool = False,
    by: By = "id",
    names: Mapping[str, str] | None = None,
) -> Pairing:
    """Pair two runs; ``names`` gives tasks of ``b`` the names they have in ``a``. Raises Mismatch."""
    b = _renamed(a, b, names or {})
    reasons: list[str] = []
    notes: list[str] = [*a.notes, *b.notes]
    missing = [
        f"{task}: only in {run.label}"
        for run, other in ((a, b), (b, a))
        for task in sorted(run.tasks.keys() - other.tasks.keys())
    ]
    shared = sorted(a.tasks.keys() & b.tasks.keys())
    if not shared:
        raise Mismatch(
            [*missing, "the runs share no task (--task-map NAME_IN_B=NAME_IN_A where only the names differ)"]
        )
    (notes if partial else reasons).extend(missing)
    tasks = []
    for task in shared:
        found, refused, noted = _task(task, a, b, by, partial, changed)
        tasks.append(found)
        reasons += refused
        notes += noted
    if reasons:
        raise Mismatch(reasons, candidate_lacks=_candidate_lacks(reasons, tasks, a, b))
    if a.model != b.model and any(p.a.tokens and p.b.tokens for t in tasks for p in t.pairs[:50]):
        notes.append("tokens are compared as each server counted them; the models' tokenizers may differ")
    return Pairing(a, b, tuple(tasks), tuple(notes))


def _renamed(a: Outcomes, b: Outcomes, names: Mapping[str, str]) -> Outcomes:
    """``b`` with its tasks under the names of ``a``: as told, else where only our own prefix differs."""
    if unknown := sorted(names.keys() - b.tasks.keys()):
        raise Mismatch([f"--task-map: {b.label} has no task {unknown[0]!r}; it has {', '.join(sorted(b.tasks))}"])

    def name(task: str) -> str:
        if task in names:
            return names[task]
        if task not in a.tasks:
            for other in (f"ares_{task}", task.removeprefix("ares_")):
                if other in a.tasks and other not in b.tasks:
                    return other
        return task

    return replace(b, tasks={name(task): outcomes for task, outcomes in b.tasks.items()})


def _task(
    task: str, a: Outcomes, b: Outcomes, by: By, partial: bool, changed: bool
) -> tuple[TaskPairs, list[str], list[str]]:
    """The pairs of one task, why they are refused, and what is to be noted."""
    in_a, in_b = a.tasks[task], b.tasks[task]
    reasons: list[str] = []
    notes: list[str] = []
    if None not in (in_a.fingerprint, in_b.fingerprint) and in_a.fingerprint != in_b.fingerprint:
        text = f"{task}: its definition (questions, references or scoring) differs between the runs"
        (notes if changed else reasons).append(text if changed else f"{text} (--allow-changed-tasks compares anyway)")
    if in_a.judges and in_b.judges and in_a.judges != in_b.judges:
        judges = f"{', '.join(in_a.judges)} and {', '.join(in_b.judges)}"
        notes.append(f"{task}: answers were judged by different versions ({judges}); see `ares-eval rescore`")
    for label, outcomes in ((a.label, in_a), (b.label, in_b)):
        if outcomes.planned is not None and (lost := outcomes.planned - len(outcomes.draws)) > 0:
            notes.append(
                f"{task}: {lost} of {outcomes.planned} draws were never recorded in {label}, which is unfinished"
            )
    if by == "position":
        draws_a, draws_b = _by_position(task, a.label, in_a), _by_position(task, b.label, in_b)
    else:
        draws_a, draws_b = dict(in_a.draws), dict(in_b.draws)
    both = sorted(draws_a.keys() & draws_b.keys())
    pairs = tuple(Pair(sample, draw, draws_a[sample, draw], draws_b[sample, draw]) for sample, draw in both)
    only_a, only_b = sorted(draws_a.keys() - draws_b.keys()), sorted(draws_b.keys() - draws_a.keys())
    left_out = [
        f"{task}: {len(only)} of {len(whole)} draws only in {label}: {_named(only)}"
        for only, whole, label in ((only_a, draws_a, a.label), (only_b, draws_b, b.label))
        if only
    ]
    if left_out:
        hint = [] if partial else [f"{task}: --allow-partial compares the {len(both)} draws that both have"]
        if not both:
            hint = [f"{task}: no draw has the same name in both (--pair-by position where the order is the same)"]
        (notes if partial and both else reasons).extend(left_out + hint)
    reasons += _references(task, pairs, by)
    worded = sum(bool(p.a.prompt and p.b.prompt) and p.a.prompt != p.b.prompt for p in pairs)
    if worded and a.harness in ("ares", "baseline") and b.harness in ("ares", "baseline"):
        notes.append(f"{task}: {worded} of {len(pairs)} draws were asked in other words (prompt style, system prompt)")
    files = (in_a.file, in_b.file)
    return TaskPairs(task, pairs, len(only_a), len(only_b), files), reasons, notes


def _candidate_lacks(reasons: Sequence[str], tasks: Sequence[TaskPairs], a: Outcomes, b: Outcomes) -> bool:
    """Whether ``reasons`` tell of nothing but draws and tasks missing in ``b``: two lines a task, one a whole task."""
    if b.tasks.keys() - a.tasks.keys() or any(task.only_b for task in tasks):
        return False
    return len(reasons) == len(a.tasks.keys() - b.tasks.keys()) + 2 * sum(bool(task.only_a) for task in tasks)


def _by_position(task: str, label: str, outcomes: TaskOutcomes) -> dict[Key, Outcome]:
    found: dict[Key, Outcome] = {}
    for (_, draw), outcome in outcomes.draws.items():
        if outcome.position is None:
            raise Mismatch([f"{task}: {label} does not tell at which position its questions stand"])
        found[f"{outcome.position:06d}", draw] = outcome
    return found


def _references(task: str, pairs: Sequence[Pair], by: By) -> list[str]:
    """Why the right answers forbid a comparison: under one id all must agree, under one position nearly all."""
    known = [pair for pair in pairs if pair.a.reference and pair.b.reference]
    differ = [(pair.sample, pair.draw) for pair in known if pair.a.reference != pair.b.reference]
    if not differ or (by == "position" and len(differ) <= (1 - SAME_REFERENCES) * len(known)):
        return []
    return [f"{task}: {len(differ)} of {len(known)} questions have another right answer: {_named(differ)}"]


def _named(keys: Sequence[Key]) -> str:
    shown = [f"{sample}#{draw}" if draw else sample for sample, draw in keys[:NAMED]]
    return ", ".join(shown) + (", ..." if len(keys) > NAMED else "")
