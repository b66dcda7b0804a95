"""Accuracy, tokens and HWE of a training run's checkpoints, against the step.

  ares-eval series checkpoints/my-run                        a table here, and checkpoints/my-run/series.html
  ares-eval series results/runs/my-model                     runs whose --model-revision ends in a step
  ares-eval series RUN --csv steps.csv --png pictures        the numbers and the charts as files
  ares-eval series RUN --json                                everything as JSON, nothing written

Reads what `ares-train watch` left (eval/step_N.json) and the run folders; nothing is sent to a model. HWE is counted by
the first step's threshold at every step. docs/loop.md describes the files. The page needs the extra [report].
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ares-eval series``."""
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="a training run's folder, or a folder of runs")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the page goes [RUN_DIR/series.html]")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row a step and task as CSV")
    parser.add_argument("--png", type=Path, metavar="DIR", help="write every chart as PNG into DIR")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="write every chart as SVG into DIR")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, and write no page")


def run(args: argparse.Namespace) -> int:
    """Print and write; 2 where there is no series, or something cannot be written."""
    from ares_eval import series
    from ares_eval.records import RunError
    from ares_eval.report.drawing import DrawingUnavailable
    from ares_eval.series.steps import StepFileError

    try:
        _write(args, series.gather(args.run))
    except (series.SeriesError, StepFileError, RunError, DrawingUnavailable) as error:
        print(f"ares-eval series: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"ares-eval series: cannot write: {error}", file=sys.stderr)
        return 2
    return 0


def _write(args: argparse.Namespace, found: object) -> None:
    import msgspec

    from ares_eval import series
    from ares_eval.analysis import tables
    from ares_eval.report import drawing
    from ares_eval.series import charts, table

    assert isinstance(found, series.Series)
    if args.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
    else:
        print("\n\n".join(tables.text(each) for each in table.by_task(found)))
        for note in found.notes:
            print(note)
    if args.csv is not None:
        tables.write_table(table.whole(found), args.csv)
    for folder, suffix in ((args.png, "png"), (args.svg, "svg")):
        if folder is not None:
            drawing.check()
            folder.mkdir(parents=True, exist_ok=True)
            for chart in charts.charts(found):
                drawing.write(chart, folder / f"{chart.name}.{suffix}")
    if not args.json:
        output = args.output or args.run / "series.html"
        output.write_text(series.render(found), encoding="utf-8")
        print(f"page: {output}")
