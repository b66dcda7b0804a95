"""Keep a run as a baseline: a small file without texts, to which later runs are compared.

    ares-eval baseline save results/runs/MODEL/RUN my-model

writes results/baselines/my-model.json. Commit it; `ares-eval gate --baseline my-model` finds it by its name.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    save = actions.add_parser("save", help="reduce a run to a baseline file")
    save.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder")
    save.add_argument("name", metavar="NAME", help="the file's name, without .json")
    save.add_argument("--dir", type=Path, metavar="DIR", help="where to write it [results/baselines]")


def run(args: argparse.Namespace) -> int:
    """0 when written, 3 for a run that cannot be one."""
    from ares_eval import baseline, records
    from ares_eval.foreign import ForeignError

    try:
        path = baseline.save(records.load_run(args.run), args.name, args.dir)
    except (records.RunError, ForeignError) as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return 3
    print(f"{path} ({path.stat().st_size:,} bytes)")
    return 0
