"""The public Python API: ``evaluate``, ``load_run``.

    from ares_eval.api import evaluate, load_run

    done = evaluate(model_name="m", openai_base_url="http://127.0.0.1:8000/v1", datasets="gsm8k", limit=100)
    print(done.results["tasks"]["gsm8k"]["metrics"]["accuracy"], done.exit_code, done.folder)
    for record in load_run(done.folder).records():
        ...

(The functions live here and not in the package itself, whose attributes of these names are its modules.)
"""

from __future__ import annotations

import sys
from typing import Any

from ares_eval import config, progress
from ares_eval.evaluate import Evaluation
from ares_eval.evaluate import evaluate as _evaluate
from ares_eval.records import Run, load_run

__all__ = ["Evaluation", "Run", "evaluate", "load_run"]


def evaluate(*, quiet: bool = True, **settings: Any) -> Evaluation:
    """Run an evaluation; ``settings`` are those of the command line, with underscores (``model_name=...``).

    Blocks until the run has ended; what was recorded before is not asked again. ``quiet=False`` shows progress on
    standard error. Raises config.ConfigError for a wrong setting. A run that could not measure everything is no error:
    see ``exit_code`` and ``reason`` of what is returned.
    """
    made = config.load({**settings, "quiet": quiet})
    if not made.model_name:
        if made.serve is None:
            raise config.ConfigError("model_name is missing (or serve='embedded')")
        from ares_eval.inference import servers

        made = made.replace(model_name=servers.served_name(made.serve))
    return _evaluate(made, progress.choose(quiet=quiet), warn=lambda line: print(line, file=sys.stderr))
