"""The process between us and a server: it ends the server, and all its children, when we are gone.

Run as ``python guard.py PARENT_PID GRACE_SECONDS COMMAND...`` in a session of its own, so that its process group holds
the server and whatever the server starts. Our death cannot be caught by us (kill -9), and a death signal set in the
child would fire when the *thread* that started it ends and would miss grandchildren (vLLM's engine core); a parent
that watches from outside sees both. It exits with the server's code, 128 + signal where a signal ended it, 127
where the program cannot be started. Imports only what starts in milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

LOOK_EVERY = 0.5
"""Seconds between two looks at whether our parent still lives."""


def main(parent: int, grace: float, command: list[str]) -> int:
    """Run ``command`` until it ends or ``parent`` is gone; in the latter case end the whole process group."""
    signal.signal(signal.SIGTERM, _ignore)
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error}\n")
        return 127
    ended = threading.Event()
    threading.Thread(target=_wait, args=(server, ended), daemon=True).start()
    while not ended.wait(LOOK_EVERY):
        if os.getppid() != parent:
            sys.stderr.write("the process that started this server is gone; stopping\n")
            sys.stderr.flush()
            _end_group(ended, grace)
    code = server.returncode
    return code if code >= 0 else 128 - code


def _ignore(_signal: int, _frame: object) -> None:
    """SIGTERM to the group is for the server; an ignored signal (SIG_IGN) would be inherited by it."""


def _wait(server: subprocess.Popen[bytes], ended: threading.Event) -> None:
    server.wait()
    ended.set()


def _end_group(ended: threading.Event, grace: float) -> None:
    os.killpg(0, signal.SIGTERM)
    ended.wait(grace)
    time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
