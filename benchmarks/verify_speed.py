"""How fast the verifier is: pairs per CPU-second over a folder of labelled pairs, and on its fast path.

  python benchmarks/verify_speed.py DIR_OR_FILE.jsonl ...

CPU time counts this process and its workers. A pair is on the fast path when it was decided without a worker and is
answered by a number or a letter.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

from ares_eval.types import Verdict
from ares_eval.verify import Verifier
from ares_eval.verify.row import Pair, pair_of


def main() -> int:
    """Print the figures; 2 where there are no pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    arguments = parser.parse_args()
    files = [f for path in arguments.paths for f in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines() if line]
    if not rows:
        print("no pairs", file=sys.stderr)
        return 2
    pairs = [pair_of(row) for row in rows]
    easy = [
        p for p, row in zip(pairs, rows, strict=True) if row["type"] in ("number", "choice") and len(p.response) < 1500
    ]
    began, wall = _cpu(), time.perf_counter()
    with Verifier(workers=1) as verifier:
        futures = [_submit(verifier, pair) for pair in pairs]
        slowest = max(future.result().seconds for future in futures)
    spent, wall = _cpu() - began, time.perf_counter() - wall
    rate = f"{len(pairs) / spent:.0f} per CPU-second, {len(pairs) / wall:.0f} per second"
    print(f"all: {len(pairs)} pairs, {rate}, slowest {slowest:.2f} s")
    if easy:
        began = time.process_time()
        with Verifier(workers=1) as verifier:
            for pair in easy:
                _submit(verifier, pair)
            spent = time.process_time() - began
        print(f"numbers and letters: {len(easy)} pairs, {len(easy) / spent:.0f} per CPU-second")
    code = "import time; t = time.perf_counter(); import ares_eval.verify; print(time.perf_counter() - t)"
    seconds = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    print(f"import: {seconds * 1000:.0f} ms")
    return 0


def _submit(verifier: Verifier, pair: Pair) -> Future[Verdict]:
    return verifier.submit(pair.response, pair.references, pair.spec, question=pair.question)


def _cpu() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


if __name__ == "__main__":
    sys.exit(main())
