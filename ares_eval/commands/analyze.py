"""How a run's model thought: length, entropy and HWE, difficulty, over- and underthinking, token budgets.

  ares-eval analyze RUN                                  tables, and RUN/analysis.json
  ares-eval analyze RUN --window 8 --tau pooled          another window and another threshold
  ares-eval analyze RUN --difficulty run:OTHER --csv DIR difficulty by another run's pass rates; every table as CSV

Nothing is sent: the run's records and token traces are read. docs/analysis.md defines every number.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ares_eval.analysis.observe import Options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ares-eval analyze``."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    tokens = parser.add_argument_group("high window entropy")
    tokens.add_argument("--window", type=int, default=4, help="tokens of the sliding window, 1 to 64 (default: 4)")
    tokens.add_argument(
        "--tau",
        default="paper",
        help="threshold: paper, pooled, per_question, window_quantile, released, or a number in nats (default: paper)",
    )
    tokens.add_argument("--percentile", type=float, default=95.0, help="of token entropy, for --tau (default: 95)")
    tokens.add_argument(
        "--estimate",
        default="auto",
        choices=("auto", "low", "high", "one_bucket", "exact"),
        help="which estimate of a token's entropy (default: auto, exact where `ares-eval entropy` made it, else low)",
    )
    tokens.add_argument(
        "--count", default="window", choices=("window", "token", "released"), help="what an HWE position is"
    )
    tokens.add_argument("--part", default="all", choices=("all", "think", "answer"), help="part of a reply")
    tokens.add_argument("--trigger-words", metavar="FILE", help="a word a line (default: the list in the package)")
    parser.add_argument(
        "--difficulty",
        default="auto",
        help="level, pass_rate, run:FOLDER, or auto: level where the dataset has one, else pass_rate (default: auto)",
    )
    parser.add_argument(
        "--cross-fit",
        default="leave_one_out",
        choices=("leave_one_out", "split_half", "same_draws"),
        help="which draws rate a question when its own pass rate is its difficulty",
    )
    parser.add_argument("--tokenizer", help="count tokens with this one (tokenizer.json, folder, or name on the hub)")
    parser.add_argument("--no-answers", action="store_true", help="do not verify the answers inside replies")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print the analysis as JSON instead of tables")
    parser.add_argument("--csv", type=Path, metavar="DIR", help="write every table and the draws as CSV into DIR")


def run(args: argparse.Namespace) -> int:
    """Analyse, write analysis.json, print; 2 where a run or an option cannot be used."""
    from ares_eval.analysis import summary, tables
    from ares_eval.analysis.observe import observe
    from ares_eval.records import RunError, load_run

    try:
        options = _options(args)
        found = load_run(args.run)
        seen = observe(found, options)
        analysis = summary.summed_up(found, seen, options)
        summary.write(analysis, found.folder / summary.FILE)
        if args.csv is not None:
            tables.write_csv(analysis, seen, args.csv)
    except (RunError, ValueError, OSError) as error:
        print(f"ares-eval analyze: {error}", file=sys.stderr)
        return 2
    if args.json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(analysis), indent=1).decode() + "\n")
        return 0
    for table in tables.tables(analysis):
        if table.name not in tables.ONLY_CSV:
            print(tables.text(table) + "\n")
    for line in summary.remarks(analysis):
        print(line)
    return 0


def _options(args: argparse.Namespace) -> Options:
    from ares_eval.analysis.observe import Options
    from ares_eval.analysis.tokens import TokenOptions

    try:
        value: float | None = float(args.tau)
    except ValueError:
        value = None
    if args.resamples < 100:
        raise ValueError(f"--resamples {args.resamples}: a 95 % interval needs at least 100")
    return Options(
        tokens=TokenOptions(
            window=args.window,
            tau="paper" if value is not None else args.tau,
            tau_value=value,
            percentile=args.percentile,
            estimate=args.estimate,
            count=args.count,
            part=args.part,
        ),
        difficulty=args.difficulty,
        cross_fit=args.cross_fit,
        tokenizer=args.tokenizer,
        trigger_words=args.trigger_words,
        answers=not args.no_answers,
        resamples=args.resamples,
    )
