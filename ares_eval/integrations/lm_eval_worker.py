"""The process that runs lm-eval's own code: its registry, its prompts, its filters, metrics and aggregation.

One JSON line in, one or more out (lm_eval_process.py). Everything runs in the main thread, since scorers of lm-eval set
signal handlers. As a loader it writes a task's questions to a folder; as a scorer it scores single replies and, at the
end, hands all of them to lm-eval's ``evaluate``, with a model that only repeats what was recorded: results are
lm-eval's own to the last digit, groups and standard errors included; those that need a bootstrap are left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import select
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ares_eval.integrations import lm_eval_tasks as lm_tasks
from ares_eval.integrations.lm_eval_index import Entry, write
from ares_eval.types import Json

if TYPE_CHECKING:
    from ares_eval.integrations.lm_eval_tasks import Loaded

_PR_SET_PDEATHSIG = 1
IDLE_SECONDS = {"loader": 30.0, "scorer": 600.0}
"""A process that nobody asks for so long ends itself; the next question starts another."""
SCORER_BYTES = 8 << 30
"""Private memory of a scorer: its data sets are mapped files and do not count."""
KEPT_TASKS = 32
"""Tasks that a scorer keeps loaded."""


def main(kind: str, parent: int) -> None:
    """Serve until standard input ends."""
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what lm-eval prints must not get between the answers
    if kind == "scorer" and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (SCORER_BYTES, SCORER_BYTES))

    def say(answer: Json) -> None:
        answers.write(msgspec.json.encode(answer, enc_hook=_plain) + b"\n")
        answers.flush()

    worker = Worker(say)
    for line in _lines(IDLE_SECONDS[kind]):
        question = msgspec.json.decode(line)
        operation = question.pop("op")
        try:
            worker.operations[operation](**question)
        except Exception as error:  # noqa: BLE001 - a task's code may raise anything: the parent is told what
            say({"error": _words(error), "type": type(error).__name__, "known": isinstance(error, KNOWN)})


KNOWN = (OSError, ImportError, lm_tasks.Unsupported)
"""Errors whose message is enough: data, packages, and what we say ourselves."""


class Worker:
    """What one process knows: the tasks that it loaded, and the replies that it was sent."""

    def __init__(self, say: Callable[[Json], None]) -> None:
        self.say = say
        self.loaded: dict[str, Loaded] = {}
        self.replies: dict[str, dict[tuple[str, int], list[str]]] = {}
        self.operations: dict[str, Callable[..., None]] = {
            "index": self.index,
            "load": self.load,
            "open": self.open,
            "score": self.score,
            "replies": self.keep,
            "sum": self.sum_up,
        }

    def index(self, *, folder: str | None, file: str | None, version: str) -> None:
        """The registry's names: of lm-eval itself, kept in ``file``; or of a folder, as the answer."""
        names = lm_tasks.index(folder)
        if file is not None:
            write(Path(file), version, names)
        self.say({"names": names if file is None else None, "broken": lm_tasks.broken(folder) if folder else []})

    def load(self, *, name: str, entries: dict[str, Json], limit: int | None, folder: str) -> None:
        """Write a task's questions to ``folder``; the answer says what the task is."""
        found = msgspec.convert(entries, dict[str, Entry])
        self.say(lm_tasks.write_questions(lm_tasks.load(name, found), limit, Path(folder)))

    def open(self, *, key: str, name: str, entries: dict[str, Json]) -> None:
        """Load a task for scoring, before any reply comes."""
        self._task(key, name, entries)
        self.say({"open": True})

    def score(
        self, *, key: str, name: str, entries: dict[str, Json], leaf: str, doc: int, hash: str, text: str
    ) -> None:
        """Score one reply as if it were the only one."""
        task = self._task(key, name, entries)
        scores, answered = task.leaves[leaf].score(doc, hash, [text])
        self.say({"scores": scores, "answer": answered})

    def keep(self, *, key: str, leaf: str, doc: int, texts: list[str]) -> None:
        """Take the replies to one question, for ``sum``; not answered."""
        self.replies.setdefault(key, {})[leaf, doc] = texts

    def sum_up(
        self, *, key: str, name: str, entries: dict[str, Json], hashes: list[Json], draws: dict[str, int]
    ) -> None:
        """Score all replies that were sent: a line as each begins, then the results."""
        from ares_eval.integrations import lm_eval_replay as replay

        task = self._task(key, name, entries)
        for leaf, doc, digest in hashes:
            task.leaves[leaf].check(doc, digest)
        kept = self.replies.pop(key, {})
        self.say({"results": replay.evaluate(task, kept, draws, at=lambda leaf, doc: self.say({"at": [leaf, doc]}))})

    def _task(self, key: str, name: str, entries: dict[str, Json]) -> Loaded:
        if key not in self.loaded:
            while len(self.loaded) >= KEPT_TASKS:
                self.loaded.pop(next(iter(self.loaded)))
            self.loaded[key] = lm_tasks.load(name, msgspec.convert(entries, dict[str, Entry]))
        return self.loaded[key]


def _lines(idle: float) -> Iterator[bytes]:
    buffer = b""
    while True:
        line, end, rest = buffer.partition(b"\n")
        if end:
            buffer = rest
            yield line
            continue
        if not select.select([0], [], [], idle)[0]:
            return
        piece = os.read(0, 1 << 20)
        if not piece:
            return
        buffer += piece


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 600 else text[:599] + "…"


def _plain(value: Any) -> Json:
    """numpy's numbers as Python's; anything else by its name."""
    with contextlib.suppress(AttributeError, ValueError, TypeError):
        return value.item()
    return str(value)[:200]


def _die_with(parent: int) -> None:
    """Be killed when the parent's thread that owns this process ends, however it ends (Linux; else by end of input)."""
    random.seed(0)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)
