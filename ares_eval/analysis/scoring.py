"""Token entropies of recorded replies, computed after the run: which replies, in which order, kept where.

A Scorer takes a question and its reply and gives a TokenTrace; score_hf.py makes exact entropies by a forward pass, and
score_server.py bounds from a server's prompt log-probs. What was scored is never scored again, so an interrupted
scoring resumes. Where the run recorded log-probs itself, the two are compared: a scorer that is not the model that
replied, or that renders the question otherwise, shows at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from ares_eval.analysis.scored_traces import key_of, read_index, scored_writer
from ares_eval.records import PROMPTS, Run, RunError
from ares_eval.types import Record, TokenTrace

if TYPE_CHECKING:
    import numpy as np

AT_ONCE = 64
"""Replies handed out together; what a kill loses is at most their scores."""

SUSPICIOUS = 0.3
"""Nats: a median difference of log-probs above this is no rounding and no quantisation of weights."""

SLACK = 0.05
"""Nats by which an entropy may lie outside recorded bounds. Where a distribution is sure its bounds are a hair apart,
and a server's arithmetic differs by more: a 4-bit model against its weights in float32 by 0.01 nats (median)."""


class CannotScore(Exception):
    """One reply that cannot be scored; the message is a short reason that results count by."""


class Scorer(Protocol):
    """Gives the entropies of one reply; from ``workers`` threads at once."""

    workers: int

    def score(
        self, messages: Sequence[Mapping[str, str]], record: Record, tokens: tuple[str, ...] | None
    ) -> TokenTrace:
        """``messages``: role and content of each, as they were sent. ``tokens``: the reply's own, without the end
        token, where they are recorded. Raises CannotScore."""


@dataclass(frozen=True, slots=True)
class ScoringReport:
    """``scored`` now, ``kept`` from before, ``skipped`` by reason. Over tokens that have both: ``logprob_difference``,
    the median of |scored - recorded|, and ``inside``, the share of entropies within the recorded bounds to SLACK; None
    where nothing can be compared."""

    scored: int
    kept: int
    skipped: Mapping[str, int]
    logprob_difference: float | None
    inside: float | None

    @property
    def suspicious(self) -> bool:
        """Whether the scorer seems not to be what produced the replies."""
        return self.logprob_difference is not None and self.logprob_difference > SUSPICIOUS


def score_run(run: Run, scorer: Scorer, progress: Callable[[int, int], None] | None = None) -> ScoringReport:
    """Score every measured reply that has not been scored; ``progress`` gets done and all.

    RunError where there are no replies or the questions are not recorded.
    """
    records = [record for record in run.records() if record.measured]
    if not records:
        raise RunError(f"{run.folder}: no draw was measured, so there is nothing to score")
    prompts = read_prompts(run.folder)
    index = read_index(run.folder)
    todo = [record for record in records if (entry := index.get(key_of(record))) is None or entry[0] != record.key]
    skipped: Counter[str] = Counter()
    check = _Comparison()

    def score(record: Record) -> tuple[Record, TokenTrace | None, TokenTrace | CannotScore]:
        recorded = run.trace(record)
        tokens = None
        if recorded is not None:
            tokens = recorded.tokens[:-1] if recorded.end else recorded.tokens
        try:
            return record, recorded, scorer.score(_messages(prompts, record), record, tokens)
        except CannotScore as error:
            return record, recorded, error

    with scored_writer(run.folder) as writer, ThreadPoolExecutor(scorer.workers) as pool:
        for start in range(0, len(todo), AT_ONCE):
            for number, (record, recorded, scored) in enumerate(pool.map(score, todo[start : start + AT_ONCE]), start):
                if isinstance(scored, CannotScore):
                    skipped[str(scored)] += 1
                else:
                    writer.append(record, scored)
                    if recorded is not None:
                        check.add(scored, recorded)
                if progress is not None:
                    progress(number + 1, len(todo))
    return ScoringReport(
        scored=len(todo) - skipped.total(),
        kept=len(records) - len(todo),
        skipped=dict(skipped),
        logprob_difference=check.difference(),
        inside=check.inside / check.tokens if check.tokens else None,
    )


class _Comparison:
    """What was scored against what was recorded, over replies whose tokens are the same."""

    def __init__(self) -> None:
        self.tokens = self.inside = 0
        self._differences: list[np.ndarray] = []

    def add(self, scored: TokenTrace, recorded: TokenTrace) -> None:
        import numpy as np

        n = len(scored.tokens)
        if scored.tokens != recorded.tokens[:n]:
            return
        self._differences.append(np.abs(scored.logprob - recorded.logprob[:n]).astype(np.float32))
        inside = scored.entropy_high >= recorded.entropy_low[:n] - SLACK
        if recorded.vocabulary is not None:
            inside &= scored.entropy_low <= recorded.entropy_high[:n] + SLACK
        self.inside += int(inside.sum())
        self.tokens += n

    def difference(self) -> float | None:
        """Median over tokens, nats."""
        import numpy as np

        joined = np.concatenate([np.zeros(0), *self._differences])
        known = joined[~np.isnan(joined)]
        return float(np.median(known)) if len(known) else None


# ---------------------------------------------------------------- what was asked


class _Message(msgspec.Struct):
    role: str
    parts: list[str | dict[str, str]]


class _Prompt(msgspec.Struct):
    task: str
    sample: str
    prompt: str
    messages: list[_Message]


def read_prompts(folder: Path) -> dict[tuple[str, str, str], list[_Message]]:
    """The messages of every question by task, sample and digest; RunError where the file is missing or broken."""
    path = folder / PROMPTS
    decoder = msgspec.json.Decoder(_Prompt)
    found = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    prompt = decoder.decode(line)
                except (msgspec.DecodeError, msgspec.ValidationError) as error:
                    raise RunError(f"{path}, line {number}: not a prompt ({error})") from None
                found[prompt.task, prompt.sample, prompt.prompt] = prompt.messages
    except FileNotFoundError:
        raise RunError(f"{folder} has no {PROMPTS}: what was asked is not known, so nothing can be scored") from None
    return found


def _messages(prompts: Mapping[tuple[str, str, str], Sequence[_Message]], record: Record) -> list[dict[str, str]]:
    found = prompts.get((record.task, record.sample, record.prompt))
    if found is None:
        raise CannotScore("the question is not recorded")
    texts = []
    for message in found:
        parts = [part for part in message.parts if isinstance(part, str)]
        if len(parts) != len(message.parts):
            raise CannotScore("the question has pictures, which are recorded by digest only")
        texts.append({"role": message.role, "content": "\n".join(parts)})
    return texts
