"""From a run's traces to token figures of every draw, batch by batch.

Two passes over the traces: the first finds tau_high, the second counts. Memory is that of one batch (but for
``pooled``, which holds the entropies of all tokens, 4 bytes each). The end-of-text token is no part of a reply and is
left out. Traces of different estimators are never mixed: the most frequent kind counts, the rest is not recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.analysis import entropy as entropies
from ares_eval.analysis import scored_traces
from ares_eval.analysis.columns import Draws
from ares_eval.analysis.hwe import DEFAULT_WINDOW, hwe
from ares_eval.analysis.ragged import Ragged, ragged, row_sums
from ares_eval.analysis.window_study import WindowStudyCounter
from ares_eval.analysis.windows import check_window, covered
from ares_eval.analysis.words import TriggerWords, trigger_tokens
from ares_eval.records import Run
from ares_eval.types import Record, TokenTrace
from ares_eval.verify.extract import answer_range

if TYPE_CHECKING:
    import numpy as np

BATCH_TOKENS = 500_000
"""Tokens of a batch: about 100 MB with their texts."""

SCORED_ENOUGH = 0.95
"""Share of the replies with recorded traces that must be scored before ``auto`` prefers scored entropies: a few that
cannot be scored may be left out, but a scoring that was interrupted must not shrink the run."""

PARTS = ("all", "think", "answer")
"""Which part of a reply is looked at."""


class NotRecorded(Exception):
    """The run does not hold what an analysis needs; the message says what, and how to get it."""


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How HWE is counted; names as in entropy.ESTIMATES (or ``auto``: exact where a scorer made it, else low),
    entropy.THRESHOLDS, hwe.COUNTS and PARTS. ``tau_value``: a fixed threshold in nats, for comparison of models."""

    window: int = DEFAULT_WINDOW
    tau: str = "paper"
    tau_value: float | None = None
    percentile: float = entropies.PERCENTILE
    estimate: str = "auto"
    count: str = "window"
    part: str = "all"

    def check(self) -> None:
        """ValueError for a value that is none."""
        check_window(self.window)
        entropies.check_threshold(self.tau, self.percentile)
        if self.estimate != "auto" and self.estimate not in entropies.ESTIMATES:
            raise ValueError(f"no estimate {self.estimate!r}; there are auto, {', '.join(entropies.ESTIMATES)}")
        if self.part not in PARTS:
            raise ValueError(f"no part {self.part!r}; there are {', '.join(PARTS)}")


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Some replies of a run. ``rows`` (B,) are their places in Draws; ``tokens`` their texts; ``entropy`` in nats.

    ``boundary`` (B,): tokens before the answer part, as many as the reply has where thinking never ended; -1 where the
    reply has no part for thinking.
    """

    rows: np.ndarray
    tokens: tuple[tuple[str, ...], ...]
    entropy: Ragged
    boundary: np.ndarray


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """Of N draws, aligned with Draws: floats of shape (N,), NaN where no trace counts.

    ``hwe``: flagged positions N_HE; ``windows``, ``confirmed``: merged windows and those with a trigger word;
    ``first``: place of the first HWE position (NaN where there is none); ``density``: HWE positions per token;
    ``mean``: mean entropy; ``quantile``: the reply's own percentile; ``tau``: its threshold; ``think_hwe``,
    ``answer_hwe``, ``think_tokens``, ``answer_tokens``: by part, NaN where the reply has no part for thinking;
    ``triggers``: tokens of trigger words. ``estimator``, ``top``, ``vocabulary`` and ``estimate`` say what the
    entropies are.
    """

    tokens: np.ndarray
    hwe: np.ndarray
    windows: np.ndarray
    confirmed: np.ndarray
    first: np.ndarray
    density: np.ndarray
    mean: np.ndarray
    quantile: np.ndarray
    tau: np.ndarray
    think_hwe: np.ndarray
    answer_hwe: np.ndarray
    think_tokens: np.ndarray
    answer_tokens: np.ndarray
    triggers: np.ndarray
    estimator: str
    estimate: str
    top: int
    vocabulary: int | None
    notes: tuple[str, ...]


class TokenSource:
    """The token entropies of a run's draws, read again and again in batches of bounded size."""

    def __init__(self, run: Run, draws: Draws, options: TokenOptions) -> None:
        """NotRecorded where no draw has a trace that gives the estimate asked for."""
        options.check()
        self.run, self.draws, self.options = run, draws, options
        self._scored = scored_traces.read_index(run.folder) if options.estimate in ("auto", "exact") else {}
        self.notes: list[str] = []
        if options.estimate == "auto" and self._scored:
            self._weigh_scored()
        self._choose()

    def _weigh_scored(self) -> None:
        recorded = [record for record in self.draws.records if record.trace is not None]
        known = (self._scored.get(scored_traces.key_of(record), ("",))[0] == record.key for record in recorded)
        if (scored := sum(known)) < SCORED_ENOUGH * len(recorded):
            self._scored = {}
            self.notes.append(
                f"{scored} of {len(recorded)} replies were scored by `ares-eval entropy`: too few, so the entropies "
                "that the run recorded are used (--estimate exact uses those alone)"
            )

    def _trace(self, record: Record) -> TokenTrace | None:
        if self._scored:
            found = scored_traces.scored_trace(self.run, self._scored, record)
            if found is not None:
                return found
        return self.run.trace(record)

    def _choose(self) -> None:
        """Which kind of trace counts, and by which estimate."""
        kinds: Counter[tuple[str, int, int | None]] = Counter()
        self._rows: list[int] = []
        kind_of = []
        for row, record in enumerate(self.draws.records):
            trace = self._trace(record) if record.trace is not None or self._scored else None
            if trace is not None:
                kind = (trace.estimator, trace.top, trace.vocabulary)
                kinds[kind] += 1
                kind_of.append(kind)
                self._rows.append(row)
        if not kinds:
            raise NotRecorded("token log-probs are not recorded: run with --logprobs 20, or use `ares-eval entropy`")
        kind, count = max(kinds.items(), key=lambda item: (item[0][0] == entropies.EXACT, item[1]))
        self.estimator, self.top, self.vocabulary = kind
        self._rows = [row for row, each in zip(self._rows, kind_of, strict=True) if each == kind]
        self._counted = frozenset(self._rows)
        if len(kinds) > 1:
            self.notes.append(
                f"traces of {len(kinds)} kinds are not mixed: {count} of {sum(kinds.values())} count "
                f"({self.estimator}, top {self.top})"
            )
        if count < len(self.draws):
            self.notes.append(f"{len(self.draws) - count} of {len(self.draws)} replies have no usable token trace")
        self.estimate = self.options.estimate
        if self.estimate == "auto":
            self.estimate = "exact" if self.estimator == entropies.EXACT else "low"

    def texts(self, row: int) -> tuple[str, ...] | None:
        """The tokens of one draw's whole reply, None where no trace of it counts."""
        if row not in self._counted:
            return None
        trace = self._trace(self.draws.records[row])
        return None if trace is None else trace.tokens[:-1] if trace.end else trace.tokens

    def batches(self) -> Iterator[TokenBatch]:
        """All replies that count, in the order of Draws. NotRecorded where the estimate cannot be had."""
        rows: list[int] = []
        tokens: list[tuple[str, ...]] = []
        values: list[np.ndarray] = []
        boundaries: list[int] = []
        size = 0
        for row in self._rows:
            record = self.draws.records[row]
            trace = self._trace(record)
            if trace is None:
                raise NotRecorded(f"the trace of {record.task}/{record.sample} is gone")
            try:
                entropy = entropies.estimate(trace, self.estimate)
            except entropies.NoEstimate as error:
                raise NotRecorded(str(error)) from None
            texts = trace.tokens[:-1] if trace.end else trace.tokens
            boundary = answer_begins(texts, record)
            kept = _part(self.options.part, boundary, len(texts))
            rows.append(row)
            tokens.append(texts[kept])
            values.append(entropy[: len(texts)][kept])
            boundaries.append(boundary if self.options.part == "all" else -1)
            size += len(texts)
            if size >= BATCH_TOKENS:
                yield _batch(rows, tokens, values, boundaries)
                rows, tokens, values, boundaries, size = [], [], [], [], 0
        if rows:
            yield _batch(rows, tokens, values, boundaries)

    def thresholds(self) -> tuple[np.ndarray, np.ndarray]:
        """(tau, quantile), both (N,) and aligned with Draws: the threshold of each reply, and its own percentile."""
        import numpy as np

        options = self.options
        quantile = np.full(len(self.draws), np.nan)
        pooled: list[np.ndarray] = []
        definition = "paper" if options.tau == "pooled" else options.tau
        for batch in self.batches():
            quantile[batch.rows] = entropies.reply_quantiles(
                batch.entropy, w=options.window, percentile=options.percentile, definition=definition
            )
            if options.tau == "pooled":
                pooled.append(batch.entropy.values.astype(np.float32))
        if options.tau_value is not None:
            return np.full(len(self.draws), options.tau_value), quantile
        if options.tau == "pooled":
            values = np.concatenate(pooled) if pooled else np.zeros(0)
            level = np.quantile(values, options.percentile / 100) if len(values) else np.nan
            return np.full(len(self.draws), level), quantile
        return entropies.tau_of_quantiles(quantile, options.tau, self.draws.question), quantile

    def figures(self, words: TriggerWords, study: WindowStudyCounter | None = None) -> TokenFigures:
        """HWE counts and the rest, of every draw; ``study`` takes the batches too."""
        import numpy as np

        n = len(self.draws)
        names = ("tokens", "hwe", "windows", "confirmed", "first", "density", "mean", "triggers")
        parts = ("think_hwe", "answer_hwe", "think_tokens", "answer_tokens")
        columns = {name: np.full(n, np.nan) for name in (*names, *parts)}
        tau, quantile = self.thresholds()
        for batch in self.batches():
            triggers = trigger_tokens(batch.tokens, words)
            found = hwe(
                batch.entropy, tau[batch.rows], w=self.options.window, count=self.options.count, triggers=triggers
            )
            if study is not None:
                span = self.options.window if self.options.count == "window" else 1
                study.add(batch.tokens, batch.entropy, triggers, covered(found.flagged, span))
            filled = {
                "tokens": found.tokens,
                "hwe": found.positions,
                "windows": found.windows,
                "confirmed": found.confirmed_windows,
                "first": np.where(found.first >= 0, found.first, np.nan),
                "density": found.density,
                "mean": _means(batch.entropy),
                "triggers": row_sums(triggers),
                **_by_part(found.flagged, batch.boundary),
            }
            for name, values in filled.items():
                columns[name][batch.rows] = values
        return TokenFigures(
            **columns,
            quantile=quantile,
            tau=np.where(np.isnan(columns["tokens"]), np.nan, tau),
            estimator=self.estimator,
            estimate=self.estimate,
            top=self.top,
            vocabulary=self.vocabulary,
            notes=tuple(self.notes),
        )


def answer_begins(tokens: tuple[str, ...], record: Record) -> int:
    """Number of tokens before the answer part; all where thinking never ended, -1 where there is no thinking part.

    A token that reaches over the boundary belongs to the thinking part.
    """
    from ares_eval.analysis.words import token_ends

    text = "".join(tokens)
    if record.reasoning:
        answer = (record.text or "").strip()
        place = text.rfind(answer) if answer else len(text)
        if place < 0:
            area = answer_range(text)
            place = len(text) if area is None else area[0]
    else:
        area = answer_range(text)
        place = len(text) if area is None else area[0]
        if place == 0:
            return -1
    import numpy as np

    return int(np.searchsorted(token_ends(tokens), place, side="left")) + 1 if place else 0


def _part(part: str, boundary: int, length: int) -> slice:
    if part == "all":
        return slice(0, length)
    if part == "think":
        return slice(0, max(boundary, 0))
    return slice(max(boundary, 0), length)


def _batch(
    rows: list[int], tokens: list[tuple[str, ...]], values: list[np.ndarray], boundaries: list[int]
) -> TokenBatch:
    import numpy as np

    return TokenBatch(np.array(rows), tuple(tokens), ragged(values), np.array(boundaries))


def _means(batch: Ragged) -> np.ndarray:
    import numpy as np

    out = np.full(batch.rows, np.nan)
    np.divide(row_sums(batch), batch.lengths, out=out, where=batch.lengths > 0)
    return out


def _by_part(flagged: Ragged, boundary: np.ndarray) -> dict[str, np.ndarray]:
    import numpy as np

    apart = boundary >= 0
    lengths = flagged.lengths
    inside = flagged.positions() < np.repeat(boundary, lengths)
    think = row_sums(flagged.with_values(flagged.values & inside))
    total = row_sums(flagged)
    before = np.minimum(boundary, lengths)
    return {
        "think_hwe": np.where(apart, think, np.nan),
        "answer_hwe": np.where(apart, total - think, np.nan),
        "think_tokens": np.where(apart, before, np.nan),
        "answer_tokens": np.where(apart, lengths - before, np.nan),
    }
