"""What is asked: tasks by name, their samples, and how questions and pictures are made ready to be sent.

``load(name) -> Task``, ``Task.samples() -> Sample``s; ``resolve("a,b,suite") -> names``. Importing this package
imports neither Pillow nor Jinja2 nor datasets.
"""

from __future__ import annotations

from ares_eval.tasks.catalog import names, resolve, suites
from ares_eval.tasks.errors import BadRow, BrokenTask, DataUnavailable, TaskError, UnknownTask
from ares_eval.tasks.pictures import PixelLimits, prepare
from ares_eval.tasks.prompts import ARES_SYSTEM_PROMPT, prompt_digest, style
from ares_eval.tasks.task import Task, load

__all__ = [
    "ARES_SYSTEM_PROMPT",
    "BadRow",
    "BrokenTask",
    "DataUnavailable",
    "PixelLimits",
    "Task",
    "TaskError",
    "UnknownTask",
    "load",
    "names",
    "prepare",
    "prompt_digest",
    "resolve",
    "style",
    "suites",
]
