"""`python -m benchmarks [NAME ...]`: measure `ares-eval` and print a table with goals.

Every workload is the real command line, from start to exit, scored and recorded, against the loopback server in a
process of its own on the same machine. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import inputs, measure
from benchmarks.workloads import STARTS, WORKLOADS, Workload
from tests import loopback

MEGABYTE = 1_000_000


@dataclasses.dataclass(slots=True)
class Row:
    """One line of the table. Seconds; ms CPU a sample; megabytes."""

    name: str
    title: str
    wall: float
    cpu: float
    ms: float | None = None
    memory: float | None = None
    span: float | None = None
    ideal: float | None = None
    in_flight: int | None = None
    requests: int | None = None
    server_cpu: float | None = None
    load: float = 0.0
    missed: list[str] = dataclasses.field(default_factory=list)
    judged: bool = False


def program() -> list[str]:
    """The installed command, else the module."""
    script = Path(sys.executable).with_name("ares-eval")
    return [str(script)] if script.exists() else [sys.executable, "-m", "ares_eval.cli"]


def main() -> int:
    """Run the workloads that were asked for."""
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: start, {', '.join(names)}; default: all")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the table shows the median by wall time")
    parser.add_argument("--no-floor", action="store_true", help="leave out the floor's rows")
    parser.add_argument("--dataset-dir", type=Path, help="folder with `mathvision/`: real pictures, not drawn ones")
    parser.add_argument("--work-dir", type=Path, help="keep inputs and runs here")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {*names, "start"}
    if unknown:
        parser.error(f"unknown workload {', '.join(sorted(unknown))}; known: start, {', '.join(names)}")
    wanted = with_their_bases(arguments.names)
    rows: list[Row] = []
    with work_folder(arguments.work_dir) as folder:
        warm_up(folder)
        print_head()
        if not arguments.names or "start" in arguments.names:
            rows += map(shown, starts())
        for workload in WORKLOADS:
            if wanted and workload.name not in wanted:
                continue
            runs = [run(workload, folder, arguments.dataset_dir, rows) for _ in range(arguments.repeat)]
            rows.append(shown(sorted(runs, key=lambda row: row.wall)[(len(runs) - 1) // 2]))
            if workload.floor and not arguments.no_floor:
                rows.append(shown(floor(workload, folder)))
    if arguments.json:
        arguments.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    missed = [row for row in rows if row.missed]
    for row in missed:
        print(f"missed: {row.name}: {'; '.join(row.missed)}")
    return 1 if missed else 0


def with_their_bases(names: list[str]) -> set[str]:
    """The names and what they are compared with or build on."""
    wanted = set(names)
    for workload in WORKLOADS:
        if workload.name in wanted:
            wanted |= {name for name in (workload.after, workload.beside) if name}
    return wanted


@contextlib.contextmanager
def work_folder(kept: Path | None) -> Iterator[Path]:
    """Where inputs and runs lie."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="ares-benchmarks-") as folder:
        yield Path(folder)


def warm_up(folder: Path) -> None:
    """One small run, so that no workload pays for compiling modules or a cold disk."""
    run(Workload("warm-up", "", 10, 8, {}, pictures=True), folder, None, [])
    run(Workload("warm-up", "", 10, 8, {}, arguments=("--logprobs", "5")), folder, None, [])


def starts() -> list[Row]:
    """Start times: the median of five."""
    rows = []
    for name, words, goal in STARTS:
        costs = [measure.run([*program(), *words]) for _ in range(5)]
        row = Row(name, "start to exit", statistics.median(cost.wall for cost in costs),
                  statistics.median(cost.cpu for cost in costs), memory=max(cost.memory for cost in costs) / MEGABYTE,
                  load=os.getloadavg()[0], judged=True)  # fmt: skip
        judge(row, "wall", row.wall, goal)
        if any(cost.code for cost in costs):
            row.missed.append(f"exit code {costs[0].code}: {costs[0].errors[-300:]}")
        rows.append(row)
    return rows


def run(workload: Workload, folder: Path, dataset_dir: Path | None, before: list[Row]) -> Row:
    """Run ares-eval on one workload and compare with its goals."""
    options = dict(workload.server)
    if workload.pictures and dataset_dir is not None and workload.count <= inputs.DISTINCT_PICTURES:
        data, options["answers"] = inputs.real_pictures(folder, dataset_dir, workload.count)
    elif workload.pictures:
        data = inputs.picture_questions(folder, workload.count)
    else:
        data = inputs.text_questions(folder, workload.count)
    task = "mathvision" if workload.pictures else "gsm8k"
    base = Path(tempfile.mkdtemp(prefix=f"{workload.name}-", dir=folder))
    cache = folder / f"cache-{workload.after}" if workload.after else base / "cache"
    with loopback.start(**options) as server:
        command = [
            *program(), "run", "--model-name", "m", "--openai-base-url", server.url, "--openai-api-key", "k",
            "--datasets", task, "--dataset-dir", data, "--eval-threads", workload.in_flight, "--quiet",
            "--output-dir", base / "runs", "--cache-dir", cache, *workload.arguments,
        ]  # fmt: skip
        load = os.getloadavg()[0]
        cost = measure.run(command)
        stats = server.stats()
    if any(other.after == workload.name for other in WORKLOADS):
        link = folder / f"cache-{workload.name}"
        link.unlink(missing_ok=True)
        link.symlink_to(cache)
    row = Row(
        workload.name, workload.title, cost.wall, cost.cpu, 1000 * cost.cpu / workload.count, cost.memory / MEGABYTE,
        stats["span"], workload.ideal, stats["most_in_flight"], stats["requests"], stats["cpu_seconds"], load,
        judged=True,
    )  # fmt: skip
    check(row, workload, cost, base / "runs", stats)
    compare(row, workload, before)
    return row


def check(row: Row, workload: Workload, cost: measure.Cost, runs: Path, stats: dict[str, Any]) -> None:
    """Note on the row what is not as it must be, and every goal that is missed."""
    if cost.code != workload.code:
        row.missed.append(f"exit code {cost.code}, not {workload.code}: {cost.errors[-500:]}")
    if cost.orphans:
        row.missed.append(f"{cost.orphans} processes left behind")
    if stats["asked_after_good"]:
        row.missed.append(f"{stats['asked_after_good']} asked again after a good answer")
    if workload.requests is not None and stats["requests"] != workload.requests:
        row.missed.append(f"{stats['requests']} requests, not {workload.requests}")
    files = list(runs.rglob("results.json"))
    task = next(iter(json.loads(files[0].read_text())["tasks"].values())) if files else {}
    scored = task.get("correct", 0) + task.get("incorrect", 0)
    if workload.code == 0 and not (scored == task.get("n") == workload.count):
        row.missed.append(f"scored {scored} of {workload.count}: {task}")
    if workload.code == 0 and "answers" not in workload.server and task.get("incorrect"):
        row.missed.append(f"{task['incorrect']} right answers scored wrong")
    if workload.code == 4 and scored:
        row.missed.append(f"{scored} scored from failures")
    values = {
        "wall": row.wall, "span": row.span, "cpu": row.ms, "memory": row.memory,
        "requests": stats["requests"] / workload.count, "wasted": stats["requests"] - workload.count,
    }  # fmt: skip
    for name, goal in workload.goals.items():
        judge(row, name, values[name], goal)


def compare(row: Row, workload: Workload, before: list[Row]) -> None:
    """The goals that are relative to another workload."""
    base = next((each for each in before if each.name == workload.beside), None)
    if base is None:
        return
    if workload.slower is not None:
        judge(row, f"wall beside {base.name}", row.wall, base.wall + workload.slower)
    if workload.larger is not None and row.memory is not None and base.memory is not None:
        judge(row, f"memory beside {base.name}", row.memory, base.memory + workload.larger)


def judge(row: Row, name: str, value: float | None, goal: float) -> None:
    """Note a missed goal."""
    if value is None or value > goal + 1e-9:
        row.missed.append(f"{name} {'?' if value is None else f'{value:.3g}'} > {goal:g}")


def floor(workload: Workload, folder: Path) -> Row:
    """The floor's row for a workload."""
    if workload.pictures:
        questions = inputs.picture_questions(folder, workload.count) / "mathvision" / "data" / "test.jsonl"
    else:
        questions = inputs.text_questions(folder, workload.count) / "gsm8k/grade_school_math/data/test.jsonl"
    with loopback.start(**workload.server) as server:
        words = ["--url", server.url, "--questions", questions, "--in-flight", workload.in_flight]
        words += ["--logprobs", workload.logprobs, "--log", folder / f"floor-{workload.name}.jsonl"]
        load = os.getloadavg()[0]
        cost = measure.run([sys.executable, "-m", "benchmarks.floor", *words])
        stats = server.stats()
    row = Row(
        "  floor", "aiohttp alone: no checks, no retries", cost.wall, cost.cpu, 1000 * cost.cpu / workload.count,
        cost.memory / MEGABYTE, stats["span"], workload.ideal, stats["most_in_flight"], stats["requests"],
        stats["cpu_seconds"], load,
    )  # fmt: skip
    if cost.code or stats["good"] != workload.count:
        row.missed.append(f"the floor itself failed: {cost.errors[-300:]}")
    return row


COLUMNS = (
    ("workload", 14), ("", 44), ("wall s", 7), ("ideal", 6), ("span s", 7), ("ms/sample", 9), ("MB", 6),
    ("flight", 6), ("requests", 8), ("server s", 8), ("load", 5), ("goals", 6),
)  # fmt: skip


def print_head() -> None:
    """The table's first line."""
    print("wall, ms/sample (user+system) and MB (sum over processes) are of ares-eval's process tree, start to exit")
    print("  ".join(f"{name:<{width}}" if width > 13 else f"{name:>{width}}" for name, width in COLUMNS), flush=True)


def shown(row: Row) -> Row:
    """Print the row."""

    def cell(value: float | int | None, digits: int = 2) -> str:
        return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.{digits}f}"

    verdict = "" if not row.judged else "MISSED" if row.missed else "met"
    cells = [
        row.name, row.title, cell(row.wall), cell(row.ideal), cell(row.span), cell(row.ms), cell(row.memory, 0),
        cell(row.in_flight), cell(row.requests), cell(row.server_cpu), cell(row.load, 1), verdict,
    ]  # fmt: skip
    widths = [width for _, width in COLUMNS]
    print(
        "  ".join(
            f"{text:<{width}}" if width > 13 else f"{text:>{width}}" for text, width in zip(cells, widths, strict=True)
        ),
        flush=True,
    )
    return row


if __name__ == "__main__":
    raise SystemExit(main())
