"""One command from start to exit: wall time, CPU of its whole process tree, peak memory.

CPU is user + system time of the command and of every process it started, orphans included: they fall to us (child
subreaper) and are waited for. Memory is read from /proc twenty times a second: the largest sum of the resident sets of
the tree (pages shared between processes count in each), or the largest process's own high-water mark if that is more.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05
ORPHAN_SECONDS = 3.0
"""How long processes may outlive the command before they are killed and told on."""
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command used. Seconds, bytes."""

    code: int
    wall: float
    cpu: float
    memory: int
    processes: int
    orphans: int
    output: str
    errors: str


def run(command: Sequence[object], *, environment: Mapping[str, str] | None = None, limit: float = 600) -> Cost:
    """Run a command to its end; raises TimeoutError (and kills its session) after ``limit`` seconds."""
    subreaper(True)
    try:
        return _run(command, environment or {}, limit)
    finally:
        subreaper(False)


def subreaper(wanted: bool) -> None:
    """Whether orphans below us become our children (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


def _run(command: Sequence[object], environment: Mapping[str, str], limit: float) -> Cost:
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    watch = Watch(process.pid)
    texts = ["", ""]
    readers = [
        threading.Thread(target=lambda number=number, pipe=pipe: texts.__setitem__(number, pipe.read()), daemon=True)
        for number, pipe in enumerate((process.stdout, process.stderr))
    ]
    for thread in [*readers, watch]:
        thread.start()
    timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.stop()
    cpu, orphans = reap(process.pid)
    for thread in readers:
        thread.join()
    if wall >= limit:
        raise TimeoutError(f"{command[0]} took more than {limit:.0f} s\n{texts[1][-2000:]}")
    return Cost(
        process.returncode,
        wall,
        usage.ru_utime + usage.ru_stime + cpu,
        watch.peak,
        watch.most,
        orphans,
        texts[0],
        texts[1],
    )


class Watch(threading.Thread):
    """Reads the memory of a session's processes until told to stop."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.session = session
        self.peak = 0
        self.most = 0
        self.over = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        while not self.over.wait(SAMPLE_SECONDS):
            sizes = [memory(pid) for pid in members(self.session)]
            self.most = max(self.most, len(sizes))
            self.peak = max(self.peak, sum(now for now, _ in sizes), *(high for _, high in sizes), 0)

    def stop(self) -> None:
        """No more samples."""
        self.over.set()
        self.join()


def members(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes now and at most; zeros for a process that is gone."""
    now = high = 0
    try:
        for line in Path("/proc", str(pid), "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                high = int(line.split()[1]) * 1024
            elif line.startswith("VmRSS:"):
                now = int(line.split()[1]) * 1024
    except OSError:
        return 0, 0
    return now, high


def reap(session: int) -> tuple[float, int]:
    """Wait for what the command left behind: CPU seconds of it, and how many had to be killed."""
    cpu, killed = 0.0, 0
    end = time.monotonic() + ORPHAN_SECONDS
    while left := members(session):
        if time.monotonic() > end:
            killed = len(left)
            os.killpg(session, signal.SIGKILL)
            break
        time.sleep(0.02)
    while True:
        try:
            pid, _, usage = os.wait4(-session, os.WNOHANG if not killed else 0)
        except ChildProcessError:
            return cpu, killed
        if pid == 0:
            return cpu, killed
        cpu += usage.ru_utime + usage.ru_stime
