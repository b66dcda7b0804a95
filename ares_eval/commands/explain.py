"""How one response is judged, stage by stage: what was read as reasoning, where answers were found, how they compare.

ares-eval explain "so \\boxed{0.5}" "1/2" --type latex
ares-eval explain @reply.txt B --type choice --choices cat dog
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TYPES = ("auto", "number", "choice", "latex", "structured", "list", "yesno", "date", "text", "multipart")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ares-eval explain``."""
    parser.add_argument("response", help="the response, or @FILE")
    parser.add_argument("reference", nargs="+", help="the reference; several are alternatives")
    parser.add_argument("--type", default="auto", choices=TYPES, help="the answer type (default: guessed)")
    parser.add_argument("--choices", nargs="+", default=[], metavar="TEXT", help="the option texts, in order")
    parser.add_argument("--digits", type=int, help="decimals that numbers are rounded to")
    parser.add_argument("--question", help="the question")


def run(args: argparse.Namespace) -> int:
    """Print the stages and the verdict; 2 where a file cannot be read."""
    from ares_eval.types import AnswerSpec
    from ares_eval.verify import Verifier
    from ares_eval.verify.extract import answer_range, candidates

    response = args.response
    if response.startswith("@"):
        try:
            response = Path(response[1:]).read_text(encoding="utf-8")
        except OSError as error:
            print(f"ares-eval explain: {error}", file=sys.stderr)
            return 2
    policy = {} if args.digits is None else {"digits": args.digits}
    spec = AnswerSpec(args.type, policy, tuple(args.choices))
    area = answer_range(response)
    if area is None:
        print("answer part   none: thinking never ended")
    else:
        print(f"answer part   characters {area[0]} to {area[1]} of {len(response)}")
    found = candidates(response)
    for place in found[:6]:
        print(f"candidate     {place.rule:12} {place.span[0]:>6}-{place.span[1]:<6} {_short(place.text)}")
    if not found:
        print("candidate     none")
    with Verifier(workers=1) as verifier:
        verdict = verifier.verify(response, tuple(args.reference), spec, question=args.question)
    print(f"type          {verdict.type}{' (guessed)' if verdict.guessed else ''}")
    if verdict.extracted is not None:
        print(f"answer        {_short(verdict.extracted)}  {verdict.span}")
    if verdict.normalised is not None:
        print(f"compared      {_short(verdict.normalised[0])}  with  {_short(verdict.normalised[1])}")
    print(f"method        {verdict.method}")
    reason = f" ({verdict.reason})" if verdict.reason else ""
    print(f"verdict       {verdict.value}{reason}   {verdict.seconds * 1000:.1f} ms, verifier {verdict.version}")
    return 0


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else line[:60] + " ... " + line[-25:]
