"""`ares-eval`: arguments in, one call out. Each command is a module of ares_eval.commands, imported when asked for.

A command module has ``add_arguments(parser)`` and ``run(args) -> exit code``; its docstring is its help.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence

from ares_eval import __version__

COMMANDS = {
    "run": "evaluate a model on benchmarks (the default command)",
    "list": "the benchmarks that can be run",
    "show": "one benchmark: its definition and its first question as it would be sent",
    "doctor": "what is installed here, and what a server can do",
    "serve": "start a model server and stay",
    "cache": "statistics, pruning, export and import of the reply cache",
    "verify": "judge response/reference pairs",
    "rescore": "judge a run's recorded replies anew, sending nothing",
    "explain": "how one response was judged, stage by stage",
    "judge-check": "how well an LLM judge agrees with the calibration set",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code is returned."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else "run"
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name == "--version":
        print(f"ares-eval {__version__}")
        return 0
    if name in COMMANDS:
        words = words[1:]
    elif name.startswith("-") or not words:
        name = "run"
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else f"; commands: {', '.join(COMMANDS)}"
        print(f"ares-eval: unknown command {name!r}{hint}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"ares_eval.commands.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"ares-eval {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(words))
    return code


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: ares-eval [COMMAND] [options]", "", "commands:"]
    lines += [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            *lines,
            "",
            "`ares-eval COMMAND --help` tells more; `ares-eval --datasets ...` is `ares-eval run --datasets ...`.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
