"""How a question is worded for the model: the ARES system prompt, where it goes, and the digest of the result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal, TypeAlias

from ares_eval.types import Message, PicturePart, PreparedPicture, TextPart, WireMessage

ARES_SYSTEM_PROMPT = (
    "You FIRST think about the reasoning process as an internal monologue and then provide the final answer. "
    "The reasoning process MUST BE enclosed within <think> </think> tags. The final answer MUST BE put in \\boxed{}."
)
"""The default of `--system-prompt`. Word for word the prompt that ARES models are trained and were evaluated with
(the released evaluation's default and EasyR1's `math.jinja`); another wording would measure another thing."""

PromptStyle: TypeAlias = Literal["system", "user-suffix"]


def style(
    messages: tuple[Message, ...], system_prompt: str, prompt_style: PromptStyle = "system"
) -> tuple[Message, ...]:
    """The messages with the system prompt in its place; an empty prompt changes nothing.

    ``system``: a system turn first (joined with the task's own, ours before it). ``user-suffix``: at the end of the
    last user turn, one space after its stripped text, as models trained with `math.jinja` saw it.
    """
    if not system_prompt:
        return messages
    if prompt_style == "system":
        if messages and messages[0].role == "system":
            first = Message("system", (TextPart(system_prompt + "\n\n"), *messages[0].parts))
            return (_joined(first), *messages[1:])
        return (Message("system", (TextPart(system_prompt),)), *messages)
    if prompt_style != "user-suffix":
        raise ValueError(f"prompt style {prompt_style!r}: must be system or user-suffix")
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=None)
    if last is None:
        raise ValueError("prompt style user-suffix needs a user turn")
    parts = messages[last].parts
    if parts and isinstance(parts[-1], TextPart):
        parts = (*parts[:-1], TextPart(f"{parts[-1].text.rstrip()} {system_prompt}"))
    else:
        parts = (*parts, TextPart(system_prompt))
    return (*messages[:last], Message("user", parts), *messages[last + 1 :])


def prompt_digest(messages: Iterable[Message | WireMessage]) -> str:
    """SHA-256 (hex) over roles, texts and the places of pictures; prepared pictures count with their own digest.

    The digest of a Message leaves its pictures' content out (they are known by content only when prepared).
    """
    parts: list[object] = []
    for message in messages:
        parts.append([message.role, [_known(part) for part in message.parts]])
    import msgspec

    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _known(part: TextPart | PicturePart | str | PreparedPicture) -> list[str]:
    if isinstance(part, str):
        return ["text", part]
    if isinstance(part, TextPart):
        return ["text", part.text]
    if isinstance(part, PicturePart):
        return ["picture"]
    return ["picture", part.digest]


def _joined(message: Message) -> Message:
    if all(isinstance(part, TextPart) for part in message.parts):
        text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
        return Message(message.role, (TextPart(text),))
    return message
