"""Published numbers: accuracies of 17 models on 16 benchmarks, lengths, ablations (arXiv:2510.08457v1).

    ares-eval reference                      all models, one table
    ares-eval reference --model ARES-7B      one model, with metric, split and source
    ares-eval reference --benchmark aime25   one benchmark over all models

`ares-eval compare RUN reference:ARES-7B` sets a run beside a row.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ares_eval import reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--model", metavar="NAME", help="rows of one model")
    parser.add_argument("--benchmark", metavar="NAME", help="rows of one benchmark")
    parser.add_argument("--json", action="store_true", help="rows as JSON on standard output")


def run(args: argparse.Namespace) -> int:
    """0, or 2 for a model or benchmark that has no row."""
    from ares_eval import reference

    try:
        rows = reference.of_model(args.model) if args.model else list(reference.published())
    except reference.UnknownModel as error:
        print(f"ares-eval: {error}", file=sys.stderr)
        return 2
    if args.benchmark:
        names = sorted({row.benchmark for row in rows})
        rows = [row for row in rows if row.benchmark == args.benchmark]
        if not rows:
            print(
                f"ares-eval: nothing is published for {args.benchmark!r}; there are {', '.join(names)}", file=sys.stderr
            )
            return 2
    if args.json:
        print(json.dumps([asdict(row) for row in rows]))
    elif args.model or args.benchmark:
        _list(rows)
    else:
        _grid([row for row in rows if row.source.endswith(("table 2", "table 3"))])
    return 0


def _list(rows: list[reference.Published]) -> None:
    table = [
        [row.model, row.benchmark, row.split, row.metric, f"{row.value:g}", row.unit, str(row.draws or ""), row.source]
        for row in rows
    ]
    _print([["model", "benchmark", "split", "metric", "value", "unit", "draws", "source"], *table], right={4, 6})


def _grid(rows: list[reference.Published]) -> None:
    """Models down, benchmarks across; averages last."""
    benchmarks = list(dict.fromkeys(row.benchmark for row in rows))
    benchmarks.sort(key=lambda name: name.startswith("average"))
    values = {(row.model, row.benchmark): f"{row.value:.1f}" for row in rows}
    models = list(dict.fromkeys(row.model for row in rows))
    short = {name: name.replace("average of ", "mean ") for name in benchmarks}
    table = [[model, *(values.get((model, name), "") for name in benchmarks)] for model in models]
    _print([["model", *(short[name] for name in benchmarks)], *table], right=set(range(1, len(benchmarks) + 1)))
    print(
        "\npercent; aime24 and aime25 of the ARES models are means over 16 draws; --model NAME tells metric and source"
    )


def _print(rows: list[list[str]], right: set[int]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
