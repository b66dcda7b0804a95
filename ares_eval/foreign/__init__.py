"""Runs from anywhere, as Outcomes: ares-eval's folders, saved baselines, and the files of other harnesses.

``load_any`` looks at what lies at a path and calls the reader that knows it. Readers parse text and JSON only, with
bounds on size; nothing of the other harnesses is imported.
"""

from __future__ import annotations

from pathlib import Path

from ares_eval.foreign.files import ForeignError
from ares_eval.outcomes import Outcomes

__all__ = ["ForeignError", "load_any"]


def load_any(path: str | Path) -> Outcomes:
    """The run at ``path``; ``PATH::NAME`` chooses a metric, column or scorer of another harness's files.

    Raises ForeignError where nothing known lies there, records.RunError for a broken run.
    """
    from ares_eval import baseline, records
    from ares_eval.foreign import inspect_log, lm_eval, vlmevalkit
    from ares_eval.outcomes import of_run

    path, selection = Path(path), ""
    if not path.exists():
        name, _, selection = str(path).partition("::")
        path = Path(name)
    if not path.exists():
        raise ForeignError(f"{path} does not exist")
    if (path / records.MANIFEST).is_file():
        return of_run(records.load_run(path))
    if baseline.is_baseline(path):
        return baseline.load(path)
    for reader in (inspect_log, lm_eval, vlmevalkit):
        if reader.recognises(path):
            found: Outcomes = reader.load(path, selection)
            return found
    raise ForeignError(
        f"{path} is no run that is known: neither ares-eval's (run.json), nor a baseline, nor lm-eval's "
        "(samples_*.jsonl; --log_samples), VLMEvalKit's (<model>_<dataset>.tsv with scores) or Inspect's (.eval, .json)"
    )
