"""Runs with planted truth: folders as a run writes them, from given lengths, entropies and answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ares_eval.records import Run, RunWriter, load_run
from ares_eval.types import AnswerSpec, Record, TokenTrace, Usage, Verdict, WireMessage


@dataclass(frozen=True)
class Reply:
    """One draw. ``entropy``: per token, None for a run without log-probs; ``tokens`` default to one word each."""

    sample: str
    draw: int = 0
    task: str = "planted"
    right: bool = True
    text: str = "\\boxed{1}"
    reasoning: str = ""
    length: int | None = None
    level: str | None = None
    group: str | None = None
    reference: str = "1"
    truncated: bool = False
    entropy: Sequence[float] | None = None
    tokens: tuple[str, ...] | None = None
    cause: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


def trace_of(reply: Reply) -> TokenTrace | None:
    """The trace that a reply's entropies plant: certain bounds, nothing in the tail."""
    if reply.entropy is None:
        return None
    values = np.asarray(reply.entropy, dtype=np.float32)
    tokens = reply.tokens or tuple(f" w{i}" for i in range(len(values)))
    return TokenTrace(
        tokens=tokens,
        logprob=-values,
        entropy_low=values,
        entropy_high=values,
        tail=np.zeros_like(values),
        top=20,
        estimator="topk-bounds",
        vocabulary=1000,
    )


def record_of(reply: Reply) -> Record:
    """The record of a reply."""
    length = reply.length
    if length is None:
        length = len(reply.entropy) if reply.entropy is not None else len(reply.text.split())
    common = {
        "task": reply.task,
        "sample": reply.sample,
        "draw": reply.draw,
        "group": reply.group or reply.sample,
        "key": f"{reply.task}-{reply.sample}-{reply.draw}",
        "prompt": "p",
        "level": reply.level,
        "fields": reply.fields,
        "reference": reply.reference,
        "answer": AnswerSpec("number"),
    }
    if reply.cause is not None:
        return Record(**common, cause=reply.cause, message="planted")
    return Record(
        **common,
        text=reply.text,
        reasoning=reply.reasoning,
        finish_reason="length" if reply.truncated else "stop",
        truncated=reply.truncated,
        usage=Usage(prompt=5, completion=length),
        verdict=Verdict("correct" if reply.right else "incorrect", "planted"),
    )


def run_of(folder: Path, replies: Iterable[Reply]) -> Run:
    """A finished run's folder with these replies, in their order."""
    with RunWriter(folder) as writer:
        writer.write("run.json", {"format": 1, "status": "complete", "model": "planted-model", "settings": {}})
        for reply in replies:
            writer.append_prompt(reply.task, reply.sample, "p", [WireMessage("user", ("What is it?",))])
            writer.append(record_of(reply), trace_of(reply))
    return load_run(folder)
