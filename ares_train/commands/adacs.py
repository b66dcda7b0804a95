"""AdaCS: questions to fine-tuning data whose response length follows difficulty.

    ares-train adacs run --config configs/train/adacs.yaml --work work/adacs
    ares-train adacs rate --config configs/train/adacs.yaml --work work/adacs --set rate.workers=8
    ares-train adacs sample --config configs/train/adacs.yaml --work work/adacs --executor ray

stages, in their order:
  ingest   sources to questions: ids by content, duplicates and benchmark questions left out
  sample   replies of the estimator (and the teacher), asked or taken from files
  rate     verdicts, lengths, pass rates
  lengths  L(0) and L(1) of each source
  select   the responses nearest to their target length, uniform over pass rates; the control set
  write    verl's fine-tuning files
  report   what came out
  run      all of them

The same command goes on where it was stopped, and does nothing twice.

exit codes: 0 done, 2 a setting or state that cannot work, 3 not finished, 130 interrupted
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

STAGES = ("ingest", "sample", "rate", "lengths", "select", "write", "report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("stage", choices=["run", *STAGES], help="a stage, or run for all of them")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML with a section a stage")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for all that the stages make")
    parser.add_argument(
        "--set", action="append", default=[], metavar="section.key=value", help="counts more than the file; repeatable"
    )
    parser.add_argument("--executor", choices=["local", "ray"], help="short for --set sample.executor=...")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Exit code of the command."""
    from ares_eval.config import ConfigError
    from ares_train.adacs import config, pipeline
    from ares_train.adacs.errors import AdacsError, Incomplete, Interrupted

    overrides = [*args.set, *([f"sample.executor={args.executor}"] if args.executor else [])]
    stages = STAGES if args.stage == "run" else (args.stage,)
    try:
        pipeline.run(config.load(args.config, overrides), args.work, stages, _silent if args.quiet else _note)
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"ares-train adacs: {str(error) or 'interrupted'}", file=sys.stderr)
        return 130
    except Incomplete as error:
        print(f"ares-train adacs: {error}", file=sys.stderr)
        return 3
    except (AdacsError, ConfigError) as error:
        print(f"ares-train adacs: {error}", file=sys.stderr)
        return 2
    return 0


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(_line: str) -> None:
    return None
