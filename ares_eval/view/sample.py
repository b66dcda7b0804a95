"""One record as the page shows it: reply, verdict, prompt, and the entropy of its tokens with its HWE windows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ares_eval import records
from ares_eval.analysis import entropy as entropies
from ares_eval.analysis import scored_traces
from ares_eval.analysis.hwe import confirmed_by, hwe
from ares_eval.analysis.ragged import ragged
from ares_eval.analysis.tokens import TokenOptions, answer_begins
from ares_eval.analysis.windows import window_means
from ares_eval.analysis.words import DEFAULT_LIST, read_words, trigger_tokens
from ares_eval.records import Run, RunError
from ares_eval.types import Json, Record, TokenTrace

if TYPE_CHECKING:
    import numpy as np

MOST_CHARACTERS = 1_000_000
MOST_TOKENS = 100_000
"""Of a reply; what is longer is cut, and the page says so."""


def shown(run: Run, record: Record, tau: float | None, estimate: str | None, options: TokenOptions) -> Json:
    """The record as JSON. ``tau``: the run's threshold for it, of that ``estimate``; without it no window is marked."""
    trace = _trace(run, record, estimate)
    text, reasoning = record.text or "", record.reasoning
    return {
        "task": record.task,
        "sample": record.sample,
        "draw": record.draw,
        "level": record.level,
        "fields": dict(record.fields),
        "reference": record.reference if isinstance(record.reference, str) else list(record.reference),
        "answer": {"type": record.answer.type, "choices": list(record.answer.choices)},
        "text": text[:MOST_CHARACTERS],
        "reasoning": reasoning[:MOST_CHARACTERS],
        "cut": max(len(text), len(reasoning)) > MOST_CHARACTERS,
        "finish_reason": record.finish_reason,
        "truncated": record.truncated,
        "usage": msgspec.to_builtins(record.usage),
        "latency": record.latency,
        "cached": record.cached,
        "attempts": record.attempts,
        "cause": record.cause,
        "message": record.message,
        "status": record.status,
        "marked": _marked(record),
        "verdict": None if record.verdict is None else msgspec.to_builtins(record.verdict),
        "trace": None if trace is None else _shown_trace(trace, record, tau, estimate, options),
    }


def prompt(folder: Path, place: tuple[int, int] | None) -> Json:
    """The messages of a question as they were sent; None where they are not kept."""
    if place is None:
        return None
    try:
        with (folder / records.PROMPTS).open("rb") as file:
            file.seek(place[0])
            return msgspec.json.decode(file.read(place[1]))["messages"]
    except (OSError, msgspec.DecodeError, KeyError) as error:
        raise RunError(f"{folder / records.PROMPTS} has no prompt at byte {place[0]}: {error}") from None


def question(messages: Json) -> str:
    """The text of the last user turn, as the verifier got it."""
    turns = [message for message in messages or () if message.get("role") == "user"]
    return "".join(part for part in turns[-1]["parts"] if isinstance(part, str)) if turns else ""


def stages(record: Record, asked: str, verifier: Any) -> Json:
    """How the reply is judged by the verifier that is installed now, stage by stage, as ``ares-eval explain`` does."""
    from ares_eval.verify.extract import answer_range, candidates

    response = record.text or ""
    area = answer_range(response)
    found = candidates(response)
    verdict = verifier.verify(response, record.reference, record.answer, question=asked)
    return {
        "answer_part": None if area is None else list(area),
        "length": len(response),
        "candidates": [{"rule": c.rule, "span": list(c.span), "text": c.text[:400]} for c in found[:8]],
        "more": max(len(found) - 8, 0),
        "verdict": msgspec.to_builtins(verdict),
        "same": record.verdict is not None
        and (verdict.value, verdict.method) == (record.verdict.value, record.verdict.method),
    }


def _trace(run: Run, record: Record, estimate: str | None) -> TokenTrace | None:
    """The exact trace where a scorer made one and the run's figures rest on it, else the recorded one."""
    index = scored_traces.read_index(run.folder) if estimate in (None, entropies.EXACT) else {}
    found = scored_traces.scored_trace(run, index, record) if index else None
    return found if found is not None else run.trace(record)


def _shown_trace(
    trace: TokenTrace, record: Record, tau: float | None, estimate: str | None, options: TokenOptions
) -> Json:
    """Per token the numbers of the trace, in nats; windows as [first, stop, confirmed]."""
    count = min(len(trace.tokens) - trace.end, MOST_TOKENS)
    tokens = trace.tokens[:count]
    name = estimate or ("exact" if trace.estimator == entropies.EXACT else "low")
    try:
        values = entropies.estimate(trace, name)[:count]
    except entropies.NoEstimate:
        name = "low"
        values = entropies.estimate(trace, name)[:count]
    batch = ragged([values])
    triggers = trigger_tokens((tokens,), read_words(DEFAULT_LIST))
    windows: list[list[object]] = []
    positions = None
    # A threshold of one estimate says nothing of another's values.
    if tau is not None and count and estimate in (None, name):
        import numpy as np

        found = hwe(batch, np.array([tau]), w=options.window, count=options.count, triggers=triggers)
        confirmed = confirmed_by(found.merged, triggers)
        spans = zip(found.merged.first.tolist(), found.merged.stop.tolist(), confirmed.tolist(), strict=True)
        windows = [list(span) for span in spans]
        positions = int(found.positions[0])
    return {
        "tokens": list(tokens),
        "more": len(trace.tokens) - trace.end - count,
        "estimate": name,
        "estimator": trace.estimator,
        "top": trace.top,
        "entropy": _plain(values),
        "low": _plain(trace.entropy_low[:count]),
        "high": _plain(trace.entropy_high[:count]),
        "logprob": _plain(trace.logprob[:count]),
        "tail": _plain(trace.tail[:count]),
        "mean": _plain(window_means(batch, options.window).values),
        "window": options.window,
        "tau": tau,
        "positions": positions,
        "windows": windows,
        "triggers": [i for i, hit in enumerate(triggers.values.tolist()) if hit],
        "boundary": answer_begins(tokens, record),
        "answer": _answer_tokens(tokens, record),
    }


def _answer_tokens(tokens: tuple[str, ...], record: Record) -> list[int] | None:
    """[first, stop] of the tokens that the extracted answer lies in; None where they cannot be found."""
    span = None if record.verdict is None else record.verdict.span
    text = record.text or ""
    if span is None or not text:
        return None
    place = "".join(tokens).rfind(text)
    if place < 0:
        return None
    begin, end = place + span[0], place + span[1]
    first, stop, at = None, 0, 0
    for i, token in enumerate(tokens):
        if at < end and at + len(token) > begin and token:
            first = i if first is None else first
            stop = i + 1
        at += len(token)
    return None if first is None else [first, stop]


def _marked(record: Record) -> list[int] | None:
    """The extracted answer's range in the text as a browser counts: in UTF-16 units, not in characters."""
    span = None if record.verdict is None else record.verdict.span
    if span is None or record.text is None:
        return None
    return [len(record.text[:place].encode("utf-16-le", "surrogatepass")) // 2 for place in span]


def _plain(values: np.ndarray) -> list[float | None]:
    """Floats to four decimals; what is unknown is None, since JSON has no NaN."""
    return [None if math.isnan(value) else round(value, 4) for value in values.tolist()]
