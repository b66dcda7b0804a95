"""DAPO from a preset: `ares-train launch` with the preset dapo, or another one by name.

    ares-train dapo data.train_files=train.parquet data.val_files=val.parquet actor_rollout_ref.model.path=MODEL

`ares-train launch --help` tells of overrides, resuming and exit codes.
"""

from __future__ import annotations

import argparse

from ares_train.commands.launch import add_common, launch_preset

PRESET = "dapo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--preset", default=PRESET, metavar="NAME", help=f"a preset of configs/train [{PRESET}]")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Exit code of the command."""
    return launch_preset(args.preset, args, "dapo")
