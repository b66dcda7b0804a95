"""How well high window entropy finds reasoning-critical tokens, for several windows and percentiles (paper figure 2).

Critical tokens are those of trigger words (words.py). For window size w, a token is predicted critical where the mean
entropy reaches a percentile of all window means of that size, over the run. The window of equation 2 looks forward, so
two alignments are reported: ``start``, the window that begins at the token, and ``containing``, the best of all windows
that hold it. A token without a full window is never predicted.

Scores are histograms of BINS fixed bins, so a run of any size takes one pass and constant memory; a percentile's
threshold is the edge of the bin it lies in, at most LARGEST / BINS = 0.002 nats below it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.analysis.ragged import Ragged
from ares_eval.analysis.windows import window_means
from ares_eval.analysis.words import TriggerWords, word_of_tokens

if TYPE_CHECKING:
    import numpy as np

WINDOWS = (1, 2, 4, 6, 8, 16, 32)
PERCENTILES = (50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 97.5, 99.0)
ALIGNMENTS = ("start", "containing")

LARGEST = 16.0
"""Nats; log of 9 million, above the entropy over any vocabulary."""

BINS = 8192

FREQUENT = 200
"""Words kept for a word cloud or bar chart."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One point of a curve: predicted critical are tokens whose score is at least ``threshold`` nats."""

    window: int
    alignment: str
    percentile: float
    threshold: float
    precision: float
    recall: float
    f1: float
    predicted: int


@dataclass(frozen=True, slots=True)
class WordCount:
    """A word of the replies: how often it stands at all, how often in an HWE window, the mean entropy of its first
    token, and how much more frequent it is in windows than its share of all words would have it (``lift``)."""

    word: str
    count: int
    in_windows: int
    mean_entropy: float
    lift: float
    trigger: bool


@dataclass(frozen=True, slots=True)
class WindowStudy:
    """``critical``: tokens of trigger words among ``tokens``. ``best``: the point with the highest F1 of each window
    and alignment. ``words``: the words that stand most often in HWE windows, most frequent first."""

    word_list: str
    tokens: int
    critical: int
    points: tuple[Detection, ...]
    best: tuple[Detection, ...]
    words: tuple[WordCount, ...]


class WindowCounter:
    """Collects the study over batches."""

    def __init__(self, windows: Sequence[int] = WINDOWS) -> None:
        import numpy as np

        self._windows = tuple(windows)
        shape = (len(self._windows), len(ALIGNMENTS), BINS)
        self._all = np.zeros(shape, dtype=np.int64)
        self._hits = np.zeros(shape, dtype=np.int64)
        self._means = np.zeros((len(self._windows), BINS), dtype=np.int64)
        self.tokens = 0
        self.critical = 0

    def add(self, entropy: Ragged, critical: Ragged) -> None:
        """One batch; ``critical`` (N,) bool over the same rows."""
        import numpy as np

        self.tokens += len(entropy.values)
        self.critical += int(critical.values.sum())
        for i, w in enumerate(self._windows):
            means = window_means(entropy, w)
            for j, scores in enumerate((means.values, containing(means, w))):
                known = ~np.isnan(scores)
                codes = _codes(scores[known])
                counts = np.bincount(codes, minlength=BINS)
                self._all[i, j] += counts
                self._hits[i, j] += np.bincount(codes[critical.values[known]], minlength=BINS)
                if j == 0:
                    self._means[i] += counts

    def points(self, percentiles: Sequence[float] = PERCENTILES) -> tuple[Detection, ...]:
        """Every window, alignment and percentile. Nothing where no token is critical."""
        import numpy as np

        found = []
        for i, w in enumerate(self._windows):
            total = np.cumsum(self._means[i])
            if not self.critical or not total[-1]:
                continue
            for percentile in percentiles:
                # The bin of the percentile's value among all window means: the first that holds its rank.
                rank = percentile / 100 * (int(total[-1]) - 1)
                edge = int(np.searchsorted(total, rank, side="right"))
                for j, alignment in enumerate(ALIGNMENTS):
                    predicted = int(self._all[i, j, edge:].sum())
                    hits = int(self._hits[i, j, edge:].sum())
                    precision = hits / predicted if predicted else 0.0
                    recall = hits / self.critical
                    f1 = 2 * hits / (predicted + self.critical)
                    threshold = edge * LARGEST / BINS
                    found.append(Detection(w, alignment, percentile, threshold, precision, recall, f1, predicted))
        return tuple(found)


def best_points(points: Sequence[Detection]) -> tuple[Detection, ...]:
    """The highest F1 of each window and alignment, in the order of the points."""
    best: dict[tuple[int, str], Detection] = {}
    for point in points:
        key = (point.window, point.alignment)
        if key not in best or point.f1 > best[key].f1:
            best[key] = point
    return tuple(best.values())


def containing(means: Ragged, w: int) -> np.ndarray:
    """(N,) the largest mean of all full windows of w tokens that hold each token, NaN where there is none."""
    import numpy as np

    best = np.where(np.isnan(means.values), -np.inf, means.values)
    place = means.positions()
    # The maximum over starts t - w + 1 .. t, by doubling: each step reaches twice as far back.
    reach = 1
    while reach < w:
        step = min(reach, w - reach)
        earlier = np.full_like(best, -np.inf)
        earlier[step:] = best[:-step]
        best = np.maximum(best, np.where(place >= step, earlier, -np.inf))
        reach += step
    return np.where(np.isneginf(best), np.nan, best)


def _codes(scores: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.minimum((scores * (BINS / LARGEST)).astype(np.int64), BINS - 1)


class WordCounter:
    """Counts words over batches: in all, in HWE windows, and the entropy of their first tokens."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._inside: Counter[str] = Counter()
        self._entropy: dict[str, float] = {}

    def add(self, words: Sequence[str], entropy: np.ndarray, inside: np.ndarray) -> None:
        """One reply: the word of each token (words.word_of_tokens), its entropy, and whether a window holds it."""
        before = ""
        for word, value, high in zip(words, entropy.tolist(), inside.tolist(), strict=True):
            if word and word != before:
                self._count[word] += 1
                self._inside[word] += high
                self._entropy[word] = self._entropy.get(word, 0.0) + value
            before = word

    def counts(self, triggers: Set[str], most: int = FREQUENT) -> tuple[WordCount, ...]:
        """The words that stand most often in windows; ties in the order of the alphabet."""
        total, high = self._count.total(), self._inside.total()
        ordered = sorted((word for word, n in self._inside.items() if n), key=lambda w: (-self._inside[w], w))
        return tuple(
            WordCount(
                word=word,
                count=self._count[word],
                in_windows=self._inside[word],
                mean_entropy=self._entropy[word] / self._count[word],
                lift=(self._inside[word] / high) / (self._count[word] / total),
                trigger=word in triggers,
            )
            for word in ordered[:most]
        )


class WindowStudyCounter:
    """Both counters over the batches of a run, and the study they amount to."""

    def __init__(self) -> None:
        self._detection, self._words = WindowCounter(), WordCounter()

    def add(self, tokens: Sequence[Sequence[str]], entropy: Ragged, critical: Ragged, inside: Ragged) -> None:
        """One batch: its tokens, their entropy, which of them are in trigger words, and which in HWE windows."""
        self._detection.add(entropy, critical)
        for i, reply in enumerate(tokens):
            self._words.add(word_of_tokens(reply), entropy.row(i), inside.row(i))

    def study(self, words: TriggerWords) -> WindowStudy:
        """What was counted; ``words``: the list that made tokens critical."""
        points = self._detection.points()
        return WindowStudy(
            word_list=words.name,
            tokens=self._detection.tokens,
            critical=self._detection.critical,
            points=points,
            best=best_points(points),
            words=self._words.counts({first for first, found in words.phrases.items() if (first,) in found}),
        )
