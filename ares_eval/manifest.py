"""``run.json``: what was run, with what, on what. Everything needed to repeat the run, and no secret."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ares_eval import __version__
from ares_eval.types import Json

if TYPE_CHECKING:
    from ares_eval.config import RunConfig
    from ares_eval.tasks import Task

FORMAT = 1
"""Version of the run folder's format."""

_PACKAGES = ("aiohttp", "math-verify", "msgspec", "numpy", "openai", "pillow", "sympy", "vllm", "xllamacpp")


def create(
    config: RunConfig,
    digest: str,
    tasks: Mapping[str, Task],
    planned: Mapping[str, int],
    unavailable: Mapping[str, str],
) -> dict[str, Json]:
    """The manifest of a run that begins; ``planned``: draws of each task, ``unavailable``: task and cause."""
    return {
        "format": FORMAT,
        "status": "running",
        "created": now(),
        "finished": None,
        "model": config.model_name,
        "revision": config.model_revision,
        "digest": digest,
        "settings": config.settings(),
        "tasks": {
            name: {
                "fingerprint": task.fingerprint,
                "dataset_digest": task.dataset_digest,
                "source": task.source,
                "suites": list(task.suites),
                "metrics": list(task.metrics),
                "own_scorer": task.scorer is not None,
                "planned": planned[name],
            }
            for name, task in tasks.items()
        },
        "unavailable": dict(unavailable),
        "environment": environment(),
        "server": None,
        "changes": None,
        "timing": {},
    }


def environment() -> dict[str, Json]:
    """Versions of what took part."""
    return {
        "ares": __version__,
        "git": _git(Path(__file__).resolve().parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
        "command": _command(sys.argv),
    }


def _command(words: list[str]) -> list[str]:
    """The command line with the values of secret flags left out."""
    shown: list[str] = []
    hide = False
    for word in [Path(words[0]).name, *words[1:]]:
        if hide:
            shown.append("***")
            hide = False
            continue
        name, equals, _ = word.partition("=")
        secret = name.startswith("--") and name.endswith("key")
        shown.append(f"{name}=***" if secret and equals else word)
        hide = secret and not equals
    return shown


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> str | None:
    """The revision of the checkout the code runs from, with ``+changes`` where files differ from it."""
    if not (folder.parent / ".git").exists():
        return None

    def ask(*words: str) -> Any:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5, check=False
        )

    try:
        head = ask("rev-parse", "HEAD")
        if head.returncode != 0:
            return None
        dirty = ask("status", "--porcelain", "--untracked-files=no").stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return str(head.stdout.strip()) + ("+changes" if dirty else "")


def now() -> str:
    """The time as ISO 8601, UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
