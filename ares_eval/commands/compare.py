"""Compare runs with the first one, question by question.

    ares-eval compare RUN_A RUN_B [RUN_C ...]

A run is a folder that ares-eval wrote, a saved baseline, or the output of lm-eval, VLMEvalKit or Inspect. Per task and
over all: accuracy difference with a paired, question-clustered 95 % interval and p-value (McNemar's exact test for one
draw a question, else a permutation test), Holm-adjusted over tasks; ratio of tokens; tokens in high-entropy windows by
difficulty; flips in both directions; the smallest effect that a sample of this size shows. `reference:MODEL` stands
for a published row, unpaired. Runs over different questions are refused.

exit codes: 0 compared, 2 usage or runs that cannot be compared, 3 a run that cannot be read
"""

from __future__ import annotations

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="two or more; the first is the one to compare with")
    add_pairing_arguments(parser)
    parser.add_argument(
        "--tiers", choices=["auto", "level", "pass_rate"], default="auto", help="where difficulty is from"
    )
    parser.add_argument("--flips", type=int, default=20, metavar="N", help="flips to list of each kind [20]")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="everything as JSON on standard output")
    form.add_argument("--markdown", action="store_true", help="Markdown on standard output")


def add_pairing_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags about which draws belong together, shared with `gate`."""
    parser.add_argument(
        "--allow-partial", action="store_true", help="compare what both runs have, and say what is left out"
    )
    parser.add_argument("--allow-changed-tasks", action="store_true", help="also where a task's definition differs")
    parser.add_argument("--pair-by", choices=["id", "position"], default="id", help="position: by place in the source")
    parser.add_argument(
        "--task-map",
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="a task's name in later runs, and in the first",
    )


def pairing_options(args: argparse.Namespace) -> dict[str, object]:
    """Those flags as keyword arguments of compare_outcomes; ValueError for a bad --task-map."""
    names = {}
    for entry in args.task_map:
        theirs, equals, ours = entry.partition("=")
        if not (theirs and equals and ours):
            raise ValueError(f"--task-map {entry!r}: expected NAME_IN_LATER_RUNS=NAME_IN_FIRST")
        names[theirs] = ours
    return {"partial": args.allow_partial, "changed": args.allow_changed_tasks, "by": args.pair_by, "names": names}


def run(args: argparse.Namespace) -> int:
    """Exit code of the command."""
    from ares_eval import records, reference
    from ares_eval.compare import Mismatch, compare_outcomes, report
    from ares_eval.compare.comparison import Comparison, adjust_all
    from ares_eval.foreign import ForeignError, load_any

    if len(args.runs) < 2:
        print("ares-eval: give at least two runs to compare", file=sys.stderr)
        return 2
    published = [name for name in args.runs if reference.named(name)]
    found: list[Comparison] = []
    beside: list[reference.Beside] = []
    try:
        options = pairing_options(args)
        runs = [load_any(name) for name in args.runs if name not in published]
        if not runs:
            raise reference.UnknownModel("published rows are compared with a run; give at least one")
        for other in runs[1:]:
            found.append(compare_outcomes(runs[0], other, tier_source=args.tiers, **options))  # type: ignore[arg-type]
        for name in published:
            beside += [reference.beside(run, name) for run in runs]
    except (Mismatch, ValueError, reference.UnknownModel) as error:
        print(f"ares-eval: these runs cannot be compared:\n{error}", file=sys.stderr)
        return 2
    except (records.RunError, ForeignError) as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return 3
    found = adjust_all(found)
    if args.json:
        print(
            json.dumps({"comparisons": [report.as_json(c) for c in found], "published": [b.as_json() for b in beside]})
        )
        return 0
    render = report.markdown if args.markdown else report.text
    texts = [render(comparison, args.flips) for comparison in found]
    texts += [row.markdown() if args.markdown else row.text() for row in beside]
    print("\n".join(texts), end="")
    return 0
