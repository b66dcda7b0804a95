"""Judge response/reference pairs.

  ares-eval verify --stdin                    JSON lines in, one JSON object a line out, in order, flushed
  ares-eval verify FILE --output FILE         the same over a file, with a summary table

A row has: response, reference (a string, or a list of which any is accepted), type (number, choice, latex,
structured, list, yesno, date, text, multipart; guessed where missing), and where known id, question, choices,
precision, unit. An answer has: id, verdict (true, false, null), reason, method, extracted.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any

from ares_eval.types import Verdict

WINDOW = 256
"""Pairs under way at once: enough to keep every worker busy, few enough to bound memory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ares-eval verify``."""
    parser.add_argument("file", nargs="?", type=Path, help="a JSON-lines file of pairs")
    parser.add_argument("--stdin", action="store_true", help="read pairs from standard input and answer each at once")
    parser.add_argument("--output", type=Path, help="where verdicts of FILE are written (default: standard output)")
    parser.add_argument("--workers", type=int, help="processes for algebra (default: one per processor, at most 8)")
    parser.add_argument(
        "--cpu-seconds", type=float, default=2.0, help="CPU time of one question of algebra (default: 2)"
    )


def run(args: argparse.Namespace) -> int:
    """Judge all pairs; 2 where the input cannot be read."""
    if args.stdin == (args.file is not None):
        print("ares-eval verify: give a FILE or --stdin", file=sys.stderr)
        return 2
    if args.stdin:
        _judge_all(sys.stdin, sys.stdout, args)
        return 0
    try:
        source = args.file.open(encoding="utf-8")
    except OSError as error:
        print(f"ares-eval verify: {error}", file=sys.stderr)
        return 2
    with source:
        if args.output is None:
            _judge_all(source, sys.stdout, args)
            return 0
        with args.output.open("w", encoding="utf-8") as target:
            counts = _judge_all(source, target, args)
    _print_table(counts)
    return 0


def _judge_all(source: Iterable[str], target: IO[str], args: argparse.Namespace) -> Counter[tuple[str, str]]:
    """Read in one thread, write in order in this one: a line is answered as soon as those before it are."""
    from ares_eval.verify import Verifier
    from ares_eval.verify.row import pair_of

    counts: Counter[tuple[str, str]] = Counter()
    waiting: queue.Queue[tuple[Any, Future[Verdict] | str] | None] = queue.Queue(WINDOW)
    with Verifier(args.workers, cpu_seconds=args.cpu_seconds) as verifier:

        def read() -> None:
            for line in source:
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    pair = pair_of(row)
                except ValueError as error:
                    waiting.put((None, f"not a pair: {error}"))
                    continue
                future = verifier.submit(pair.response, pair.references, pair.spec, question=pair.question)
                waiting.put((row.get("id"), future))
            waiting.put(None)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        for row_id, outcome in _items(waiting):
            answer = _answer(row_id, outcome)
            counts[answer.get("type") or "-", str(answer["verdict"])] += 1
            target.write(json.dumps(answer, ensure_ascii=False) + "\n")
            target.flush()
        reader.join()
    return counts


def _items(waiting: queue.Queue[Any]) -> Iterator[tuple[Any, Future[Verdict] | str]]:
    while (item := waiting.get()) is not None:
        yield item


def _answer(row_id: Any, outcome: Future[Verdict] | str) -> dict[str, Any]:
    if isinstance(outcome, str):
        return {"id": row_id, "verdict": None, "reason": "unparsed", "method": outcome}
    verdict = outcome.result()
    value = {"correct": True, "incorrect": False, "unverifiable": None}[verdict.value]
    return {
        "id": row_id,
        "verdict": value,
        "reason": verdict.reason,
        "method": verdict.method,
        "extracted": verdict.extracted,
        "normalised": verdict.normalised,
        "type": verdict.type,
        "guessed": verdict.guessed,
        "version": verdict.version,
        "seconds": verdict.seconds,
    }


def _print_table(counts: Counter[tuple[str, str]]) -> None:
    print(f"{'type':12}{'pairs':>8}{'correct':>9}{'incorrect':>11}{'unverifiable':>14}")
    for kind in sorted({kind for kind, _ in counts}):
        right, wrong, open_ = (counts[kind, v] for v in ("True", "False", "None"))
        print(f"{kind:12}{right + wrong + open_:>8}{right:>9}{wrong:>11}{open_:>14}")
