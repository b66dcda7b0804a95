"""Reinforcement learning with verl's trainer, from a configuration file.

    ares-train launch --config configs/train/aepo_adaptive.yaml \\
        data.train_files=train.parquet data.val_files=val.parquet actor_rollout_ref.model.path=MODEL

FILE is one of the presets in configs/train, or a file of your own that builds on one (`defaults: [aepo, _self_]`).
Settings are KEY=VALUE in Hydra's grammar: verl's own, and AEPO's under `aepo.` (docs/aepo.md). Without a GPU verl runs
on the CPU, for tests and laptops. The same command again goes on from the last checkpoint; a file with `stages` is run
stage after stage.

exit codes: 0 finished, 2 usage or settings that cannot be, 3 stopped on request (by the evaluation's gate), else that
of the training process (130: interrupted)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration")
    add_common(parser)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Flags that `launch`, `aepo`, `grpo` and `dapo` share."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, after those of the file")
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="a Ray cluster that is there [a new one, this machine]"
    )
    parser.add_argument(
        "--device", choices=["auto", "cuda", "cpu"], default="auto", help="where to train [what this machine has]"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the configuration and what it needs, run nothing")


def run(args: argparse.Namespace) -> int:
    """Exit code of the command."""
    return launch(args.config, args, "launch")


def launch(file: Path, args: argparse.Namespace, name: str) -> int:
    """Run or show the configuration ``file`` with the overrides of ``args``, for the command ``name``."""
    from ares_eval.config import ConfigError
    from ares_train.aepo.config import ConfigError as AEPOConfigError
    from ares_train.checkpoints import CheckpointError
    from ares_train.rl import launch as launching
    from ares_train.verl_compat import IncompatibleVerl

    wrong = [word for word in args.overrides if "=" not in word and not word.startswith("~")]
    if wrong:
        print(f"ares-train {name}: {wrong[0]!r} is no KEY=VALUE (flags begin with --)", file=sys.stderr)
        return 2
    try:
        planned = launching.plan(file, args.overrides, device_name=args.device, ray_address=args.ray_address)
        if args.dry_run:
            print(launching.describe(planned))
            return 0
        return launching.run(planned, lambda line: print(line, flush=True))
    except (ConfigError, AEPOConfigError, IncompatibleVerl) as error:
        for line in str(error).splitlines():
            print(f"ares-train {name}: {line}", file=sys.stderr)
        return 2
    except (CheckpointError, OSError) as error:
        print(f"ares-train {name}: {error}", file=sys.stderr)
        return 1


def launch_preset(preset: str, args: argparse.Namespace, name: str) -> int:
    """The same with the shipped preset of that name."""
    from ares_eval.config import ConfigError
    from ares_train.rl import compose

    try:
        file = compose.preset(preset)
    except ConfigError as error:
        print(f"ares-train {name}: {error}", file=sys.stderr)
        return 2
    return launch(file, args, name)
