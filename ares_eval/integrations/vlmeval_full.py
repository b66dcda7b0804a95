"""``ares-vlmeval``: VLMEvalKit's own command line with our engine as the model; needs the full package (7 GB).

    ares-vlmeval --model-name M --openai-base-url URL --data MMStar MathVista_MINI --judge exact_matching --work-dir out

Flags of ours (below) are taken, all others go to VLMEvalKit's run.py. Everything is theirs but the requests: cache,
retries, pictures and prompts as `ares-eval` sends them, with the same cache entries. Unlike ``vlm:`` tasks this runs
their scorers in this very process, unlocked, which evaluate what the model wrote: use it in a container.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

TAKEN = {
    "model_name": str,
    "openai_base_url": str,
    "openai_api_key": str,
    "model_revision": str,
    "transport": str,
    "max_tokens": int,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "seed": int,
    "reasoning_effort": str,
    "system_prompt": str,
    "prompt_style": str,
    "min_pixels": int,
    "max_pixels": int,
    "timeout": float,
    "max_retries": int,
    "cache_dir": str,
}
"""Settings of a run that mean the same here, with their types. The system prompt's default is none here."""

FULL = "pip install 'ares[vlm-full]'"


def main(words: Sequence[str] | None = None) -> int:
    """Register the model and hand over to VLMEvalKit; 2 for wrong usage."""
    from ares_eval.config import ConfigError, load

    parser = argparse.ArgumentParser(
        "ares-vlmeval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name, kind in TAKEN.items():
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=argparse.SUPPRESS)
    parser.add_argument("--no-cache", action="store_true", default=argparse.SUPPRESS)
    ours, theirs = parser.parse_known_args(words)
    try:
        config = load({"system_prompt": "", **vars(ours)})
        if not config.model_name:
            raise ConfigError("--model-name is missing")
    except ConfigError as error:
        sys.stderr.write(f"ares-vlmeval: {error}\n")
        return 2
    os.environ.setdefault("PRED_FORMAT", "tsv")
    try:
        import vlmeval.api
        import vlmeval.config
        import vlmeval.run
    except ImportError as error:
        sys.stderr.write(f"ares-vlmeval: VLMEvalKit's full package cannot be imported ({error}); {FULL}\n")
        return 2
    from ares_eval.integrations.vlmeval_model import model_class

    name = registered_name(config.model_name)
    model = model_class()
    vlmeval.api.AresModel = model
    vlmeval.config.supported_VLM[name] = lambda **_: model(config)
    sys.argv = ["run.py", *theirs, *([] if "--model" in theirs else ["--model", name])]
    vlmeval.run.main()
    return 0


def registered_name(model: str) -> str:
    """The model's name as part of VLMEvalKit's paths: it takes everything after a dot for an extension."""
    return re.sub(r"[^\w-]+", "_", model) or "ares"
