"""What goes wrong in a stage, said in one line that names the cause and the mend."""

from __future__ import annotations


class AdacsError(Exception):
    """What was asked for cannot be done as things are. The command line prints it and exits with 2."""


class Incomplete(AdacsError):
    """A stage ended before its work was done; the same command goes on from there. Exit code 3."""


class Interrupted(AdacsError):
    """The user stopped a stage; the same command goes on from there. Exit code 130."""
