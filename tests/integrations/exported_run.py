"""A small finished run for the tests of exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ares_eval.records import RunWriter
from ares_eval.results import TaskMeta, summarise
from ares_eval.types import AnswerSpec, Record, Usage, Verdict, WireMessage

LOST: dict[str, Any] = {"text": None, "verdict": None, "cause": "timeout", "message": "m", "usage": Usage()}


class Seen:
    """A prepared picture that must not be read."""

    digest = "sha256:0123"

    def data_url(self) -> str:
        raise AssertionError("an export never reads pictures")


def record(task: str, sample: str, draw: int = 0, value: str = "correct", **changes: Any) -> Record:
    verdict = Verdict(value, "box>number", extracted="8")  # type: ignore[arg-type]
    answer = AnswerSpec("number")
    base = Record(task, sample, draw, sample, "k", "d", reference="8", answer=answer, verdict=verdict)
    said = {"text": f"said {sample}/{draw}", "usage": Usage(3, 4), "finish_reason": "stop"}
    return replace(base, **(said | changes))


RECORDS = [
    record("aime", "b", 1, "incorrect"),
    record("aime", "a", 0),
    record("aime", "b", 0),
    record("aime", "a", 1),
    record("vlm:Plain", "2", verdict=Verdict("unverifiable", "none", "no_answer"), reference=("8", "viii")),
    record("vlm:Plain", "1", **LOST),
    record("vlm:Plain", "10", level="hard", fields={"subject": "Ähm", "A": "cat", "B": None}),
    record("vlm:Plain", "3", **LOST),
    record("vlm:Plain", "3"),
]


def write_run(folder: Path, records: Sequence[Record] = RECORDS, *, finished: bool = True) -> Path:
    """A run folder with these records; questions in the order of their first record."""
    tasks = list(dict.fromkeys(one.task for one in records))
    manifest = {
        "status": "complete",
        "digest": "0123456789abcdef" * 4,
        "model": "org/model:7b",
        "created": "2026-01-02T03:04:05Z",
        "finished": "2026-01-02T03:14:15Z",
        "settings": {"max_tokens": 64, "temperature": 0.3},
        "tasks": {name: {"fingerprint": "f1", "source": "here"} for name in tasks},
        "environment": {"ares": "0"},
    }
    draws = {name: 1 + max(one.draw for one in records if one.task == name) for name in tasks}
    metas = {
        name: TaskMeta(name, ("all",), questions=len({r.sample for r in records if r.task == name}), draws=draws[name])
        for name in tasks
    }
    with RunWriter(folder) as writer:
        writer.write("run.json", manifest)
        for one in records:
            message = WireMessage("user", ("see ", Seen(), f" question {one.sample}"))
            writer.append_prompt(one.task, one.sample, "d", [message])
        for one in records:
            writer.append(one)
        if finished:
            writer.write("results.json", summarise(records, metas))
    return folder
