"""How difficult each question is, so that easy and hard ones can be compared apart.

    level      the dataset's own label: words that say so (easy, medium, hard), numbers by thirds of their range
               (MATH's 1-2 easy, 3 medium, 4-5 hard), else the label itself
    pass_rate  run a's share of right draws: easy >= 2/3, hard < 1/3, medium between (paper, section 1.4). The tier of
               a draw comes from the other half of the draws (even against odd): were it from the same ones, the draws
               that made a question easy would be the lucky and short ones, and any rerun would seem to regress

Only run a (the baseline) decides, so that both runs' draws of a question stand in one tier.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

from ares_eval.compare.pairing import Pair, TaskPairs

Source: TypeAlias = Literal["auto", "level", "pass_rate"]
TierOf: TypeAlias = Callable[[Pair], str | None]

EASY, MEDIUM, HARD = "easy", "medium", "hard"
EASY_FROM, HARD_BELOW = 2 / 3, 1 / 3

MOST_LEVELS = 12
"""More labels than this are no scale of difficulty."""


def tiers(task: TaskPairs, source: Source = "auto", words: Mapping[str, str] | None = None) -> TierOf | None:
    """The tier of each pair of ``task``; None where ``source`` says nothing of it. auto: level, else pass_rate.

    ``words`` maps a dataset's labels to tiers, before the built-in reading.
    """
    if source in ("auto", "level"):
        found = _by_level(task.pairs, {key.casefold(): tier for key, tier in (words or {}).items()})
        if found is not None:
            return found
    return _by_pass_rate(task.pairs) if source in ("auto", "pass_rate") else None


def _by_level(pairs: Sequence[Pair], words: Mapping[str, str]) -> TierOf | None:
    labels = sorted({label for pair in pairs if (label := pair.a.level or pair.b.level) is not None})
    if not labels or len(labels) > MOST_LEVELS:
        return None
    names = _names(labels)
    chosen = {label: words.get(label.casefold(), names[label]) for label in labels}
    if len(set(chosen.values())) < 2:
        return None
    return lambda pair: chosen.get(pair.a.level or pair.b.level or "")


def _names(labels: Sequence[str]) -> dict[str, str]:
    numbers = {label: _number(label) for label in labels}
    known = [number for number in numbers.values() if number is not None]
    low, high = min(known, default=math.inf), max(known, default=-math.inf)
    names = {}
    for label, number in numbers.items():
        if number is None or low == high or len(known) < len(labels):
            word = label.casefold()
            names[label] = word if word in (EASY, MEDIUM, HARD) else label
        else:
            place = (number - low) / (high - low)
            names[label] = EASY if place < HARD_BELOW else HARD if place > EASY_FROM else MEDIUM
    return names


def _number(label: str) -> float | None:
    found = re.fullmatch(r"(?:level|lvl|l)?\s*(\d{1,6}(?:\.\d{1,6})?)", label.strip(), re.IGNORECASE)
    return float(found[1]) if found else None


def _by_pass_rate(pairs: Sequence[Pair]) -> TierOf | None:
    halves: dict[tuple[str, int], list[float]] = defaultdict(list)
    for pair in pairs:
        if pair.a.measured:
            halves[pair.sample, pair.draw % 2].append(pair.a.score)
    if not any((sample, 1 - half) in halves for sample, half in halves):
        return None

    def tier(pair: Pair) -> str | None:
        scores = halves.get((pair.sample, 1 - pair.draw % 2))
        if not scores:
            return None
        rate = sum(scores) / len(scores)
        return EASY if rate >= EASY_FROM else HARD if rate < HARD_BELOW else MEDIUM

    return tier
