"""Accuracy at a token budget L, from one run: what the model would have scored had it been stopped after L tokens.

Two readings. ``finished``: a reply counts only if it ended within L, so a longer one is wrong. ``reached``: a reply
that was still going counts by its last stated answer (trail.py), so a right answer announced by then is right. Area is
the mean over budgets from 0 to the largest one, that is the share of the budget axis on which a reply is right.
Spending is the mean of min(L, length), which puts models of different habits on one axis: accuracy at equal mean
tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.analysis import bootstrap
from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.trail import Trail

if TYPE_CHECKING:
    import numpy as np

POINTS = 24
"""Budgets on a curve, evenly spaced on a log scale."""

SMALLEST = 8
"""Tokens; nothing is answered in fewer."""


@dataclass(frozen=True, slots=True)
class BudgetPoint:
    """One budget L: accuracy in both readings (``reached`` is None without trails), mean tokens spent, and the share
    of replies that had ended."""

    budget: float
    spent: float
    ended: float
    finished: Estimated | None
    reached: Estimated | None


@dataclass(frozen=True, slots=True)
class Budgets:
    """A curve; ``largest`` is its last budget, over which the areas are taken."""

    unit: str
    largest: float
    points: tuple[BudgetPoint, ...]
    area_finished: Estimated | None
    area_reached: Estimated | None


def budgets(
    length: np.ndarray,
    right: np.ndarray,
    cluster: np.ndarray,
    trails: Sequence[Trail] | None,
    *,
    unit: str = "tokens",
    largest: float | None = None,
) -> Budgets | None:
    """The curve of M replies with known lengths; None where there are none. ``largest``: the end of the axis (the
    longest reply), to be given where areas of several runs are compared."""
    import numpy as np

    known = ~np.isnan(length)
    if not known.any():
        return None
    lengths, hits, clusters = length[known], right[known], cluster[known]
    end = float(largest if largest is not None else max(lengths.max(), SMALLEST + 1))
    kept = None if trails is None else [trail for trail, k in zip(trails, known.tolist(), strict=True) if k]
    spans = None if kept is None else right_spans(kept)

    def average(values: np.ndarray) -> Estimated | None:
        return bootstrap.share(values, clusters)

    def at(budget: float) -> BudgetPoint:
        reached = None if spans is None else average(right_at(spans, len(lengths), budget))
        ended = lengths <= budget
        spent = float(np.minimum(lengths, budget).mean())
        return BudgetPoint(budget, spent, float(ended.mean()), average(ended & hits), reached)

    grid = np.unique(np.round(np.geomspace(SMALLEST, end, POINTS)))
    area = None if spans is None else average(right_share(spans, len(lengths), end))
    return Budgets(
        unit=unit,
        largest=end,
        points=tuple(at(budget) for budget in grid.tolist()),
        area_finished=average(np.where(hits, np.maximum(end - lengths, 0) / end, 0.0)),
        area_reached=area,
    )


Spans = tuple["np.ndarray", "np.ndarray", "np.ndarray"]
"""(owner, start, stop): budgets L with start <= L < stop at which reply ``owner`` counts as right."""


def right_spans(trails: Sequence[Trail]) -> Spans:
    """Where on the budget axis each reply is right: by its last stated answer until it ends, then by its verdict."""
    import numpy as np

    owner: list[int] = []
    start: list[float] = []
    stop: list[float] = []
    for i, trail in enumerate(trails):
        stated = ~trail.computed
        places = [*trail.place[stated].tolist(), trail.length]
        right = [*trail.right[stated].tolist(), trail.final]
        for number, hit in enumerate(right):
            until = places[number + 1] if number + 1 < len(places) else float("inf")
            if hit and until > places[number]:
                owner.append(i)
                start.append(places[number])
                stop.append(until)
    return np.array(owner, dtype=np.int64), np.array(start), np.array(stop)


def right_at(spans: Spans, replies: int, budget: float) -> np.ndarray:
    """(replies,) bool: whether each counts as right when stopped after ``budget`` tokens."""
    import numpy as np

    owner, start, stop = spans
    inside = (start <= budget) & (budget < stop)
    return np.asarray(np.bincount(owner[inside], minlength=replies) > 0)


def right_share(spans: Spans, replies: int, largest: float) -> np.ndarray:
    """(replies,) share of the budgets 0 .. ``largest`` at which each counts as right."""
    import numpy as np

    owner, start, stop = spans
    pieces = np.maximum(np.minimum(stop, largest) - np.minimum(start, largest), 0.0)
    return np.asarray(np.bincount(owner, weights=pieces, minlength=replies) / largest)


def accuracy_at_spending(curve: Budgets, spent: float) -> float | None:
    """Accuracy where the mean tokens spent are ``spent``, interpolated along the curve (``reached``, else
    ``finished``); None outside the curve."""
    import numpy as np

    known = [(p.spent, e.value) for p in curve.points if (e := p.reached or p.finished) is not None]
    if not known or not known[0][0] <= spent <= known[-1][0]:
        return None
    return float(np.interp(spent, [x for x, _ in known], [y for _, y in known]))


def equal_spending(first: Budgets, second: Budgets) -> tuple[float, float, float] | None:
    """(mean tokens, accuracy of the first, of the second) at the largest spending that both curves reach; None where
    their units differ or they do not overlap."""
    if first.unit != second.unit or not first.points or not second.points:
        return None
    spent = min(first.points[-1].spent, second.points[-1].spent)
    accuracies = accuracy_at_spending(first, spent), accuracy_at_spending(second, spent)
    if accuracies[0] is None or accuracies[1] is None:
        return None
    return spent, accuracies[0], accuracies[1]
