"""How a task that scores by its own rules takes the verifier's place.

A task of `tasks/` is judged by ares_eval.verify. A task of another registry has its own scorer, and faithful means that
scorer: its Task has a ``scorer`` and names its primary metric first in ``metrics``. The session hands every measured
reply to ``submit`` and keeps what comes back in the record; when all is asked it hands the records to ``summarise``,
whose metrics stand in results.json beside ours.

Such a task also has ``defaults``: the settings (names of RunConfig) that it brings along, used where the user did not
set them. A Sample may have its own, which go before the task's and must be named by the task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from ares_eval.types import Json, Record, Reply, Sample, Verdict


class ScoringFailed(Exception):
    """The task's own scorer could not sum up; the message is one line that names the task and the cause."""


@dataclass(frozen=True, slots=True)
class Score:
    """What the scorer made of one reply. ``fields`` are added to the record's fields."""

    verdict: Verdict
    fields: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """What the scorer made of all replies.

    ``metrics``: by name, with NAME_stderr, NAME_ci95, NAME_worst and NAME_best for the primary one where they are
    known; the primary one is None where nothing could be computed. ``scores``: by (sample, draw), where a reply's score
    is known only now; the session records them anew.
    """

    metrics: Mapping[str, Json]
    scores: Mapping[tuple[str, int], Score] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgeModel:
    """A model for scorers that ask one: its name, and its replies to (system prompt or None, prompt) pairs.

    None stands for a question that was not answered. ``complete`` is called from one thread at a time.
    """

    name: str
    complete: Callable[[Sequence[tuple[str | None, str]]], Sequence[str | None]]


class Scorer(Protocol):
    """A task's own scoring. Used from one thread; its futures may complete in any."""

    def submit(self, sample: Sample, draw: int, reply: Reply) -> Future[Score]:
        """The score of one reply, to come. What goes wrong with one reply is an ``unverifiable`` verdict."""

    def summarise(self, records: Iterable[Record], *, questions: int, draws: int) -> Summary:
        """Sum up a task: its records that count, one a draw, measured or not; ``questions`` x ``draws`` were asked for.

        What was not measured must not count as wrong. Raises ScoringFailed.
        """

    def close(self) -> None:
        """End every process that scoring started; a later ``submit`` may start one again."""
