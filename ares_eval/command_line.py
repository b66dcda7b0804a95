"""A program of many commands: each a module with ``add_arguments(parser)`` and ``run(args) -> exit code``.

A command's module is imported when it is asked for, so that ``--help`` answers at once; its docstring is its help. A
wrong word is answered with the nearest right one, and the value of a secret is never shown.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ares_eval import __version__


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

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The words' meaning; words without a flag may stand before, between and after flags."""
        if any(action.nargs in (argparse.PARSER, argparse.REMAINDER) for action in self._actions):
            return self.parse_args(words)
        return self.parse_intermixed_args(words)


@dataclass(frozen=True, slots=True)
class Program:
    """``commands``: name to one line of help; their modules are in ``package``. ``default``: the command that is meant
    where the first word is a flag."""

    name: str
    package: str
    commands: Mapping[str, str]
    default: str | None = None

    def main(self, argv: Sequence[str]) -> int:
        """Run one command; the process's exit code is returned."""
        if "_ARGCOMPLETE" in os.environ:
            return self._complete()
        words = list(argv)
        name = words[0] if words else "--help"
        if name in ("-h", "--help"):
            self._help()
            return 0
        if name == "--version":
            print(f"{self.name} {__version__}")
            return 0
        if name in self.commands:
            words = words[1:]
        elif name.startswith("-") and self.default is not None:
            name = self.default
        else:
            near = difflib.get_close_matches(name, self.commands, n=3, cutoff=0.4)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; commands: {', '.join(self.commands)}"
            print(f"{self.name}: unknown command {name!r}{hint}", file=sys.stderr)
            return 2
        module, parser = self._command(name)
        try:
            code: int = module.run(parser.parse(words))
        except BrokenPipeError:
            # The reader of a pipe left (`ares-eval list | head`): no error, but nothing more to say either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        return code

    def _help(self) -> None:
        width = max(map(len, self.commands))
        print(f"usage: {self.name} [COMMAND] [options]\n\ncommands (`{self.name} COMMAND --help` tells more):")
        for name, text in self.commands.items():
            print(f"  {name:{width}}  {text}")
        if self.default is not None:
            print()
            _, parser = self._command(self.default)
            parser.prog = self.name
            parser.print_help()

    def _module(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name.replace('-', '_')}")

    def _command(self, name: str) -> tuple[Any, Parser]:
        module = self._module(name)
        parser = Parser(
            prog=f"{self.name} {name}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(parser)
        return module, parser

    def _complete(self) -> int:
        """Answer a shell's question what may follow (`eval "$(register-python-argcomplete ares-eval)"`)."""
        import argcomplete

        parser = argparse.ArgumentParser(prog=self.name)
        commands = parser.add_subparsers()
        for name, text in self.commands.items():
            self._module(name).add_arguments(commands.add_parser(name, help=text))
        if self.default is not None:
            self._module(self.default).add_arguments(parser)
        argcomplete.autocomplete(parser)
        return 0
