"""The command: run what is not done yet, then write tables and pictures."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.miniature",
        description="The claim in miniature: GRPO, a length penalty and AEPO on two toy tasks, on a CPU. Killed and "
        "started again, it goes on with the runs that are not done.",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of results (kept if there)")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each (default 2)")
    parser.add_argument("--task", choices=("search", "chain", "all"), default="all")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the main arms (default 5)")
    parser.add_argument("--smoke", action="store_true", help="a few steps of everything: shows that it runs, no more")
    parser.add_argument("--list", action="store_true", help="show what is done and what remains, run nothing")
    parser.add_argument("--report", action="store_true", help="write tables and pictures of what is done, run nothing")
    args = parser.parse_args()

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from examples.miniature import study

    plan = study.SMOKE if args.smoke else study.FULL
    tasks = list(study.TASKS) if args.task == "all" else [args.task]
    if args.list:
        for name, done in study.progress(tasks, args.seeds, plan, args.output):
            print(f"{'done' if done else 'open'}  {name}")
        return 0
    if not args.report:
        study.run_all(tasks, args.seeds, args.workers, plan, args.output)

    from examples.miniature import plots, results

    print(study.write_settings(plan, args.output))
    print(results.report(args.output))
    for task in (task for task in tasks if (args.output / task / "main").exists()):
        for path in plots.plots(args.output, task):
            print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
