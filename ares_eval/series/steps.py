"""The step file, ``RUN/eval/step_N.json``: what the checkpoint of one training step scored, and by which weights.

Written by `ares-train watch`, whole or not at all; read by `ares-eval series`. A step file belongs to its ``digest``:
where a step was trained again, the file of the older weights moves to ``RUN/eval/superseded/``. Paths in it are
relative to RUN, so that a run's folder can be moved.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

FORMAT = 1

FOLDER, SUPERSEDED, BEST = "eval", "superseded", "best.json"

LARGEST = 16 << 20
"""Bytes of a step file; a hundred tasks come to less than 100 kB."""

T = TypeVar("T", bound=msgspec.Struct)

_NAME = re.compile(r"step_(\d{1,12})\.json")


class StepFileError(Exception):
    """A step file that cannot be read; the message names it."""


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What HWE tokens were counted by: ``tau`` in nats, ``window`` in tokens, and what the entropies are (``exact``, or
    a bound from the top alternatives)."""

    tau: float
    window: int
    estimate: str


class Score(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What checkpoints are ranked by: a figure's name (``mean``: over the tasks' primary metrics) and its value."""

    metric: str
    value: float


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the gate said: ``findings`` is a line for each test that is not kept, or for each cause of no verdict."""

    verdict: Literal["pass", "fail", "inconclusive", "incomplete"]
    baseline: str
    policy: str
    findings: tuple[str, ...] = ()


class StepResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of a step file.

    ``status``: complete; incomplete (some draws were never measured); failed (``reason`` says why, there are no
    figures). ``digest``: content of the weights; ``stamp``: names, sizes and times of their files, by which a step
    that was saved again is noticed without reading them. ``figures``: ares_eval.trackers.figures of the run and their
    ``mean``, HWE by ``threshold``, which all steps share. ``tries``: how often it was begun. ``seconds``: by stage.
    ``trained``: the trainer's revision and configuration, where it told. ``trackers``: what its watcher logs to, so
    that the trainer need not; ``logged``: trackers that have the figures. ``weights``: the Hugging Face folder, while
    it is kept.
    """

    format: int
    step: int
    status: Literal["complete", "incomplete", "failed"]
    digest: str
    stamp: str
    checkpoint: str
    model: str
    run: str | None = None
    figures: dict[str, float] = {}
    threshold: Threshold | None = None
    gate: Gate | None = None
    reason: str = ""
    tries: int = 1
    seconds: dict[str, float] = {}
    versions: dict[str, str] = {}
    trained: dict[str, str] = {}
    finished: str = ""
    trackers: tuple[str, ...] = ()
    logged: tuple[str, ...] = ()
    weights: str | None = None


class Best(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of ``RUN/eval/best.json``."""

    format: int
    step: int
    digest: str
    score: Score
    mode: Literal["max", "min"]
    checkpoint: str
    weights: str | None = None


def path(run_dir: Path, step: int) -> Path:
    """Where the step file of ``step`` lies."""
    return run_dir / FOLDER / f"step_{step}.json"


def read(file: Path) -> StepResult:
    """One step file; StepFileError where it is none of this format."""
    found = _read(file, StepResult)
    if found.format != FORMAT:
        raise StepFileError(f"{file} has format {found.format}; this version reads {FORMAT}")
    return found


def read_all(run_dir: Path) -> dict[int, StepResult]:
    """Every step file of a training run by its step, in order; StepFileError for one that is broken."""
    found = {}
    for file in (run_dir / FOLDER).glob("step_*.json"):
        if match := _NAME.fullmatch(file.name):
            result = read(file)
            if result.step != int(match[1]):
                raise StepFileError(f"{file} holds the result of step {result.step}")
            found[result.step] = result
    return dict(sorted(found.items()))


def read_best(run_dir: Path) -> Best | None:
    """The best step so far, None where there is none yet; StepFileError for a broken file."""
    file = run_dir / FOLDER / BEST
    return _read(file, Best) if file.exists() else None


def write(file: Path, content: msgspec.Struct) -> None:
    """Write a step file or best.json, whole or not at all. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Of its own name for each writer: two may write the same file at once.
    part = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}.part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")
    part.replace(file)


def _read(file: Path, kind: type[T]) -> T:
    try:
        if file.stat().st_size > LARGEST:
            raise StepFileError(f"{file} has more than {LARGEST} bytes")
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except OSError as error:
        raise StepFileError(f"{file} cannot be read: {error.strerror or error}") from None
    except msgspec.MsgspecError as error:
        raise StepFileError(f"{file} is no {kind.__name__} of this version: {error}") from None
