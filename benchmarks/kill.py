"""`python -m benchmarks.kill`: kill -9 `ares-eval` at random moments; the same command must finish the work.

Twenty kills by default, half with answers of 64 tokens and half with 4,096. After each: the rerun completes with exit
code 0, `results.json` equals an unbroken run's byte for byte, `samples.jsonl` holds each draw once and equal but for
timings, token traces (of the short answers) too, no process outlives the killed one, and no more requests were repeated
than can be in flight.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import inputs, measure
from benchmarks.__main__ import program
from tests import loopback

QUESTIONS = 400
IN_FLIGHT = 32
LENGTHS = (64, 4096)
EARLIEST = 0.1
"""Seconds after the start; before that nothing of ours runs yet."""
OUTLIVE_SECONDS = 5.0
TIMINGS = ("latency", "attempts", "cached")
TRACED = 64
"""Answers of this length are asked for with log-probs."""


def main() -> int:
    """Kill, run again, compare; 1 if anything differed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kill", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    failed = 0
    print(f"{'tokens':>6} {'killed at s':>11} {'records then':>12} {'repeated':>8} {'answers lost':>12}  verdict")
    with tempfile.TemporaryDirectory(prefix="ares-kill-") as folder:
        data = inputs.text_questions(Path(folder), QUESTIONS)
        for number, length in enumerate(LENGTHS):
            share = arguments.kills // 2 if number else arguments.kills - arguments.kills // 2
            with loopback.start(latency=0.2, jitter=0.1, tokens=length, wrong=0.1) as server:
                base = Path(folder) / str(length)
                whole = measure.run(command(server.url, data, base / "whole", length))
                if whole.code != 0:
                    raise SystemExit(f"the unbroken run failed: {whole.errors[-1000:]}")
                for kill in range(share):
                    server.reset()
                    place = base / str(kill)
                    moment = moments.uniform(EARLIEST, whole.wall)
                    records, outlived = cut_off(command(server.url, data, place, length), moment, place)
                    again = measure.run(command(server.url, data, place, length))
                    stats = server.stats()
                    repeated = stats["requests"] - stats["distinct"]
                    lost = stats["asked_after_good"]
                    wrong = list(differences(base / "whole", place))
                    if again.code != 0:
                        wrong.append(f"exit code {again.code}: {again.errors[-500:]}")
                    if repeated > IN_FLIGHT:
                        wrong.append(f"{repeated} requests repeated with {IN_FLIGHT} in flight")
                    if outlived:
                        wrong.append(f"{outlived} processes outlived the killed one")
                    failed += bool(wrong)
                    verdict = "; ".join(wrong) or "equal"
                    print(f"{length:>6} {moment:>11.2f} {records:>12} {repeated:>8} {lost:>12}  {verdict}", flush=True)
    print(f"{arguments.kills - failed} of {arguments.kills} right")
    return 1 if failed else 0


def command(url: str, data: Path, place: Path, length: int) -> list[str]:
    """The run."""
    words = [
        *program(), "run", "--model-name", "m", "--openai-base-url", url, "--openai-api-key", "k",
        "--datasets", "gsm8k", "--dataset-dir", data, "--eval-threads", IN_FLIGHT, "--quiet",
        "--output-dir", place / "runs", "--cache-dir", place / "cache", "--logprobs", 5 if length == TRACED else 0,
    ]  # fmt: skip
    return [str(word) for word in words]


def cut_off(words: list[str], moment: float, place: Path) -> tuple[int, int]:
    """Start, kill -9 at the moment; returns the records written and the processes that outlived it."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    process.kill()
    process.wait()
    end = time.monotonic() + OUTLIVE_SECONDS
    while (left := measure.members(process.pid)) and time.monotonic() < end:
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    files = list(place.rglob("samples.jsonl"))
    return (files[0].read_bytes().count(b"\n") if files else 0), len(left)


def differences(whole: Path, again: Path) -> Iterator[str]:
    """What the two runs' folders do not have in common, timings aside."""
    results = [list((place / "runs").rglob("results.json")) for place in (whole, again)]
    if not all(len(files) == 1 for files in results):
        yield f"{len(results[1])} results.json"
        return
    if results[0][0].read_bytes() != results[1][0].read_bytes():
        yield "results.json differs"
    kept, lines = records(results[0][0].parent), records(results[1][0].parent)
    if len(lines) != len(kept):
        yield f"{len(lines)} lines for {len(kept)} draws"
    missing = {key for key, _ in kept} - {key for key, _ in lines}
    if missing:
        yield f"{len(missing)} draws missing"
    by_key = dict(lines)
    differing = [key for key, value in kept if by_key.get(key, value) != value]
    if differing:
        yield f"{len(differing)} draws differ"


def records(run: Path) -> list[tuple[tuple[str, str, int], dict[str, Any]]]:
    """The lines of samples.jsonl by task, sample and draw, without timings; traces by their content."""
    from ares_eval.records import read_trace
    from ares_eval.types import TraceRef

    made = []
    for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for name in TIMINGS:
            row.pop(name)
        if row["verdict"]:
            row["verdict"].pop("seconds")
        if row["trace"]:
            trace = read_trace(run, TraceRef(**row["trace"]))
            row["trace"] = [trace.tokens, trace.logprob.tolist(), trace.entropy_low.tolist(), trace.tail.tolist()]
        made.append(((row["task"], row["sample"], row["draw"]), row))
    return made


if __name__ == "__main__":
    raise SystemExit(main())
