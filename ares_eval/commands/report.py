"""One self-contained HTML page over one or several runs: scores beside published numbers, how thinking follows
difficulty, token budgets, entropy, failures, and how it was run.

  ares-eval report RUN                                       RUN/report.html
  ares-eval report RUN_A RUN_B --output report.html          both in every chart, B compared with A
  ares-eval report RUN --reference ARES-7B --csv t --png c   another published row; tables and charts as files
  ares-eval report RUN --tracker tensorboard                 log the run's figures to a tracker

The page loads nothing and runs no script. Nothing is sent to a model. docs/report.md describes it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ares_eval.trackers import TRACKERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ares-eval report``."""
    parser.add_argument("run", type=Path, nargs="+", metavar="RUN", help="a run's folder; the first is the baseline")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the page goes [RUN/report.html of the first]"
    )
    parser.add_argument(
        "--reference",
        action="append",
        metavar="MODEL",
        help="published numbers to stand beside the runs', may be repeated; none for none [ARES-7B]",
    )
    parser.add_argument("--csv", type=Path, metavar="DIR", help="write every table and the draws as CSV into DIR")
    parser.add_argument("--png", type=Path, metavar="DIR", help="write every chart as PNG into DIR")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="write every chart as SVG into DIR")
    parser.add_argument("--tracker", choices=TRACKERS, help="log each run's figures to this tracker")


def run(args: argparse.Namespace) -> int:
    """Write the page and what else was asked for; 2 where a run or an option cannot be used."""
    from ares_eval import report, trackers
    from ares_eval.records import RunError
    from ares_eval.reference import UnknownModel
    from ares_eval.report import files
    from ares_eval.report.drawing import DrawingUnavailable, check

    names = ["ARES-7B"] if args.reference is None else [name for name in args.reference if name != "none"]
    try:
        check()
        found = report.gather(args.run, references=names, columns=args.csv is not None)
        output = args.output or args.run[0] / "report.html"
        output.write_text(report.render(found), encoding="utf-8")
        print(f"report: {output}")
        for folder, written in (
            (args.csv, files.write_tables(found, args.csv) if args.csv else []),
            (args.png, files.write_charts(found, args.png, "png") if args.png else []),
            (args.svg, files.write_charts(found, args.svg, "svg") if args.svg else []),
        ):
            if folder is not None:
                print(f"{len(written)} files: {folder}")
        if args.tracker is not None:
            for each in found.runs:
                print(trackers.log_run(args.tracker, each.run, each.results, each.analysis))
    except (RunError, UnknownModel, ValueError, DrawingUnavailable, trackers.TrackerUnavailable) as error:
        print(f"ares-eval report: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"ares-eval report: cannot write: {error}", file=sys.stderr)
        return 2
    return 0
