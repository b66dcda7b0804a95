"""A training row's turns: the question as the student will be asked, and the response as a whole.

The system prompt and its place are those of `ares-eval` (ares_eval/tasks/prompts.py), so that training, sampling and
evaluation word a question alike. What only looks like the mark of a picture is written apart in a response
(``< image>``): verl would look for a picture there. Questions come from ingest with their marks in order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ares_eval.tasks import prompts
from ares_eval.tasks.prompts import ARES_SYSTEM_PROMPT, PromptStyle
from ares_eval.types import Message, TextPart
from ares_train.adacs import response
from ares_train.adacs.config import AdacsConfig

_MARK = re.compile(r"<(image|video|audio)>")


@dataclass(frozen=True, slots=True)
class Wording:
    """The system prompt, "" for none, and where it stands."""

    system_prompt: str
    style: PromptStyle

    @staticmethod
    def of(config: AdacsConfig) -> Wording:
        """That of section write; what it leaves open is as the estimator is asked, else as `ares-eval` asks."""
        ask = {name.replace("-", "_"): value for name, value in config.sample.estimator.ask.items()}
        prompt, style = config.write.system_prompt, config.write.prompt_style
        return Wording(
            str(ask.get("system_prompt", ARES_SYSTEM_PROMPT)) if prompt is None else prompt,
            ask.get("prompt_style", "system") if style is None else style,
        )


def asked(turns: Sequence[Mapping[str, str]], wording: Wording) -> list[dict[str, str]]:
    """A question's turns as the student is asked."""
    plain = tuple(Message(_ROLE[turn["role"]], (TextPart(turn["content"]),)) for turn in turns)
    styled = prompts.style(plain, wording.system_prompt, wording.style)
    return [{"role": str(message.role), "content": _content(message)} for message in styled]


def answered(text: str, reasoning: str) -> dict[str, str]:
    """A reply as the turn that is trained on."""
    return {"role": "assistant", "content": _MARK.sub(r"< \1>", response.whole(text, reasoning))}


_ROLE: Mapping[str, Any] = {"system": "system", "user": "user", "assistant": "assistant"}


def _content(message: Message) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, TextPart))
