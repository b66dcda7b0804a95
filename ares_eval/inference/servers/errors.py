"""What can go wrong with a server that we start: said in one line, with its cause and its mend."""

from __future__ import annotations


class ServeSpecError(ValueError):
    """``--serve`` asks for something that cannot be: an unknown kind, a missing path, a program not installed."""


class ServerFailed(RuntimeError):
    """A server that was started properly and did not become ready; the message ends with its last log lines."""
