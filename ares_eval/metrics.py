"""What a set of verdicts amounts to: the formulas behind every number of a run, as pure functions.

Nothing here knows records or files. Every function takes plain booleans or strings of *measured* draws, returns a
fraction in [0, 1], and raises ValueError where the quantity is undefined (no draws, k larger than the number of draws)
instead of inventing a value. None depends on the order of its arguments.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence


def avg_at_k(correct: Sequence[bool]) -> float:
    """Mean correctness of one question's draws: the avg@k of AIME-style protocols, k = ``len(correct)``."""
    if not correct:
        raise ValueError("avg@k of no draws is undefined")
    return sum(correct) / len(correct)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of ``k`` draws is right, from ``c`` right ones among ``n``.

    1 - C(n-c, k) / C(n, k): one minus the share of k-subsets without a right draw (Chen et al. 2021,
    arXiv:2107.03374, equation 1), in exact integers. The naive 1 - (1 - c/n)^k is biased low.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} draws and k >= 1; there are {n}")
    if not 0 <= c <= n:
        raise ValueError(f"{c} right draws of {n}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Whether one question's most frequent answer is right (self-consistency, Wang et al. 2022, arXiv:2203.11171).

    ``answers`` are the normalised extracted answers, compared as strings; None is a draw without an answer and has no
    vote. A tie is worth the share of its winners that are right: the expected value of breaking it at random. (Taking
    the first answer to appear would make the number depend on the order of exchangeable draws.) An answer's own
    rightness is that of its draws, averaged where a grader contradicted itself. Without any answer: 0.
    """
    if not answers or len(answers) != len(correct):
        raise ValueError(f"maj@k of {len(answers)} answers and {len(correct)} verdicts is undefined")
    votes: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for answer, is_right in zip(answers, correct, strict=True):
        if answer is not None:
            votes[answer] += 1
            right[answer] += is_right
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    return sum(right[answer] for answer in winners) / (most * len(winners))


def worst_case(groups: Mapping[str, Sequence[bool]]) -> float:
    """Share of questions all of whose variants are right (DynaMath's worst-case accuracy, arXiv:2411.00836)."""
    if not groups or not all(groups.values()):
        raise ValueError("worst-case accuracy needs at least one group, and no group without a measured variant")
    return sum(all(variants) for variants in groups.values()) / len(groups)


def average_case(groups: Mapping[str, Sequence[bool]]) -> float:
    """Mean over questions of the share of variants that are right (DynaMath's average-case accuracy)."""
    if not groups:
        raise ValueError("average-case accuracy needs at least one group")
    return math.fsum(avg_at_k(variants) for variants in groups.values()) / len(groups)


def powers_of_two(limit: int) -> list[int]:
    """1, 2, 4, ... up to ``limit``: the k for which pass@k is reported."""
    return [1 << i for i in range(limit.bit_length())]
