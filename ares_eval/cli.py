"""`ares-eval`: arguments in, one call out. Each command is a module of ares_eval.commands, imported when asked for."""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import sys
from collections.abc import Sequence

from ares_eval.command_line import Program

PROGRAM = Program(
    "ares-eval",
    "ares_eval.commands",
    {
        "run": "evaluate a model on benchmarks (the default command)",
        "list": "the benchmarks that can be run",
        "show": "one benchmark: its definition and its first question as it would be sent",
        "doctor": "what is installed here, and what a server can do",
        "serve": "start a model server and stay",
        "cache": "statistics, pruning, export and import of the reply cache",
        "verify": "judge response/reference pairs",
        "analyze": "how the model of a run thought: length, entropy, difficulty, budgets",
        "entropy": "exact token entropies of a run, by a forward pass over its replies",
        "rescore": "judge a run's recorded replies anew, sending nothing",
        "explain": "how one response was judged, stage by stage",
        "judge-check": "how well an LLM judge agrees with the calibration set",
        "compare": "two or more runs, paired question by question",
        "gate": "decide whether a run is a regression against a baseline",
        "baseline": "keep a run as a small file to gate against",
        "reference": "published numbers",
        "report": "one self-contained HTML page over runs; tables and charts as files",
        "view": "look at runs and their replies in a browser, on this machine",
        "series": "accuracy, tokens and HWE of a training run's checkpoints, against the step",
    },
    default="run",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code is returned."""
    return PROGRAM.main(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
