"""`python -m benchmarks.recorded [NAME ...] --data DIR`: our verdicts beside those of the benchmarks' own graders.

The loopback server plays back real models' recorded replies, `ares-eval` asks and judges as ever, and every verdict is
set beside the recorded one. Replies to questions whose pictures are not here are judged without asking, also by the
benchmark's official rule. A recorded verdict is another grader's opinion: a disagreement is something to look at, so
all of them are written to ``--out`` with both extractions and our method. DIR holds ``recorded/`` and ``benchmarks/``.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.__main__ import program
from benchmarks.recorded_direct import DIRECT, dynamath_tables, judged
from benchmarks.workloads import PICTURES_UNTOUCHED
from tests import loopback
from tests.loopback.recorded import rows_of

DEFAULT_DATA = Path(os.environ.get("ARES_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True, slots=True)
class Playback:
    """A task and the files of recorded replies to it; ``joined``: their ids are those of the task's native files."""

    task: str
    files: str
    joined: bool = True
    samples: int = 1
    arguments: tuple[str, ...] = ()


PLAYBACKS = (
    Playback("gsm8k", "gsm8k/*.jsonl", joined=False),
    Playback("math500", "math/*.jsonl", joined=False, samples=8),
    Playback("mathvision", "mathvision/*.jsonl", arguments=PICTURES_UNTOUCHED),
    Playback("logicvista", "logicvista/*.jsonl", arguments=PICTURES_UNTOUCHED),
    Playback("mmlu_pro", "mmlu_pro/*.jsonl"),
)


def main() -> int:
    """Play back, compare, print; 1 where a run failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recorded", description=__doc__.splitlines()[0])
    names = [*(playback.task for playback in PLAYBACKS), *DIRECT]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(names)}; default: all")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--out", type=Path, help="file for all disagreements, as JSON lines")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"unknown {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    if not (arguments.data / "recorded").is_dir():
        parser.error(f"no recorded replies at {arguments.data / 'recorded'}; give --data")
    failed, disagreements = False, []
    print(
        f"{'recorded replies':38} {'judged':>6} {'agree':>6} {'only we':>8} {'only they':>9} {'open':>5} {'none':>5} "
        f"{'official agrees':>15}"
    )
    for playback in PLAYBACKS:
        if arguments.names and playback.task not in arguments.names:
            continue
        for file in sorted((arguments.data / "recorded").glob(playback.files)):
            with tempfile.TemporaryDirectory(prefix="ares-recorded-") as folder:
                records, error = play(playback, file, arguments.data, Path(folder))
                failed = failed or bool(error)
                found = list(compare(playback, file, records))
            disagreements += report(f"{playback.task}/{file.stem}", found, error)
    for task, items in DIRECT.items():
        if not arguments.names or task in arguments.names:
            by_run: dict[str, list[dict[str, Any]]] = {}
            for each in judged(task, items(arguments.data)):
                by_run.setdefault(each["run"], []).append(each)
            for name, found in by_run.items():
                disagreements += report(name, found, "")
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in disagreements))
    print(f"\n{len(disagreements)} disagreements" + (f", all in {arguments.out}" if arguments.out else ""))
    causes = collections.Counter(cause(each) for each in disagreements)
    for (run, ours, theirs), number in sorted(causes.items()):
        print(f"  {number:>4}  {run:38} ours: {ours:32} theirs: {theirs}")
    if not arguments.names:
        print("\nDynaMath's published verdicts: average and worst case by our metrics, and by the tables' own counts")
        for model, *values in dynamath_tables(arguments.data):
            print(f"  {model:30} " + "  ".join(f"{100 * value:6.2f}" for value in values))
    return 1 if failed else 0


def play(playback: Playback, file: Path, data: Path, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The run's records with their questions, and an error where it did not complete."""
    base = data / "benchmarks"
    datasets = base
    if playback.task == "math500":
        datasets = folder / "data"
        as_math500(file, datasets / "math500")
    spec = f"{file}={base / playback.task}" if playback.joined else str(file)
    with loopback.start(recorded=[spec]) as server:
        words = [
            *program(), "run", "--model-name", "m", "--openai-base-url", server.url, "--openai-api-key", "k",
            "--datasets", playback.task, "--dataset-dir", datasets, "--eval-threads", "16", "--quiet",
            "--samples", playback.samples, "--output-dir", folder / "runs", "--cache-dir", folder / "cache",
            *playback.arguments,
        ]  # fmt: skip
        cost = measure.run(words)
    files = list((folder / "runs").rglob("samples.jsonl"))
    error = "" if cost.code in (0, 3) else f"exit code {cost.code}: {cost.errors[-500:]}"
    return ([json.loads(line) for line in files[0].open(encoding="utf-8")] if files else []), error


def as_math500(file: Path, folder: Path) -> None:
    """The recorded questions in math500's native layout."""
    folder.mkdir(parents=True)
    rows = [
        {
            "problem": row["question"],
            "solution": row["solution"],
            "answer": row["gold"],
            "subject": "",
            "level": int(row["level"].split()[-1]),
            "unique_id": row["id"],
        }
        for row in rows_of(file)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def compare(playback: Playback, file: Path, records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each record beside what was recorded of the same reply; ``theirs`` None where nothing was."""
    rows = list(rows_of(file))
    by_reply: dict[tuple[str, str], tuple[Any, Any]] = {}
    for row in rows:
        for number, response in enumerate(row.get("responses") or [row["response"]]):
            extraction: Any = row.get("recorded_extraction")
            correct: Any = row.get("recorded_correct")
            if "responses" in row:
                extraction, correct = extraction[number], correct[number]
            elif correct is None and "recorded_extraction" in row:
                correct = extraction == row["gold"]
            by_reply[str(row["id"]), response] = correct, extraction
    for record in records:
        theirs, extraction = by_reply.get((record["sample"], record["text"]), (None, None))
        verdict = record["verdict"] or {}
        yield {
            "run": f"{playback.task}/{file.stem}",
            "sample": record["sample"],
            "reference": record["reference"],
            "ours": verdict.get("value"),
            "our_extraction": verdict.get("extracted"),
            "method": verdict.get("method"),
            "reason": verdict.get("reason") or record["cause"],
            "theirs": theirs,
            "their_extraction": extraction,
            "response": record["text"],
        }


def cause(each: dict[str, Any]) -> tuple[str, str, str]:
    """A disagreement's run, our verdict with its ground, and theirs."""
    ours = f"{each['ours']} ({each['reason'] or each['method']})"
    theirs = "correct" if each["theirs"] else "nothing found" if each["their_extraction"] is None else "incorrect"
    return each["run"], ours, theirs


def report(name: str, found: list[dict[str, Any]], error: str) -> list[dict[str, Any]]:
    """Print a line; the disagreements are returned."""
    known = [each for each in found if each["theirs"] is not None and each["ours"] is not None]
    counts = collections.Counter((each["ours"], each["theirs"]) for each in known)
    agree = counts["correct", True] + counts["incorrect", False]
    undecided = counts["unverifiable", True] + counts["unverifiable", False]
    by_rule = [(each["official"] == "correct") == each["theirs"] for each in known if each.get("official")]
    print(
        f"{name:38} {len(known):>6} {agree:>6} {counts['correct', False]:>8} {counts['incorrect', True]:>9} "
        f"{undecided:>5} {len(found) - len(known):>5} "
        f"{f'{sum(by_rule)}/{len(by_rule)}' if by_rule else '':>15}  {error}",
        flush=True,
    )
    if found and not known:
        pairs = collections.Counter((each["ours"], each.get("official")) for each in found)
        told = ", ".join(f"{ours}/{rule}: {number}" for (ours, rule), number in sorted(pairs.items(), key=str))
        print(f"{'':38} nothing recorded; ours/official rule: {told}")
    return [each for each in known if (each["ours"] == "correct") != each["theirs"]]


if __name__ == "__main__":
    raise SystemExit(main())
