"""How difficult each question is, so that easy and hard ones are compared apart (rules: analysis/difficulty.py).

    level      the dataset's own label, ordered; labels without a known order are tiers of their own
    pass_rate  run a's share of right draws. The tier of a draw comes from the other half of the draws (even against
               odd): were it from the same ones, the draws that made a question easy would be the lucky and short ones,
               and any rerun would seem to regress

Only run a (the baseline) decides, so that both runs' draws of a question stand in one tier.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Literal, TypeAlias

from ares_eval.analysis.difficulty import EASY_FROM, HARD_BELOW, TIERS, NoDifficulty, from_levels
from ares_eval.compare.pairing import Pair, TaskPairs

Source: TypeAlias = Literal["auto", "level", "pass_rate"]
TierOf: TypeAlias = Callable[[Pair], str | None]

EASY, MEDIUM, HARD = TIERS

MOST_LEVELS = 12
"""More labels than this are no scale of difficulty."""


def tiers(task: TaskPairs, source: Source = "auto", words: Mapping[str, str] | None = None) -> TierOf | None:
    """The tier of each pair of ``task``; None where ``source`` says nothing of it. auto: level, else pass_rate.

    ``words`` maps a dataset's labels to tiers, before the built-in reading.
    """
    if source in ("auto", "level"):
        found = _by_level(task.pairs, words or {})
        if found is not None:
            return found
    return _by_pass_rate(task.pairs) if source in ("auto", "pass_rate") else None


def _by_level(pairs: Sequence[Pair], words: Mapping[str, str]) -> TierOf | None:
    labels = sorted({label for pair in pairs if (label := pair.a.level or pair.b.level) is not None})
    if not labels or len(labels) > MOST_LEVELS:
        return None
    names = {label: label for label in labels}
    with contextlib.suppress(NoDifficulty):  # then the labels are tiers of their own
        names |= {label: TIERS[tier] for label, tier in zip(labels, from_levels(labels).tier.tolist(), strict=True)}
    names |= {label: words[label] for label in labels if label in words}
    if len(set(names.values())) < 2:
        return None
    return lambda pair: names.get(pair.a.level or pair.b.level or "")


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
        rate = Fraction(sum(scores)) / len(scores)  # exact: two right draws of three are 2/3
        return EASY if rate >= EASY_FROM else HARD if rate < HARD_BELOW else MEDIUM

    return tier
