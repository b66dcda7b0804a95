"""`ares-train`: arguments in, one call out. Each command is a module of ares_train.commands, imported when asked for.

A command module has ``add_arguments(parser)`` and ``run(args) -> exit code``; its docstring is its help.
"""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import sys
from collections.abc import Sequence

from ares_eval.command_line import Program

PROGRAM = Program(
    "ares-train",
    "ares_train.commands",
    {
        "adacs": "cold-start data whose response length follows difficulty: from questions to SFT files",
        "data": "questions to verl's parquet for reinforcement learning",
        "sft": "supervised fine-tuning with verl's trainer",
        "launch": "reinforcement learning with verl's trainer, from a preset or a config file",
        "aepo": "launch with the preset aepo_adaptive (or --preset)",
        "grpo": "launch with the preset grpo",
        "dapo": "launch with the preset dapo",
        "merge": "a training checkpoint as a Hugging Face folder",
        "watch": "evaluate the checkpoints of a run while it trains",
        "doctor": "pins, plugin, devices and engines of this environment",
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code is returned."""
    return PROGRAM.main(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
