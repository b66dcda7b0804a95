"""Supervised fine-tuning with verl's trainer, from a preset or a file of settings.

    ares-train sft --config configs/train/sft_7b.yaml data.train_files=TRAIN.parquet data.val_files=VAL.parquet

Words of the form key=value change any setting of verl's (Hydra's grammar). On a GPU machine all GPUs are used, else the
CPU, for tests and laptops. The same command goes on from the newest checkpoint under trainer.default_local_dir, where
the resolved configuration (sft_config.yaml) and the log (sft.log) are kept too. `ares-train merge` makes a Hugging Face
folder of a checkpoint.

exit codes: 0 done, 2 a setting that cannot work, 130 interrupted, otherwise the trainer's
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML on top of sft_trainer_engine")
    parser.add_argument("--nproc", type=int, metavar="N", help="processes on this machine [all GPUs; 1 on the CPU]")
    parser.add_argument("--offline", action="store_true", help="take models from this machine only, never from the Hub")
    parser.add_argument(
        "--dry-run", action="store_true", help="print configuration, resources and memory, start nothing"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that count more than the file's")


def run(args: argparse.Namespace) -> int:
    """Exit code of the command."""
    from ares_eval.config import ConfigError
    from ares_train import sft
    from ares_train.verl_compat import IncompatibleVerl

    if args.nproc is not None and args.nproc < 1:
        print(f"ares-train sft: --nproc {args.nproc} must be at least 1", file=sys.stderr)
        return 2
    try:
        planned = sft.plan(args.config, args.overrides, processes=args.nproc, offline=args.offline)
    except (ConfigError, IncompatibleVerl) as error:
        print(f"ares-train sft: {error}", file=sys.stderr)
        return 2
    schedule = planned.schedule
    if args.dry_run:
        print(planned.as_yaml())
        print(f"memory: {planned.memory()}")
    print(f"device: {planned.device}; {planned.processes} process(es)")
    print(
        f"data: {schedule.rows:,} rows{' (with pictures)' if schedule.pictures else ''}, "
        f"{schedule.validation_rows:,} for validation"
    )
    print(
        f"steps: {schedule.steps:,} ({schedule.steps_an_epoch:,} an epoch)"
        + (f", going on from step {schedule.done:,}" if schedule.done else "")
    )
    print(f"folder: {planned.folder}", flush=True)
    if args.dry_run:
        return 0
    if schedule.finished:
        print("the last step is saved: nothing to do (trainer.resume_mode=disable starts anew)")
        return 0
    ended = sft.run(planned)
    if ended.code:
        print(
            f"ares-train sft: verl's trainer ended with code {ended.code}; the end of "
            f"{planned.folder / sft.LOG_NAME}:\n{ended.tail}",
            file=sys.stderr,
        )
    return ended.code
