"""How long replies are: completion, reasoning and answer, by verdict, difficulty rung and truncation.

In tokens as the server counted them (or a named tokenizer); in characters where no count is known. A truncated reply is
as long as its limit let it be, so lengths with truncated replies are lower bounds; their share stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.analysis import bootstrap
from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.columns import Draws

if TYPE_CHECKING:
    import numpy as np

    from ares_eval.analysis.difficulty import Difficulty


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution of lengths: ``mean`` with interval, order statistics, and the sum."""

    mean: Estimated
    median: float
    p10: float
    p90: float
    p99: float
    largest: float
    total: float


@dataclass(frozen=True, slots=True)
class Lengths:
    """``unit``: tokens or characters. ``counted_by``: server, estimated, mixed, or a tokenizer's name; None for
    characters. ``unknown``: draws without a count. A part that no draw has is None."""

    unit: str
    counted_by: str | None
    completion: Spread | None
    reasoning: Spread | None
    answer: Spread | None
    characters: Spread | None
    by_verdict: Mapping[str, Spread]
    by_rung: Mapping[str, Spread]
    truncated: Spread | None
    truncated_share: Estimated | None
    unknown: int


def length_of(draws: Draws, rows: np.ndarray) -> tuple[np.ndarray, str]:
    """(M,) lengths of draws and their unit: tokens, or characters where less than half of the draws have a count."""
    import numpy as np

    tokens = draws.completion[rows]
    if np.isnan(tokens).mean() > 0.5 if len(rows) else True:
        return draws.characters[rows], "characters"
    return tokens, "tokens"


def lengths(
    draws: Draws,
    rows: np.ndarray,
    difficulty: Difficulty | None,
    *,
    tokenizer: str | None = None,
    resamples: int = bootstrap.RESAMPLES,
) -> Lengths:
    """All length figures of some draws; ``difficulty`` is aligned with ``rows``."""
    import numpy as np

    cluster = draws.cluster[rows]
    length, unit = length_of(draws, rows)

    def of(values: np.ndarray, kept: np.ndarray | None = None) -> Spread | None:
        chosen = ~np.isnan(values) if kept is None else kept & ~np.isnan(values)
        return spread(values[chosen], cluster[chosen], resamples)

    right, wrong, cut = draws.right[rows], draws.wrong[rows], draws.truncated[rows]
    verdicts = {"correct": right, "incorrect": wrong, "unverifiable": ~(right | wrong)}
    rungs = {} if difficulty is None else {name: difficulty.rung == i for i, name in enumerate(difficulty.rungs)}
    estimated = draws.estimated[rows]
    counted = "server" if not estimated.any() else "estimated" if estimated.all() else "mixed"
    return Lengths(
        unit=unit,
        counted_by=None if unit == "characters" else tokenizer or counted,
        completion=of(draws.completion[rows]),
        reasoning=of(draws.reasoning[rows]),
        answer=of(draws.answer[rows]),
        characters=of(draws.characters[rows]),
        by_verdict={name: found for name, kept in verdicts.items() if (found := of(length, kept)) is not None},
        by_rung={name: found for name, kept in rungs.items() if (found := of(length, kept)) is not None},
        truncated=of(length, cut),
        truncated_share=bootstrap.share(cut, cluster),
        unknown=int(np.isnan(draws.completion[rows]).sum()),
    )


def spread(values: np.ndarray, cluster: np.ndarray, resamples: int = bootstrap.RESAMPLES) -> Spread | None:
    """The distribution of known values (M,); None where there are none."""
    import numpy as np

    average = bootstrap.mean(values, cluster, resamples=resamples)
    if average is None:
        return None
    median, p10, p90, p99 = np.quantile(values, [0.5, 0.1, 0.9, 0.99]).tolist()
    return Spread(average, median, p10, p90, p99, float(values.max()), float(values.sum()))
