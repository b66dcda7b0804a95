"""Decide whether a run is a regression against a baseline.

    ares-eval gate --candidate RUN --baseline RUN-or-NAME [--policy NAME-or-FILE]

Both are runs as `compare` reads them, or a baseline saved by `ares-eval baseline save`. The policy (configs/gates,
docs/gate.md) says what must not happen: accuracy lost, tokens gained, tokens moved to easy questions, depth lost on
hard ones, replies cut. What is not shown either way is inconclusive, and the output says what sample would decide.

exit codes: 0 pass, 1 fail, 2 usage or runs that cannot be compared, 3 incomplete, 5 inconclusive
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ares_eval.commands.compare import add_pairing_arguments, pairing_options

if TYPE_CHECKING:
    from ares_eval.compare import Comparison
    from ares_eval.gate import Decision

USAGE, INCOMPLETE = 2, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--candidate", required=True, metavar="RUN", help="the run to judge")
    parser.add_argument("--baseline", required=True, metavar="RUN", help="a run, a baseline's file, or its name")
    parser.add_argument(
        "--policy", default="default", metavar="FILE", help="a policy, or its name in configs/gates [default]"
    )
    parser.add_argument("--inconclusive", choices=["pass", "fail"], help="exit as this instead of with 5")
    add_pairing_arguments(parser)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write Markdown (also to $GITHUB_STEP_SUMMARY)")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Exit code of the command."""
    from ares_eval import gate, records
    from ares_eval.compare import Mismatch, compare_outcomes
    from ares_eval.foreign import ForeignError, load_any

    try:
        policy = gate.load(args.policy)
        options = pairing_options(args)
    except (gate.PolicyError, ValueError) as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return USAGE
    try:
        baseline, candidate = load_any(gate.baseline_path(args.baseline)), load_any(args.candidate)
        comparison = compare_outcomes(baseline, candidate, tier_source=policy.tiers, **options)  # type: ignore[arg-type]
    except Mismatch as error:
        print(f"ares-eval: candidate and baseline cannot be compared:\n{error}", file=sys.stderr)
        return INCOMPLETE if error.candidate_lacks else USAGE
    except (records.RunError, ForeignError) as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return INCOMPLETE
    decision = gate.decide(comparison.pairing, policy)
    code = gate.EXIT_CODES[decision.verdict]
    if decision.verdict == "inconclusive" and args.inconclusive:
        code = {"pass": 0, "fail": 1}[args.inconclusive]
    _write(args, decision, comparison, code)
    return code


def _write(args: argparse.Namespace, decision: Decision, comparison: Comparison, code: int) -> None:
    from ares_eval.compare import report as comparing
    from ares_eval.gate import report

    print(f"candidate {comparison.pairing.b.label} ({args.candidate})")
    print(f"baseline  {comparison.pairing.a.label} ({args.baseline})")
    print(report.text(decision), end="")
    for note in comparison.pairing.notes:
        print(f"note: {note}")
    title = f"Gate of {comparison.pairing.b.label}"
    markdown = report.markdown(decision, comparing.markdown(comparison), title)
    if args.markdown:
        args.markdown.write_text(markdown, encoding="utf-8")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(markdown)
    if args.junit:
        args.junit.write_bytes(report.junit(decision, title, verdict_fails=code != 0))
    if args.json:
        content = report.as_json(decision, comparing.as_json(comparison), code)
        args.json.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
