"""`ares-eval` as a child process: in this environment or another one, ended with us, its outcome read from its output.

lm-eval's and VLMEvalKit's pins conflict with verl's, so the evaluator may live in an environment of its own; all it
gets is a file of settings with a checkpoint's folder in it, and all we read is the JSON that it prints. It runs behind
ares_eval's guard, which ends it when we die, and which keeps the step claimed until then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ares_eval import evaluate as evaluation
from ares_eval.inference.servers import guard

GRACE = 60.0
"""Seconds for an interrupted evaluation to record the replies that are in flight."""

ORPHAN_GRACE = "15"
"""Seconds that the guard gives an evaluation whose watcher died."""

TOLD_EVERY = 60.0
"""Seconds between two lines that say that the evaluation still runs."""

USAGE, NO_PROGRAM = 2, 127
TAIL_LINES, TAIL_BYTES, LARGEST_OUTPUT = 12, 16_384, 64 << 20


class EvaluationFailed(Exception):
    """This try gave no result; the message says why. Another one may."""


class EvaluatorUnusable(Exception):
    """No try can give a result: the settings or the environment are wrong. The message says what would do."""


class Interrupted(Exception):
    """We were asked to stop; what was recorded is kept."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to results. ``complete``: everything was measured; else ``reason`` says what was not."""

    folder: Path
    complete: bool
    reason: str


def check(python: str, settings: Mapping[str, Any], work: Path, stop: threading.Event) -> None:
    """Whether ares-eval takes these settings there, tasks and data included; it sends nothing.

    Raises EvaluatorUnusable, Interrupted.
    """
    code, log = _run(
        python, {**settings, "model_name": "model"}, ["--dry-run"], work, "check", (), stop, lambda _: None
    )
    if code == NO_PROGRAM:
        raise EvaluatorUnusable(f"eval_python: {python} cannot be run")
    if code != 0:
        raise EvaluatorUnusable(f"`{python} -m ares_eval.cli` refuses the settings:\n{_tail(log)}")


def evaluate(
    python: str,
    settings: Mapping[str, Any],
    work: Path,
    *,
    held: Sequence[int] = (),
    stop: threading.Event,
    say: Callable[[str], None],
) -> Finished:
    """Run ares-eval to its end. ``work``: where settings, output and log go; ``held``: descriptors that it keeps open.

    Raises EvaluationFailed, EvaluatorUnusable, Interrupted.
    """
    code, log = _run(python, settings, ["--json"], work, "ares-eval", held, stop, say)
    if code == USAGE:
        raise EvaluatorUnusable(f"`{python} -m ares_eval.cli` refuses the settings:\n{_tail(log)}")
    found = _outcome(work / "ares-eval.json")
    if code not in (evaluation.COMPLETE, evaluation.INCOMPLETE) or found is None:
        raise EvaluationFailed(f"ares-eval ended with code {code}: {_tail(log) or 'it said nothing'}")
    return Finished(Path(found), code == evaluation.COMPLETE, "" if code == evaluation.COMPLETE else _tail(log))


def _run(
    python: str,
    settings: Mapping[str, Any],
    words: Sequence[str],
    work: Path,
    name: str,
    held: Sequence[int],
    stop: threading.Event,
    say: Callable[[str], None],
) -> tuple[int, Path]:
    """Exit code, and the log of what it said on standard error; standard output goes into ``work/NAME.json``."""
    work.mkdir(parents=True, exist_ok=True)
    file, log = work / f"{name}.yaml", work / f"{name}.log"
    # JSON is YAML.
    file.write_text(json.dumps(dict(settings), indent=1, default=str) + "\n", encoding="utf-8")
    command = [python, "-m", "ares_eval.cli", "run", "--config", str(file), *words]
    guarded = [sys.executable, "-I", "-S", str(guard.__file__), str(os.getpid()), ORPHAN_GRACE, *command]
    with log.open("wb") as errors, (work / f"{name}.json").open("wb") as output:
        process = subprocess.Popen(
            guarded,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            pass_fds=tuple(held),
        )
        try:
            return _wait(process, stop, say), log
        finally:
            _kill(process)


def _wait(process: subprocess.Popen[bytes], stop: threading.Event, say: Callable[[str], None]) -> int:
    began = told = time.monotonic()
    while (code := process.poll()) is None:
        if stop.wait(0.2):
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            raise Interrupted
        if time.monotonic() - told > TOLD_EVERY:
            told = time.monotonic()
            say(f"still evaluating, {(told - began) / 60:.0f} min")
    return code


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _outcome(file: Path) -> str | None:
    """The run's folder that ares-eval printed; None where it printed none."""
    try:
        if file.stat().st_size > LARGEST_OUTPUT:
            return None
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    folder = found.get("run") if isinstance(found, dict) else None
    return folder if isinstance(folder, str) else None


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-TAIL_LINES:])
