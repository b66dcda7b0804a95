"""`ares-eval`: arguments in, one call out. Each command is a module of ares_eval.commands, imported when asked for.

A command module has ``add_arguments(parser)`` and ``run(args) -> exit code``; its docstring is its help.
"""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ares_eval import __version__

COMMANDS = {
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
}


class Parser(argparse.ArgumentParser):
    """An argument parser that names the nearest flag and never shows the value of a secret."""

    def error(self, message: str) -> NoReturn:
        found = re.fullmatch(r"unrecognized arguments: (.*)", message, re.S)
        if found:
            word = found[1].split()[0].partition("=")[0]
            near = difflib.get_close_matches(word, self._option_string_actions, n=3, cutoff=0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            message = f"unknown argument {word!r}{hint}"
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` shows all)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the process's exit code is returned."""
    if "_ARGCOMPLETE" in os.environ:
        return _complete()
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print(_overview())
        print()
        _, parser = _command("run")
        parser.prog = "ares-eval"
        parser.print_help()
        return 0
    if name == "--version":
        print(f"ares-eval {__version__}")
        return 0
    if name in COMMANDS:
        words = words[1:]
    elif name.startswith("-"):
        name = "run"
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else f"; commands: {', '.join(COMMANDS)}"
        print(f"ares-eval: unknown command {name!r}{hint}", file=sys.stderr)
        return 2
    module, parser = _command(name)
    try:
        code: int = module.run(parser.parse_args(words))
    except BrokenPipeError:
        # The reader of a pipe left (`ares-eval list | head`): no error, but nothing more to say either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _command(name: str) -> tuple[Any, Parser]:
    module = importlib.import_module(f"ares_eval.commands.{name.replace('-', '_')}")
    parser = Parser(
        prog=f"ares-eval {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return module, parser


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: ares-eval [COMMAND] [options]", "", "commands (`ares-eval COMMAND --help` tells more):"]
    return "\n".join(lines + [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()])


def _complete() -> int:
    """Answer a shell's question what may follow (`eval "$(register-python-argcomplete ares-eval)"`)."""
    import argcomplete

    parser = argparse.ArgumentParser(prog="ares-eval")
    commands = parser.add_subparsers()
    for name, text in COMMANDS.items():
        module = importlib.import_module(f"ares_eval.commands.{name.replace('-', '_')}")
        module.add_arguments(commands.add_parser(name, help=text))
    importlib.import_module("ares_eval.commands.run").add_arguments(parser)
    argcomplete.autocomplete(parser)
    return 0


if __name__ == "__main__":
    sys.exit(main())
