"""How lm-eval's prompts and generation settings become ours; needs nothing of lm-eval.

Shared by `lm:TASK` and `--model ares`, so that both send the same bytes for the same question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ares_eval.types import Json

MAX_GEN_TOKS = 256
"""What lm-eval's API models ask for where a task says nothing."""
MOST_STOPS = 4
"""An endpoint takes four stop sequences; lm-eval sends the first four, and so do we."""

_MARK = re.compile(r"<image>")
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def as_json(history: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:  # noqa: ARG001 - as lm-eval calls it
    """The chat template of a chat endpoint: the messages themselves, as JSON."""
    return json.dumps(history, ensure_ascii=False)


def read_chat(context: str) -> list[tuple[str, str]]:
    """(role, text) of each message that ``as_json`` wrote; any other text is one user message."""
    if context.startswith('[{"role"'):
        try:
            return [(str(turn["role"]), str(turn["content"])) for turn in json.loads(context)]
        except (ValueError, KeyError, TypeError):
            pass
    return [("user", context)]


def interleaved(text: str, pictures: list[Any]) -> list[Any]:
    """Text with each picture at its ``<image>`` mark; where their numbers differ, all pictures first, as in lm-eval."""
    pieces = _MARK.split(text)
    if len(pieces) != len(pictures) + 1:
        return [*pictures, text]
    parts: list[Any] = [pieces[0]]
    for picture, piece in zip(pictures, pieces[1:], strict=True):
        parts += [picture, piece]
    return [part for part in parts if part != ""]


def generation(kwargs: Mapping[str, Any]) -> dict[str, Json]:
    """A task's ``generation_kwargs`` as settings of ours, with what lm-eval's API models add."""
    given = dict(kwargs)
    until = given.pop("until", None) or []
    lengths = [given.pop(name, None) for name in _LENGTHS]
    sample = given.pop("do_sample", None)
    temperature = given.pop("temperature", None) or 0.0
    settings: dict[str, Json] = {
        "max_tokens": next((int(one) for one in lengths if one), MAX_GEN_TOKS),
        "temperature": 0.0 if sample is False else float(temperature),
        "top_p": given.pop("top_p", None),
        "top_k": given.pop("top_k", None),
        "stop": [one for one in ([until] if isinstance(until, str) else until) if one][:MOST_STOPS],
    }
    seed = given.pop("seed", None)
    if seed is not None:
        settings["seed"] = int(seed)
    if given:
        settings["extra_body"] = json.loads(json.dumps(given, default=str))
    return settings
