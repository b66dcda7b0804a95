"""A run with everything a page can show: levels, traces with planted windows, pictures, hostile texts, failures."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from ares_eval import tasks
from ares_eval.records import Run, RunWriter, load_run
from ares_eval.types import AnswerSpec, PicturePart, Record, TokenTrace, Usage, Verdict, WireMessage

HOSTILE = '<img src=x onerror="document.title=`owned`"><script>document.title="owned"</script>'
"""What a model, a server or a dataset may say; it must only ever be seen as text."""

LEVELS = 4
QUESTIONS = 32
HIGH = 4.0
"""Entropy of the planted windows, in nats."""


def planted_run(folder: Path, *, model: str = "planted", flipped: Collection[str] = (), pictures: bool = False) -> Run:
    """Questions q00.. of ``sums`` in four levels: a level more is 20 tokens and one HWE window more; each third is
    wrong, those in ``flipped`` the other way round. ``odd`` holds a failure, a hostile reply and one cut off."""
    with RunWriter(folder) as writer:
        for i in range(QUESTIONS):
            level = i % LEVELS + 1
            name = f"q{i:02d}"
            right = (i % 3 > 0) != (name in flipped)
            trace = _trace(level, seed=i)
            text = "".join(trace.tokens)
            place = text.rindex("{") + 1
            writer.append_prompt("sums", name, "p", [WireMessage("user", (f"What is ${i} + {i}$?",))])
            writer.append(
                Record(
                    **_common("sums", name),
                    level=str(level),
                    reference=str(2 * i),
                    text=text,
                    finish_reason="stop",
                    usage=Usage(prompt=9, completion=len(trace.tokens)),
                    verdict=Verdict(
                        "correct" if right else "incorrect",
                        "box>number:exact",
                        extracted="7",
                        span=(place, place + 1),
                        normalised=("7", str(2 * i)),
                        type="number",
                    ),
                ),
                trace,
            )
        _odd(writer)
        if pictures:
            _pictures(writer)
        writer.write("run.json", _manifest(model))
    return load_run(folder)


def _manifest(model: str) -> dict[str, object]:
    return {
        "format": 1,
        "status": "complete",
        "model": model,
        "created": "2026-01-02T03:04:05Z",
        "settings": {"temperature": 0.0, "min_pixels": 262144, "max_pixels": 1048576, "system_prompt": HOSTILE},
        "tasks": {"sums": {"planned": QUESTIONS}, "odd": {"planned": 3}},
        "environment": {"command": ["ares-eval", "--model-name", "planted"]},
    }


def _common(task: str, sample: str) -> dict[str, object]:
    return {
        "task": task,
        "sample": sample,
        "draw": 0,
        "group": sample,
        "key": sample,
        "prompt": "p",
        "answer": AnswerSpec("number"),
    }


def _trace(level: int, seed: int) -> TokenTrace:
    """20 tokens a level at 0.1 nats, in each twenty one window of eight at HIGH; then an answer."""
    rng = np.random.default_rng(seed)
    tokens, entropy = [], []
    for _ in range(level):
        tokens += [" so", *(f" w{i}" for i in range(18)), ".\n"]
        entropy += [0.1] * 6 + [HIGH] * 8 + [0.1] * 6
    tokens += [" \\boxed", "{", "7", "}"]
    entropy += [0.0] * 4
    noise = np.where(np.array(entropy) < HIGH, rng.uniform(0, 0.01, len(entropy)), 0.0)
    low = (np.array(entropy) + noise).astype(np.float32)
    return TokenTrace(
        tokens=tuple(tokens),
        logprob=-low,
        entropy_low=low,
        entropy_high=low + np.float32(0.25),
        tail=np.full_like(low, 0.01),
        top=20,
        estimator="topk-bounds",
        vocabulary=32000,
    )


def _odd(writer: RunWriter) -> None:
    for name in ("failed", "hostile", "cut"):
        writer.append_prompt("odd", name, "p", [WireMessage("user", (HOSTILE,))])
    common = _common("odd", "failed")
    writer.append(Record(**common, reference="1", cause="server", message=f"500 {HOSTILE}", status=500))
    hostile = HOSTILE + r" $\href{javascript:alert(1)}{x}$ $\frac{1}{2}$"
    verdict = Verdict("unverifiable", "last-line>number", reason="unparsed", extracted=HOSTILE, span=(0, len(HOSTILE)))
    writer.append(
        Record(**_common("odd", "hostile"), reference=HOSTILE, text=hostile, usage=Usage(completion=9), verdict=verdict)
    )
    writer.append(
        Record(
            **_common("odd", "cut"),
            reference="1",
            text="\U0001f600 so 12",
            truncated=True,
            finish_reason="length",
            usage=Usage(completion=256),
            verdict=Verdict("incorrect", "last-number>number", extracted="12", span=(5, 7)),
        )
    )


def _pictures(writer: RunWriter) -> None:
    """The first question of the bundled picture task, as it would have been sent."""
    sample = next(iter(tasks.load("smoke_pictures").samples()))
    parts = [part for message in sample.messages for part in message.parts]
    sent = tuple(
        tasks.prepare(part.picture, tasks.PixelLimits()) if isinstance(part, PicturePart) else part.text
        for part in parts
    )
    writer.append_prompt("smoke_pictures", sample.id, "p", [WireMessage("user", sent)])
    writer.append(
        Record(
            **_common("smoke_pictures", sample.id),
            reference=sample.reference,
            text="\\boxed{1}",
            usage=Usage(completion=3),
            verdict=Verdict("correct", "planted"),
        )
    )
