"""What can go wrong before a question is asked, each as one line that names the task, the cause and the mend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class TaskError(Exception):
    """Base of the errors of this room; ``str(error)`` is one line for people."""


class UnknownTask(TaskError):
    """A name that is no task and no suite. ``nearest``: names that look like it, best first."""

    def __init__(self, name: str, nearest: Sequence[str] = (), cause: str | None = None) -> None:
        hint = f"; did you mean {', '.join(nearest)}?" if nearest else "; `ares-eval list` shows what there is"
        super().__init__((cause or f"unknown dataset {name!r}") + hint)
        self.name = name
        self.nearest = tuple(nearest)


class BrokenTask(TaskError):
    """A task definition that cannot be read. ``line`` counts from 1; None where no single line is to blame."""

    def __init__(self, file: Path, line: int | None, cause: str) -> None:
        super().__init__(f"{file}{f':{line}' if line else ''}: {' '.join(cause.split())}")
        self.file = file
        self.line = line


class DataUnavailable(TaskError):
    """A task whose data cannot be had here. The other tasks of a run go on."""

    def __init__(self, task: str, cause: str, mend: str) -> None:
        super().__init__(f"{task}: data unavailable: {' '.join(cause.split())}; {' '.join(mend.split())}")
        self.task = task
        self.cause = cause
        self.mend = mend


class BadRow(TaskError):
    """A row of a dataset that does not have the form its task declares. ``row`` counts the data rows from 1."""

    def __init__(self, task: str, file: str, row: int, cause: str) -> None:
        super().__init__(f"{task}: {file}, row {row}: {' '.join(cause.split())}")
        self.task = task
        self.file = file
        self.row = row
