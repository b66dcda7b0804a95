"""A training checkpoint as a Hugging Face folder: weights, configuration, tokenizer, processor.

    ares-train merge --local_dir checkpoints/PROJECT/EXPERIMENT/global_step_100/actor [--target_dir OUT]

--local_dir is `global_step_N/actor` (reinforcement learning), `global_step_N` (fine-tuning), or the run's folder,
which means its newest whole checkpoint. FSDP rank files of any world size are put together piece by piece, so that
memory does not grow with the model; where verl saved whole weights (`hf_model`) these are taken. The result is compared
with the checkpoint tensor by tensor, and by a forward pass where memory allows. It appears whole or not at all, by
default beside the checkpoint as `NAME-merged`.

Training keeps float32 weights; `--dtype bfloat16` is what rollouts computed with, and half the size.
`--hf_upload_path` needs a token from `hf auth login` or in HF_TOKEN.

exit codes: 0 merged (or there already), 1 the checkpoint or the upload failed, 2 usage
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command. The original's have underscores; hyphens are taken too."""
    parser.add_argument("--local_dir", "--local-dir", type=Path, required=True, metavar="DIR", help="the checkpoint")
    parser.add_argument(
        "--target_dir", "--target-dir", type=Path, metavar="DIR", help="the folder to make [the checkpoint's, -merged]"
    )
    parser.add_argument(
        "--dtype",
        choices=["keep", "bfloat16", "float16", "float32"],
        default="keep",
        help="type of the weights [keep: as trained]",
    )
    parser.add_argument("--no-check", "--no_check", action="store_true", help="do not compare with the checkpoint")
    parser.add_argument("--force", action="store_true", help="replace another model's folder at the target")
    parser.add_argument(
        "--hf_upload_path", "--hf-upload-path", metavar="ORG/NAME", help="upload to this repository of the Hub"
    )
    parser.add_argument("--private", action="store_true", help="make that repository private")


def run(args: argparse.Namespace) -> int:
    """Exit code of the command."""
    from ares_train.checkpoints import CheckpointError

    if args.private and not args.hf_upload_path:
        print("ares-train merge: --private says how to upload; add --hf_upload_path", file=sys.stderr)
        return 2

    from ares_train.merge import merge, publish

    try:
        if args.hf_upload_path:
            publish.require(args.hf_upload_path)
        merged = merge(
            args.local_dir,
            args.target_dir,
            dtype=args.dtype,
            check=not args.no_check,
            force=args.force,
            progress=lambda line: print(line, flush=True),
        )
        for line in merged.checked:
            print(f"checked: {line}")
        print(f"{merged.folder}: {merged.parameters:,} parameters in {merged.tensors:,} tensors, {merged.dtype}")
        print(f"source {merged.source_digest}")
        if args.hf_upload_path:
            print(f"uploaded to {publish.upload(merged.folder, args.hf_upload_path, private=args.private)}")
    except (CheckpointError, OSError) as error:
        print(f"ares-train merge: {error}", file=sys.stderr)
        return 1
    return 0
