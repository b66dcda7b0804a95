"""The process that does algebra for the pool: one question a line on standard input, one answer a line back.

It limits itself before every question: a CPU-time timer whose signal ends the process (no handler, so that no C call
can hold it up), an address-space limit, no core file. It dies with its parent. It never evaluates text as code.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def main(parent: int, memory_bytes: int) -> None:
    """Serve until standard input ends."""
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from ares_eval.verify.engine import answer_question, warm_up

    warm_up()
    _limit_memory(memory_bytes)
    replies.write(b'{"ready": true}\n')
    replies.flush()
    for line in requests:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, question.pop("cpu_seconds"))
        try:
            reply: dict[str, Any] = answer_question(**question)
        except (MemoryError, RecursionError) as error:
            reply = {"value": None, "method": "algebra", "reason": "over_budget", "error": type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()
        if reply.get("error"):
            return


def _die_with(parent: int) -> None:
    """Be killed when the parent's thread that owns this worker ends, however it ends (Linux; else by end of input)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(0)


def _limit_memory(limit: int) -> None:
    """Address space; only where the system knows that limit (it is refused on macOS)."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
