"""L(0), L(1) and the target length of a question: how many tokens a response should have for how hard it is.

For a source, L(0) is the median length of the responses to questions that the estimator never answers (p = 0), L(1)
that of the responses to questions that it always answers (p = 1); between them L_target(p) = (1 - p) L(0) + p L(1)
(arXiv:2510.08457v1, section 4, equation 4). A source may lack either end, so each end has a chain of fallbacks and says
which one it came from. Responses that the token limit cut off have censored lengths: they are counted, never measured.

Plain arrays in, plain values out; no order of rows changes a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Origin: TypeAlias = Literal["source", "modality", "global", "fit_source", "fit_global", "none"]
"""Where an end's length comes from: a median over the source, over its modality, over everything; the line through the
medians of the other pass rates, of the source or of everything; nowhere."""

Inverted: TypeAlias = Literal["skip_rule", "global", "keep"]
"""What to do where L(0) <= L(1): no length rule for the source, the medians over everything, or the source's own."""

BRACKETS = 11
"""p = 0, then 8 p rounded for p between, then p = 1: with more than eight valid draws a p near an end rounds to the
end's tier without being it."""


@dataclass(frozen=True, slots=True)
class Responses:
    """One row a response (R rows). ``question`` int [R] into Questions; ``length`` int [R] tokens; ``usable`` bool [R]:
    measured and complete; ``truncated`` bool [R]: cut off by the token limit."""

    question: np.ndarray
    length: np.ndarray
    usable: np.ndarray
    truncated: np.ndarray


@dataclass(frozen=True, slots=True)
class Questions:
    """One row a question (Q rows). ``source`` and ``modality`` int [Q] codes; ``p`` float [Q] in [0, 1]."""

    source: np.ndarray
    modality: np.ndarray
    p: np.ndarray


@dataclass(frozen=True, slots=True)
class Behind:
    """What stands behind an end's own median: ``median`` tokens (None without a response), questions, responses, and
    the responses left out since they were cut off."""

    median: float | None
    questions: int
    responses: int
    truncated: int


@dataclass(frozen=True, slots=True)
class Ends:
    """L(0) and L(1) of one source in tokens, None where nothing gives them. ``rule``: whether lengths are chosen by
    them at all. ``warnings``: sentences about what is odd. ``hard``, ``easy``: the source's own medians."""

    l0: float | None
    l1: float | None
    l0_from: Origin
    l1_from: Origin
    rule: bool
    hard: Behind
    easy: Behind
    flags: tuple[str, ...]

    def target(self, p: float) -> float | None:
        """L_target(p) in tokens; None without a rule."""
        if not self.rule or self.l0 is None or self.l1 is None:
            return None
        return (1 - p) * self.l0 + p * self.l1


@dataclass(frozen=True, slots=True)
class LengthTable:
    """``sources``: Ends by source code; ``whole``: those of all sources together."""

    sources: tuple[Ends, ...]
    whole: Ends


def targets(table: LengthTable, source: np.ndarray, p: np.ndarray) -> np.ndarray:
    """L_target of each question, float [Q]; NaN where its source has no length rule."""
    l0 = np.array([ends.l0 if ends.rule else np.nan for ends in table.sources], dtype=np.float64)
    l1 = np.array([ends.l1 if ends.rule else np.nan for ends in table.sources], dtype=np.float64)
    found: np.ndarray = (1 - p) * l0[source] + p * l1[source]
    return found


def find(
    responses: Responses, questions: Questions, sources: int, *, fewest: int = 5, inverted: Inverted = "skip_rule"
) -> LengthTable:
    """The ends of every source (codes 0 .. ``sources`` - 1), from medians of at least ``fewest`` questions each."""
    cells = _Cells.build(responses, questions, sources)
    modality_of = np.full(sources, -1)
    modality_of[questions.source] = questions.modality
    everything = list(range(sources))
    whole = _ends(cells, everything, [("global", everything)], [("fit_global", everything)], fewest)
    found = []
    for source in range(sources):
        alike = [other for other in everything if modality_of[other] == modality_of[source]]
        scopes: list[tuple[Origin, list[int]]] = [("source", [source]), ("modality", alike), ("global", everything)]
        fits: list[tuple[Origin, list[int]]] = [("fit_source", [source]), ("fit_global", everything)]
        found.append(_ruled(_ends(cells, [source], scopes, fits, fewest), whole, inverted))
    return LengthTable(tuple(found), _ruled(whole, whole, inverted))


# ---------------------------------------------------------------- inside


def _ends(
    cells: _Cells,
    own: list[int],
    scopes: Sequence[tuple[Origin, list[int]]],
    fits: Sequence[tuple[Origin, list[int]]],
    fewest: int,
) -> Ends:
    hard, easy = cells.behind(own, 0), cells.behind(own, BRACKETS - 1)
    l0, l0_from = _end(cells, 0, scopes, fits, fewest)
    l1, l1_from = _end(cells, BRACKETS - 1, scopes, fits, fewest)
    flags = [f"{name}_{origin}" for name, origin in (("l0", l0_from), ("l1", l1_from)) if origin != scopes[0][0]]
    flags += [f"{name}_censored" for name, end in (("l0", hard), ("l1", easy)) if end.truncated]
    return Ends(l0, l1, l0_from, l1_from, l0 is not None and l1 is not None, hard, easy, tuple(flags))


def _end(
    cells: _Cells,
    bracket: int,
    scopes: Sequence[tuple[Origin, list[int]]],
    fits: Sequence[tuple[Origin, list[int]]],
    fewest: int,
) -> tuple[float | None, Origin]:
    for origin, members in scopes:
        behind = cells.behind(members, bracket)
        if behind.median is not None and behind.questions >= fewest:
            return behind.median, origin
    for origin, members in fits:
        length = _fitted(cells, members, fewest, 0.0 if bracket == 0 else 1.0)
        if length is not None:
            return length, origin
    return None, "none"


def _fitted(cells: _Cells, members: list[int], fewest: int, p: float) -> float | None:
    """The least-squares line through the medians of brackets with enough questions, at ``p``; at least one token.
    None with fewer than two such brackets."""
    points = []
    for bracket in range(BRACKETS):
        behind = cells.behind(members, bracket)
        if behind.median is not None and behind.questions >= fewest:
            points.append((cells.mean_p(members, bracket), behind.median))
    if len({x for x, _ in points}) < 2:
        return None
    x, y = np.array(points).T
    centred = x - x.mean()
    slope = float((centred * y).sum() / (centred * centred).sum())
    return max(1.0, float(y.mean()) + slope * (p - float(x.mean())))


def _ruled(ends: Ends, whole: Ends, inverted: Inverted) -> Ends:
    """``ends`` after the policy for inverted ones."""
    if ends.l0 is None or ends.l1 is None or ends.l0 > ends.l1:
        return ends
    l0, l1, l0_from, l1_from, rule = ends.l0, ends.l1, ends.l0_from, ends.l1_from, inverted == "keep"
    if inverted == "global" and whole.l0 is not None and whole.l1 is not None and whole.l0 > whole.l1:
        l0, l1, l0_from, l1_from, rule = whole.l0, whole.l1, whole.l0_from, whole.l1_from, True
    flags = (*ends.flags, "inverted", *(() if rule else ("no_rule",)))
    return Ends(l0, l1, l0_from, l1_from, rule, ends.hard, ends.easy, flags)


@dataclass(frozen=True, slots=True)
class _Cells:
    """Responses sorted by source and bracket: cell c = source * BRACKETS + bracket is rows starts[c] .. starts[c + 1].
    ``truncated`` [C] counts; ``p_sum``, ``p_count`` [C]: of the questions with a usable response."""

    length: np.ndarray
    question: np.ndarray
    starts: np.ndarray
    truncated: np.ndarray
    p_sum: np.ndarray
    p_count: np.ndarray

    @staticmethod
    def build(responses: Responses, questions: Questions, sources: int) -> _Cells:
        bracket = np.where(
            questions.p <= 0, 0, np.where(questions.p >= 1, BRACKETS - 1, 1 + np.floor(8 * questions.p + 0.5))
        ).astype(np.int64)
        cell = questions.source.astype(np.int64) * BRACKETS + bracket
        count = sources * BRACKETS
        rows = np.flatnonzero(responses.usable & ~responses.truncated)
        at = cell[responses.question[rows]]
        order = rows[np.argsort(at, kind="stable")]
        answered = np.unique(responses.question[rows])
        return _Cells(
            length=responses.length[order],
            question=responses.question[order],
            starts=np.concatenate([[0], np.cumsum(np.bincount(at, minlength=count))]),
            truncated=np.bincount(cell[responses.question[responses.truncated]], minlength=count),
            p_sum=np.bincount(cell[answered], weights=questions.p[answered], minlength=count),
            p_count=np.bincount(cell[answered], minlength=count),
        )

    def behind(self, sources: Sequence[int], bracket: int) -> Behind:
        cells = [source * BRACKETS + bracket for source in sources]
        spans = [slice(self.starts[cell], self.starts[cell + 1]) for cell in cells]
        lengths = np.concatenate([self.length[span] for span in spans])
        return Behind(
            median=float(np.median(lengths)) if len(lengths) else None,
            questions=int(self.p_count[cells].sum()),
            responses=len(lengths),
            truncated=int(self.truncated[cells].sum()),
        )

    def mean_p(self, sources: Sequence[int], bracket: int) -> float:
        cells = [source * BRACKETS + bracket for source in sources]
        return float(self.p_sum[cells].sum() / self.p_count[cells].sum())
