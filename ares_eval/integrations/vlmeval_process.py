"""Starts the locked-down process of VLMEvalKit's code, answers its questions to the judge, and ends it in any case.

The child gets an environment of our making (no keys, no proxies, no home), its own folder as home and temporary folder,
and no way out but two pipes. Everything it says is checked here: size, form, and that it comes in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import ares_eval
from ares_eval.types import Json

MEMORY_BYTES = 6 << 30
"""Address space of the child: pandas, sympy and a benchmark of a gigabyte fit."""
LONGEST_LINE = 512 << 20
"""Bytes of one line of the child: an answer names every row once."""
LONGEST_QUESTION = 4 << 20
_SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/proc/cpuinfo")
"""What an interpreter reads of the system. Nothing of /etc that names users, nothing of other processes."""
_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from ares_eval.integrations.vlmeval_child import main; main(int(sys.argv[2]))"
)


class ChildFailed(Exception):
    """The child gave no answer; the message says why in one line. ``kind``: name of the exception there, or timeout."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Question:
    """What a scorer asks its judge. ``row``: the row that is scored, its prediction among the columns."""

    prompt: str
    system: str | None = None
    row: Mapping[str, Json] = field(default_factory=dict)


Judge = Callable[[Sequence[Question]], Sequence[str | None]]
"""Replies to questions that wait at the same time; None where there is none. May raise: the child is ended then."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the child did; ``locks``: those that held."""

    value: Json
    locks: tuple[str, ...]


def no_judge(questions: Sequence[Question]) -> list[str | None]:
    """Answers nothing."""
    return [None] * len(questions)


def run(
    action: str,
    own: Path,
    *,
    readable: Sequence[Path] = (),
    judge: Judge = no_judge,
    seconds: float = 900.0,
    memory_bytes: int = MEMORY_BYTES,
    **spec: Json,
) -> Answer:
    """Run one action in a child of its own and wait for it.

    ``own``: an empty folder for its files, with VLMEvalKit's data in ``own/data``. ``readable``: what else it may read.
    ``seconds``: of its own time; waiting for the judge does not count. Raises ChildFailed.
    """
    own = own.resolve()
    for name in ("data", "tmp"):
        (own / name).mkdir(exist_ok=True)
    whole = {
        **spec,
        "action": action,
        "own": str(own),
        "readable": [str(path) for path in (*_interpreter(), *(path.resolve() for path in readable))],
        "memory_bytes": memory_bytes,
        "cpu_seconds": int(seconds) + 1,
    }
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, json.dumps(_import_path()), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=own / "tmp",
        env=_environment(own),
        start_new_session=True,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        return _converse(child, child.stdin, child.stdout, whole, judge, seconds)
    finally:
        # The child cannot leave its session, so this reaches whatever it started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        with contextlib.suppress(OSError):
            child.stdin.close()
        child.stdout.close()


def _converse(
    child: subprocess.Popen[bytes],
    to: IO[bytes],
    out: IO[bytes],
    spec: Mapping[str, Json],
    judge: Judge,
    seconds: float,
) -> Answer:
    """Hand over the task, answer questions, take the answer."""
    lines = _Lines(out.fileno())
    deadline = time.monotonic() + seconds
    _send(to, spec)
    while True:
        questions: list[Json] = []
        line = lines.next(deadline)
        # Those that wait together are asked together.
        while line is not None:
            message = _message(line)
            if "judge" not in message:
                return _answer(message)
            questions.append(message["judge"])
            line = lines.next(time.monotonic() + 0.02) if len(questions) < 256 else None
        if not questions:
            if lines.ended:
                raise ChildFailed(f"its process ended without an answer ({_status(child)})", "ended")
            raise ChildFailed(f"it took longer than {seconds:.0f} s", "timeout")
        asked = time.monotonic()
        replies = judge([Question(q["prompt"][:LONGEST_QUESTION], q["system"], q["row"]) for q in questions])
        deadline += time.monotonic() - asked
        for question, reply in zip(questions, replies, strict=True):
            _send(to, {"id": question["id"], "reply": reply})


def _send(to: IO[bytes], message: Mapping[str, Json]) -> None:
    # A child that is gone is noticed by the end of its output.
    with contextlib.suppress(BrokenPipeError):
        to.write(json.dumps(message).encode() + b"\n")
        to.flush()


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        raise ChildFailed("its process said something that is no answer", "malformed") from None
    if not isinstance(message, dict):
        raise ChildFailed("its process said something that is no answer", "malformed")
    return message


def _answer(message: Mapping[str, Json]) -> Answer:
    if "done" in message:
        return Answer(message["done"], tuple(map(str, message.get("locks", ()))))
    raise ChildFailed(str(message.get("failed", "")), str(message.get("kind", "")))


def _status(child: subprocess.Popen[bytes]) -> str:
    try:
        code = child.wait(5)
    except subprocess.TimeoutExpired:
        return "its output was closed"
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return f"{signal.Signals(-code).name}: out of processor time or memory"
    return f"exit code {code}"


class _Lines:
    """Whole lines of a pipe, each within a time and a size."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._buffer = bytearray()
        self.ended = False

    def next(self, deadline: float) -> bytes | None:
        """The next line; None at the end and at the deadline."""
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._buffer[: end + 1])
                del self._buffer[: end + 1]
                return line
            searched = len(self._buffer)
            if searched > LONGEST_LINE:
                raise ChildFailed("its process says too much", "malformed")
            wait = deadline - time.monotonic()
            if self.ended or wait <= 0 or not select.select([self._number], [], [], wait)[0]:
                return None
            data = os.read(self._number, 1 << 20)
            self.ended = not data
            self._buffer += data


# ---------------------------------------------------------------- what the child may see


def _environment(own: Path) -> dict[str, str]:
    return {
        "HOME": str(own),
        "TMPDIR": str(own / "tmp"),
        "LMUData": str(own / "data"),
        "PRED_FORMAT": "tsv",
        "EVAL_FORMAT": "csv",
        "HF_HUB_OFFLINE": "1",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def _package() -> Path:
    return Path(ares_eval.__file__).resolve().parent


def _import_path() -> list[str]:
    """Our import path without what was put on it besides the installation and this package's own place."""
    roots = _roots()
    kept = [entry for entry in sys.path if entry and any(Path(entry).resolve().is_relative_to(root) for root in roots)]
    home = str(_package().parent)
    return [*kept, *([] if home in kept else [home])]


def _roots() -> list[Path]:
    return [Path(root).resolve() for root in {sys.prefix, sys.base_prefix, sys.exec_prefix}]


def _interpreter() -> list[Path]:
    return [*_roots(), _package(), *map(Path, _SYSTEM)]
