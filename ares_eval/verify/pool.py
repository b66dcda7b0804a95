"""Killable processes for algebra: warm, one question at a time, stopped from outside, never left behind.

Each worker has a thread of this process that owns it: the thread hands it one question, waits for the line that
answers, and kills the worker's process group at the wall limit. The worker's own CPU timer ends it first on any
machine that is not overloaded, so that verdicts depend on CPU time and not on load. A worker that died or has served
its share is replaced; the other workers go on meanwhile. Works from any thread, under asyncio, in daemon processes
and where ``__main__`` cannot be imported: a worker is a plain child that imports this package by the parent's path.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path

from ares_eval.verify.decision import Algebra, Decision
from ares_eval.verify.limits import CPU_SECONDS, MEMORY_BYTES, PAIRS_PER_WORKER, START_SECONDS, WALL_FACTOR

_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from ares_eval.verify.worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)


class Pool:
    """Up to ``workers`` processes, started when first needed. ``close`` ends them all."""

    def __init__(self, workers: int, cpu_seconds: float = CPU_SECONDS, memory_bytes: int = MEMORY_BYTES) -> None:
        self.size = max(1, workers)
        self.cpu_seconds = cpu_seconds
        self.memory_bytes = memory_bytes
        self._questions: queue.SimpleQueue[tuple[Algebra, Future[Decision]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._waiting = 0
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, question: Algebra) -> Future[Decision]:
        """The decision to come. Its reason is ``timeout`` or ``over_budget`` where the limits ended it."""
        future: Future[Decision] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier is closed")
            self._waiting += 1
            if self._waiting > self._idle and len(self._threads) < self.size:
                thread = threading.Thread(target=self._serve, name="verify-worker", daemon=True)
                self._threads.append(thread)
                self._idle += 1
                thread.start()
        self._questions.put((question, future))
        return future

    def close(self) -> None:
        """Wait for what is under way, then end every worker. No child is left."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._questions.put(None)
        for thread in threads:
            thread.join()

    def _serve(self) -> None:
        worker: _Worker | None = None
        try:
            while (item := self._questions.get()) is not None:
                question, future = item
                with self._lock:
                    self._idle -= 1
                    self._waiting -= 1
                if future.set_running_or_notify_cancel():
                    try:
                        if worker is None or not worker.usable:
                            if worker is not None:
                                worker.stop()
                            worker = _Worker(self.memory_bytes)
                        decision = worker.ask(question, self.cpu_seconds)
                    except (OSError, RuntimeError) as error:
                        future.set_exception(error)
                    else:
                        future.set_result(decision)
                with self._lock:
                    self._idle += 1
        finally:
            if worker is not None:
                worker.stop()


class _Worker:
    """One child process and the pipe to it; used by one thread only."""

    def __init__(self, memory_bytes: int) -> None:
        path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, path, str(os.getpid()), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        self.served = 0
        self.alive = True
        self._buffer = b""
        if self._read_line(START_SECONDS) is None:
            self.stop()
            raise RuntimeError("a verification worker did not start; `python -c 'import math_verify'` shows why")

    @property
    def usable(self) -> bool:
        return self.alive and self.served < PAIRS_PER_WORKER

    def ask(self, question: Algebra, cpu_seconds: float) -> Decision:
        """Hand over one question and wait for its answer within the limits."""
        self.served += 1
        assert self.process.stdin is not None
        line = json.dumps({**asdict(question), "cpu_seconds": cpu_seconds}).encode() + b"\n"
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except BrokenPipeError:
            answer = None
        else:
            answer = self._read_line(cpu_seconds * WALL_FACTOR)
        if answer is None:
            self.stop()
            ended = self.process.returncode
            timed_out = ended in (-signal.SIGPROF, -signal.SIGKILL, -signal.SIGXCPU)
            return Decision(None, "algebra", "timeout" if timed_out else "over_budget")
        reply = json.loads(answer)
        if reply.get("error"):
            self.stop()
        return Decision(reply["value"], reply["method"], reply.get("reason"))

    def _read_line(self, seconds: float) -> bytes | None:
        """The next line of the worker, or None where it ended or the time is up."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        end = time.monotonic() + seconds
        poller = select.poll()
        poller.register(descriptor, select.POLLIN | select.POLLHUP)
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                return None
            piece = os.read(descriptor, 65536)
            if not piece:
                self.process.wait()
                return None
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def stop(self) -> None:
        """Kill the worker with everything it started, and reap it."""
        if not self.alive:
            return
        self.alive = False
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
