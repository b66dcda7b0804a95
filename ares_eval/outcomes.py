"""A run as comparisons see it: what became of every draw, without the texts.

ares-eval's own runs, saved baselines and the files of other harnesses all become Outcomes, so that ``compare`` and
``gate`` work between any two of them. ``foreign.load_any`` finds the right reader for a path.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from ares_eval import records
from ares_eval.types import Record

DIGEST = 12
"""Hexadecimal digits kept of a digest: two of 10,000 questions collide with probability 2e-7."""


class Outcome(NamedTuple):
    """What became of one draw.

    ``score``: in [0, 1], 1 for correct; meaningless where ``cause`` is set (not measured). ``tokens``: generated ones,
    reasoning included. ``prompt``, ``reference``: digests, empty where unknown. ``position``: number of the question
    in its source, from 0. ``line``: of the file it was read from. ``hwe``: tokens in high-entropy windows.
    """

    score: float
    cause: str | None = None
    group: str = ""
    level: str | None = None
    tokens: int | None = None
    truncated: bool = False
    unverifiable: bool = False
    prompt: str = ""
    reference: str = ""
    position: int | None = None
    line: int | None = None
    hwe: int | None = None

    @property
    def measured(self) -> bool:
        """False where the reply failed: such a draw is never a wrong answer."""
        return self.cause is None


Key: TypeAlias = tuple[str, int]
"""(sample, draw)"""


@dataclass(frozen=True, slots=True)
class TaskOutcomes:
    """The draws of one task. What is None is not known (other harnesses do not record it).

    ``planned``: draws that were asked for. ``judges``: versions of the verifier, or names of scorers.
    """

    draws: Mapping[Key, Outcome]
    fingerprint: str | None = None
    planned: int | None = None
    judges: tuple[str, ...] = ()
    file: str | None = None


@dataclass(frozen=True, slots=True)
class WindowEntropy:
    """How ``Outcome.hwe`` was counted; counts are comparable where all of this is equal."""

    threshold: float
    window: int
    estimator: str


@dataclass(frozen=True, slots=True)
class Outcomes:
    """A run: ``harness`` is ares, baseline, lm-eval, vlmevalkit or inspect."""

    label: str
    source: Path
    harness: str
    model: str | None
    tasks: Mapping[str, TaskOutcomes]
    window_entropy: WindowEntropy | None = None
    notes: tuple[str, ...] = field(default=())


def of_run(run: records.Run) -> Outcomes:
    """The outcomes of one of ares-eval's own run folders; raises records.RunError for a bad line."""
    kept: dict[str, dict[Key, Outcome]] = {name: {} for name in run.manifest.get("tasks", {})}
    judges: dict[str, set[str]] = {}
    positions = _positions(run.folder)
    for number, record in _numbered(run.folder):
        draws = kept.setdefault(record.task, {})
        key = (record.sample, record.draw)
        if record.measured or key not in draws or not draws[key].measured:
            draws[key] = _outcome(record, number, positions.get((record.task, record.sample)))
        if record.verdict is not None:
            judges.setdefault(record.task, set()).add(record.verdict.version)
    for name, draws in kept.items():
        # A question whose picture could not be read has no prompt, and those after it would be numbered wrongly.
        if any(outcome.position is None for outcome in draws.values()):
            kept[name] = {key: outcome._replace(position=None) for key, outcome in draws.items()}
    tasks: Mapping[str, dict[str, object]] = run.manifest.get("tasks", {})
    return Outcomes(
        label=_label(run),
        source=run.folder,
        harness="ares",
        model=run.manifest.get("model"),
        tasks={
            name: TaskOutcomes(
                draws,
                fingerprint=_text(tasks.get(name, {}).get("fingerprint")),
                planned=_planned(run, name),
                judges=tuple(sorted(judges.get(name, ()))),
                file=str(run.folder / records.SAMPLES),
            )
            for name, draws in kept.items()
        },
    )


def reference_digest(reference: str | tuple[str, ...]) -> str:
    """The short digest of a right answer, the same for spellings in which harnesses differ ("#### 1,000", "1000")."""
    several = [reference] if isinstance(reference, str) else list(reference)
    return digest([_REFERENCE_NOISE.sub("", one.rpartition("####")[2].casefold()) for one in several])


_REFERENCE_NOISE = re.compile(r"[\s,$]|^\(|\)$|\.$")


def digest(value: object) -> str:
    """The short digest of a JSON value."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:DIGEST]


def _numbered(folder: Path) -> Iterator[tuple[int, Record]]:
    """Line number and record; read_records yields every line it reads, so counting them is right."""
    return enumerate(records.read_records(folder / records.SAMPLES), 1)


def _outcome(record: Record, line: int, position: int | None) -> Outcome:
    value = None if record.verdict is None else record.verdict.value
    return Outcome(
        score=float(value == "correct"),
        cause=record.cause,
        group=record.group,
        level=record.level,
        tokens=record.usage.completion,
        truncated=record.truncated,
        unverifiable=record.measured and value not in ("correct", "incorrect"),
        prompt=record.prompt[:DIGEST],
        reference=reference_digest(record.reference),
        position=position,
        line=line,
    )


class _PromptHead(msgspec.Struct):
    task: str
    sample: str


def _positions(folder: Path) -> dict[tuple[str, str], int]:
    """Number of each question within its task: prompts are written in the order in which questions are asked."""
    path = folder / records.PROMPTS
    if not path.exists():
        return {}
    counts: dict[str, int] = {}
    found: dict[tuple[str, str], int] = {}
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            head = msgspec.json.decode(line, type=_PromptHead)
            found[head.task, head.sample] = counts.get(head.task, 0)
            counts[head.task] = counts.get(head.task, 0) + 1
    return found


def _planned(run: records.Run, name: str) -> int | None:
    task = (run.results or {}).get("tasks", {}).get(name)
    if task is not None:
        return int(task["n"])
    planned = run.manifest.get("tasks", {}).get(name, {}).get("planned")
    return planned if isinstance(planned, int) and planned else None


def _label(run: records.Run) -> str:
    model = run.manifest.get("model")
    return f"{model}/{run.folder.name}" if model else run.folder.name


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
