"""`ares-train watch` that kills itself (SIGKILL) at one place: ``python -m tests.train.loop_killed PLACE WORDS...``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ares_eval.series import steps
from ares_train import cli
from ares_train.loop import child, consequences, gating

SAMPLES = 3
"""Recorded replies after which ``serving`` kills."""


def die(*_: Any, **__: Any) -> Any:
    """As if somebody else had killed us."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(module: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Die at the call of a function for which ``when`` holds."""
    real = getattr(module, name)

    def replaced(*args: Any, **options: Any) -> Any:
        return die() if when(*args, **options) else real(*args, **options)

    setattr(module, name, replaced)


def serving(run_dir: Path) -> None:
    """Die while ares-eval is asking."""

    real = child._wait

    def wait(process: subprocess.Popen[bytes], *more: Any) -> int:
        if "--dry-run" in process.args:  # type: ignore[operator]
            return real(process, *more)
        while not any(
            len(file.read_bytes().splitlines()) >= SAMPLES for file in run_dir.glob("eval/runs/*/*/samples.jsonl")
        ):
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.02)
        return die()

    child._wait = wait


def plan(place: str, run_dir: Path) -> None:
    """Arrange the death."""
    if place == "merging":
        from ares_train.merge import merging

        before(merging, "_put")
    elif place == "merged":
        before(child, "evaluate")
    elif place == "serving":
        serving(run_dir)
    elif place == "evaluated":
        before(gating, "decide")
    elif place == "written":
        before(consequences, "draw", lambda run, *_: bool(steps.read_all(run)))
    elif place == "logged":
        before(steps, "write", lambda file, content: isinstance(content, steps.StepResult) and bool(content.logged))
    else:
        raise ValueError(place)


if __name__ == "__main__":
    plan(sys.argv[1], Path(sys.argv[3]))
    sys.exit(cli.main(sys.argv[2:]))
