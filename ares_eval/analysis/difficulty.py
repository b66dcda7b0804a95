"""How hard a question is for this analysis: from the dataset's label, from pass rates, or from another run.

Every kind gives each draw a value between 0 (easiest) and 1 (hardest), a rung (the label or the pass rate it came from)
and a tier: easy, medium or hard. Pass rates use the paper's fractions, which for 8 draws are its counts (appendix G):
easy p >= 2/3, hard p < 1/3, and difficulty is 1 - p. Labels are placed evenly by their order; below 1/3 of the way is
easy, above 2/3 hard.

A draw must not decide the difficulty that it is then compared with: a lucky draw would make its question easy and its
length typical of easy questions. So own pass rates are taken from the *other* draws of the question: all others
(``leave_one_out``), or the other half (``split_half``: even draws rate odd ones and the reverse). Draws of one question
are independent given the question, so both are free of that bias. ``same_draws`` is AdaCS's k/8, with the bias.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from ares_eval.analysis.columns import Draws

if TYPE_CHECKING:
    import numpy as np

TIERS = ("easy", "medium", "hard")

EASY_FROM, HARD_BELOW = Fraction(2, 3), Fraction(1, 3)
"""Pass rates; with 8 draws: 6 or more right is easy, 2 or fewer hard."""

CROSS_FITS = ("leave_one_out", "split_half", "same_draws")

_TIER_LABELS = {
    "very easy": 0, "easy": 0, "simple": 0,
    "medium": 1, "moderate": 1, "intermediate": 1, "normal": 1,
    "hard": 2, "difficult": 2, "challenging": 2, "very hard": 2,
}  # fmt: skip
"""Labels that name a tier themselves, in their order; their difficulty is 0, 0.5 or 1 whichever of them occur."""

_SCHOOLS = (
    "elementary", "elementary school", "primary school", "middle school", "high school",
    "undergraduate", "college", "university", "graduate", "competition", "olympiad",
)  # fmt: skip


class NoDifficulty(Exception):
    """There is no difficulty of the kind asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Of N draws. ``value`` (N,): 0 easiest, 1 hardest, NaN unknown. ``tier`` (N,): index into TIERS, -1 unknown.
    ``rung`` (N,): index into ``rungs``, names in rising difficulty, -1 unknown. ``pass_rate`` (N,): NaN unless the kind
    is one of pass rates. ``kind``: level, pass_rate, or run:NAME."""

    kind: str
    value: np.ndarray
    tier: np.ndarray
    rung: np.ndarray
    rungs: tuple[str, ...]
    pass_rate: np.ndarray
    note: str = ""


def tier_of_pass_rate(right: int, draws: int) -> int:
    """Index into TIERS of ``right`` right draws of ``draws`` > 0, in exact arithmetic."""
    rate = Fraction(right, draws)
    return 0 if rate >= EASY_FROM else 2 if rate < HARD_BELOW else 1


def from_levels(levels: Sequence[str | None]) -> Difficulty:
    """By the dataset's label of each draw's question. NoDifficulty where the labels have no known order."""
    import numpy as np

    known = {level for level in levels if level is not None}
    if not known:
        raise NoDifficulty("the dataset has no difficulty labels")
    ordered = ordered_levels(known)
    if len(ordered) < 2:
        raise NoDifficulty(f"all questions have the label {ordered[0]!r}")
    place = {level: i for i, level in enumerate(ordered)}
    rung = np.array([-1 if level is None else place[level] for level in levels], dtype=np.int64)
    last = len(ordered) - 1
    if all(_plain(level) in _TIER_LABELS for level in known):
        tiers = [_TIER_LABELS[_plain(level)] for level in ordered]
        values = [tier / 2 for tier in tiers]
    else:
        tiers = [0 if 3 * i < last else 2 if 3 * i > 2 * last else 1 for i in range(len(ordered))]
        values = [i / last for i in range(len(ordered))]
    # A draw without a label has rung -1, which takes the last entry.
    value, tier = np.array([*values, np.nan])[rung], np.array([*tiers, -1])[rung]
    return Difficulty("level", value, tier, rung, tuple(ordered), np.full(len(levels), np.nan))


def ordered_levels(levels: set[str]) -> list[str]:
    """Labels from easy to hard; NoDifficulty where neither a number nor a known word orders them."""
    numbers = {level: re.findall(r"\d+(?:\.\d+)?", level) for level in levels}
    stems = {re.sub(r"\d+(?:\.\d+)?", "#", level).strip().lower() for level in levels}
    if len(stems) == 1 and all(len(found) == 1 for found in numbers.values()):
        return sorted(levels, key=lambda level: (float(numbers[level][0]), level))
    for scale in (list(_TIER_LABELS), _SCHOOLS):
        if all(_plain(level) in scale for level in levels):
            return sorted(levels, key=lambda level: scale.index(_plain(level)))
    shown = ", ".join(sorted(levels)[:4])
    raise NoDifficulty(f"the labels have no known order ({shown}{', ...' if len(levels) > 4 else ''})")


def _plain(level: str) -> str:
    return re.sub(r"[\s_-]+", " ", level).strip().lower()


def from_own_pass_rate(
    question: np.ndarray, draw: np.ndarray, right: np.ndarray, cross_fit: str = "leave_one_out"
) -> Difficulty:
    """By the pass rate of other draws of the same question. NoDifficulty where no question has two draws.

    Arrays (N,): the question's number, the draw's number within it, and whether it was right.
    """
    import numpy as np

    if cross_fit not in CROSS_FITS:
        raise ValueError(f"no way {cross_fit!r} to use own draws; there are {', '.join(CROSS_FITS)}")
    size = int(question.max(initial=-1)) + 1
    if cross_fit == "split_half":
        half = question * 2 + draw % 2
        other = question * 2 + 1 - draw % 2
        solved = np.bincount(half, weights=right, minlength=2 * size)[other]
        asked = np.bincount(half, minlength=2 * size)[other]
    else:
        solved = np.bincount(question, weights=right, minlength=size)[question]
        asked = np.bincount(question, minlength=size)[question]
        if cross_fit == "leave_one_out":
            solved, asked = solved - right, asked - 1
    if cross_fit != "same_draws" and not (asked > 0).any():
        raise NoDifficulty("one draw a question: own pass rates need --samples of 2 or more")
    note = {
        "leave_one_out": "pass rate of the question's other draws",
        "split_half": "pass rate of the other half of the question's draws",
        "same_draws": "pass rate of the same draws: biased, since a draw then decides its own difficulty",
    }[cross_fit]
    return _from_counts("pass_rate", solved.astype(np.int64), asked.astype(np.int64), note)


def from_reference(
    draws: Draws, rows: np.ndarray, reference: Mapping[tuple[str, str], tuple[int, int]], name: str
) -> Difficulty:
    """By the pass rate that another run has on the same question: (task, sample) -> (right, measured)."""
    import numpy as np

    counts = [reference.get((draws.records[i].task, draws.records[i].sample), (0, 0)) for i in rows.tolist()]
    solved = np.array([right for right, _ in counts], dtype=np.int64)
    asked = np.array([measured for _, measured in counts], dtype=np.int64)
    if not (asked > 0).any():
        raise NoDifficulty(f"the reference run {name} measured none of these questions")
    return _from_counts(f"run:{name}", solved, asked, f"pass rate of {name}")


def pass_counts(draws: Draws) -> dict[tuple[str, str], tuple[int, int]]:
    """(right, measured) of every question of a run, for ``from_reference``."""
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for record, right in zip(draws.records, draws.right.tolist(), strict=True):
        solved, asked = counts.get((record.task, record.sample), (0, 0))
        counts[record.task, record.sample] = (solved + right, asked + 1)
    return counts


def _from_counts(kind: str, solved: np.ndarray, asked: np.ndarray, note: str) -> Difficulty:
    import numpy as np

    known = asked > 0
    pairs = list(zip(solved.tolist(), asked.tolist(), strict=True))
    rates = sorted({Fraction(right, draws) for right, draws in pairs if draws}, reverse=True)
    place = {rate: i for i, rate in enumerate(rates)}
    rung = np.array([place[Fraction(right, draws)] if draws else -1 for right, draws in pairs], dtype=np.int64)
    tier = np.array([tier_of_pass_rate(right, draws) if draws else -1 for right, draws in pairs], dtype=np.int64)
    rate = np.divide(solved, asked, out=np.full(len(solved), np.nan), where=known)
    # One denominator for all, so that a ladder reads 4/4, 3/4, 2/4 and not 1, 3/4, 1/2.
    same = {draws for _, draws in pairs if draws}
    base = same.pop() if len(same) == 1 else None
    names = tuple(f"{rate * base}/{base}" if base else str(rate) for rate in rates)
    return Difficulty(kind, 1 - rate, tier, rung, names, rate, note)


def pooled(parts: Sequence[tuple[np.ndarray, Difficulty]], n: int) -> Difficulty:
    """The difficulties of several tasks as one of ``n`` draws: (rows, difficulty) of each, at least one.

    Values and tiers are those of each task. Rungs are kept where all tasks have the same ladder; ``kind`` is ``mixed``
    where their kinds differ.
    """
    import numpy as np

    kinds = {part.kind for _, part in parts}
    same = len(kinds) == 1 and len({part.rungs for _, part in parts}) == 1
    value, rate = np.full(n, np.nan), np.full(n, np.nan)
    tier, rung = np.full(n, -1), np.full(n, -1)
    for rows, part in parts:
        value[rows], tier[rows], rate[rows] = part.value, part.tier, part.pass_rate
        if same:
            rung[rows] = part.rung
    first = parts[0][1]
    kind = first.kind if len(kinds) == 1 else "mixed"
    return Difficulty(kind, value, tier, rung, first.rungs if same else (), rate, first.note if len(kinds) == 1 else "")
