"""Is a candidate a regression? A policy held against a candidate and a baseline, paired question by question."""

from __future__ import annotations

from pathlib import Path

from ares_eval import resources
from ares_eval.foreign.files import ForeignError
from ares_eval.gate.decision import EXIT_CODES, Decision, decide
from ares_eval.gate.policy import Policy, PolicyError, load

__all__ = ["EXIT_CODES", "Decision", "Policy", "PolicyError", "baseline_path", "decide", "load"]


def baseline_path(name: str) -> Path:
    """A path, or the saved baseline of that name; ForeignError where there is neither."""
    path = Path(name)
    if path.exists():
        return path
    saved = resources.folder("results/baselines")
    found = saved / f"{name}.json"
    if found.is_file():
        return found
    names = sorted(file.stem for file in saved.glob("*.json"))
    raise ForeignError(f"no baseline {name!r}: neither a path nor one of the saved ones ({', '.join(names) or 'none'})")
