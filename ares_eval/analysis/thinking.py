"""Overthinking and underthinking, measured from replies and verdicts alone, without a judge.

Over: tokens spent after the first right answer, replies to easy questions beyond the tier's median, right answers given
up. Under: wrong and short on hard questions. Both: changes of mind, density of reflection markers, truncation, loops.
Tiers and medians are those of the run itself, so these figures compare runs only where the questions are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.analysis import bootstrap
from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.loops import loop_share
from ares_eval.analysis.trail import Trail
from ares_eval.analysis.words import find_words, trigger_words

if TYPE_CHECKING:
    import numpy as np

REFLECTION = trigger_words(
    ("wait", "hmm", "hold on", "actually", "on second thought", "let me check", "let me verify", "let me double-check",
     "double-check", "let me recheck", "recheck", "let me reconsider", "reconsider", "alternatively", "let me think",
     "let me re-read", "mistake", "i made an error", "oops", "but maybe", "is that right", "let me see", "another way",
     "another approach", "to verify", "to confirm", "going back"),
    "reflection",
)  # fmt: skip
"""Markers of a reply that looks back at itself; narrower than the trigger words, which also mark plain inference."""


@dataclass(frozen=True, slots=True)
class AfterFirstRight:
    """Of right replies in which a right answer was found: tokens after the first one, and as a share of the reply.

    ``with_computed``: the same where ends of equations count as answers too. ``found``: share of right replies in which
    a stated answer was found before their end.
    """

    tokens: Estimated | None
    share: Estimated | None
    tokens_with_computed: Estimated | None
    share_with_computed: Estimated | None
    found: Estimated | None


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of mind between stated answers, the reply's verdict being the last: turns per reply, and the shares of
    replies that gave up a right answer for good (``lost``) or mended a wrong one (``recovered``)."""

    right_to_wrong: Estimated | None
    wrong_to_right: Estimated | None
    lost: Estimated | None
    recovered: Estimated | None


@dataclass(frozen=True, slots=True)
class Thinking:
    """All of it. ``after_first_right`` and ``changes`` are None where answers inside replies were not verified.

    ``easy_excess``: mean over easy replies of the part beyond the easy median, as a share of that median;
    ``easy_long``: share of easy replies longer than twice the median. ``hard_wrong_short``: share of hard replies that
    are wrong, whole, and shorter than the median of right hard replies (of all hard ones where none is right).
    ``reflection``: markers per 1000 tokens (characters). ``loops``: share of replies that end in a loop;
    ``loop_share``: share of words in loops; ``truncated_in_loop``: share of truncated replies that end in one.
    """

    unit: str
    after_first_right: AfterFirstRight | None
    changes: Changes | None
    easy_excess: Estimated | None
    easy_long: Estimated | None
    hard_wrong_short: Estimated | None
    reflection: Estimated | None
    truncated: Estimated | None
    loops: Estimated | None
    loop_share: Estimated | None
    truncated_in_loop: Estimated | None


@dataclass(frozen=True, slots=True)
class TextFigures:
    """What is read from the texts of M replies, arrays (M,): reflection markers, and the share of words in a loop."""

    markers: np.ndarray
    loops: np.ndarray

    def of(self, rows: np.ndarray) -> TextFigures:
        """Those of some replies."""
        return TextFigures(self.markers[rows], self.loops[rows])


def text_figures(texts: Sequence[str]) -> TextFigures:
    """Read once for all replies of a run."""
    import numpy as np

    markers = np.array([len(find_words(text, REFLECTION)) for text in texts], dtype=np.float64)
    return TextFigures(markers, np.array([loop_share(text) for text in texts], dtype=np.float64))


def thinking(
    texts: TextFigures,
    length: np.ndarray,
    right: np.ndarray,
    wrong: np.ndarray,
    truncated: np.ndarray,
    tier: np.ndarray | None,
    cluster: np.ndarray,
    trails: Sequence[Trail] | None,
    *,
    unit: str = "tokens",
    resamples: int = bootstrap.RESAMPLES,
) -> Thinking:
    """All figures of M replies; ``tier`` (M,) indexes difficulty.TIERS (-1 unknown), None where there is none."""
    import numpy as np

    def share(values: np.ndarray, kept: np.ndarray | None = None) -> Estimated | None:
        chosen = np.ones(len(values), dtype=np.bool_) if kept is None else kept
        return bootstrap.share(values[chosen], cluster[chosen])

    markers, in_loop = texts.markers, texts.loops
    known = ~np.isnan(length)
    excess = long = short = None
    if tier is not None:
        easy = known & (tier == 0)
        if easy.any() and (median := float(np.median(length[easy]))) > 0:
            beyond = np.maximum(length - median, 0)[easy] / median
            excess = bootstrap.mean(beyond, cluster[easy], resamples=resamples)
            long = share(length > 2 * median, easy)
        hard = known & (tier == 2)
        if hard.any():
            solved = hard & right
            median = float(np.median(length[solved if solved.any() else hard]))
            short = share(wrong & ~truncated & (length < median), hard)
    return Thinking(
        unit=unit,
        after_first_right=None if trails is None else after_first_right(trails, cluster, resamples=resamples),
        changes=None if trails is None else changes(trails, cluster, resamples=resamples),
        easy_excess=excess,
        easy_long=long,
        hard_wrong_short=short,
        reflection=bootstrap.ratio(1000 * markers[known], length[known], cluster[known], resamples=resamples),
        truncated=share(truncated),
        loops=share(in_loop > 0),
        loop_share=share(in_loop),
        truncated_in_loop=share(in_loop > 0, truncated),
    )


def after_first_right(
    trails: Sequence[Trail], cluster: np.ndarray, *, resamples: int = bootstrap.RESAMPLES
) -> AfterFirstRight:
    """Tokens after the first right answer, over replies whose verdict is correct."""
    import numpy as np

    length = np.array([trail.length for trail in trails])
    final = np.array([trail.final for trail in trails], dtype=np.bool_)
    stated = np.array([_first_right(trail, computed=False) for trail in trails])
    reached = np.array([_first_right(trail, computed=True) for trail in trails])

    def figures(first: np.ndarray) -> tuple[Estimated | None, Estimated | None]:
        kept = final & ~np.isnan(first) & (length > 0)
        after = (length - first)[kept]
        return (
            bootstrap.mean(after, cluster[kept], resamples=resamples),
            bootstrap.share(after / length[kept], cluster[kept]),
        )

    found = bootstrap.share(~np.isnan(stated[final]), cluster[final])
    return AfterFirstRight(*figures(stated), *figures(reached), found)


def _first_right(trail: Trail, *, computed: bool) -> float:
    hits = trail.place[trail.right if computed else trail.right & ~trail.computed]
    return float(hits[0]) if len(hits) else float("nan")


def turns(trail: Trail) -> tuple[int, int, bool, bool]:
    """(right to wrong, wrong to right, lost, recovered) of one reply, over stated answers and then its verdict."""
    said = [*trail.right[~trail.computed].tolist(), trail.final]
    down = sum(before and not after for before, after in itertools.pairwise(said))
    up = sum(after and not before for before, after in itertools.pairwise(said))
    return down, up, any(said) and not trail.final, not all(said) and trail.final


def changes(trails: Sequence[Trail], cluster: np.ndarray, *, resamples: int = bootstrap.RESAMPLES) -> Changes:
    """Changes of mind per reply, in both directions."""
    import numpy as np

    table = np.array([turns(trail) for trail in trails], dtype=np.float64).reshape(len(trails), 4)
    down, up, lost, recovered = table.T
    return Changes(
        right_to_wrong=bootstrap.mean(down, cluster, resamples=resamples),
        wrong_to_right=bootstrap.mean(up, cluster, resamples=resamples),
        lost=bootstrap.share(lost, cluster),
        recovered=bootstrap.share(recovered, cluster),
    )
