"""From samples to requests: the messages in their prompt style, the pictures prepared, each draw with its content hash.

The hash covers everything that changes the reply (model, revision, digest of the weights where we serve them, messages
with picture digests, sampling parameters, draw) and nothing else: no address, no key, no time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ares_eval.tasks import pictures, prompts
from ares_eval.types import Message, PicturePart, PreparedPicture, Request, Sample, Sampling, WireMessage

if TYPE_CHECKING:
    from ares_eval.config import RunConfig
    from ares_eval.tasks import Task

KEY_VERSION = 1
"""Raised when equal requests of before and after must not share a cached reply."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights answer, as far as it is known."""

    name: str
    revision: str | None = None
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as it is sent, and the hash of that."""

    messages: tuple[WireMessage, ...]
    digest: str


def draws(task: Task, config: RunConfig) -> int:
    """How often each question of ``task`` is asked: ``--samples``, else the task's own ``repeats``."""
    return config.samples if config.samples is not None else task.repeats


def prompt(sample: Sample, config: RunConfig) -> Prompt:
    """The messages of ``sample`` in the run's prompt style; raises PictureError where a picture cannot be read."""
    limits = pictures.PixelLimits(config.min_pixels, config.max_pixels)
    styled = prompts.style(sample.messages, config.system_prompt, config.prompt_style)
    messages = tuple(_wire(message, limits) for message in styled)
    return Prompt(messages, prompts.prompt_digest(messages))


def requests(
    sample: Sample, asked: Prompt, model: ModelIdentity, config: RunConfig, todo: Iterator[int]
) -> Iterator[Request]:
    """One request for each draw number in ``todo``."""
    for draw in todo:
        sampling = config.sampling(draw)
        yield Request(
            sample.task,
            sample.id,
            draw,
            asked.messages,
            sampling,
            request_key(model, asked.digest, sampling, draw),
        )


def request_key(model: ModelIdentity, prompt_digest: str, sampling: Sampling, draw: int) -> str:
    """SHA-256, hexadecimal, of all that changes the reply. Whether it is streamed does not."""
    content = [KEY_VERSION, model, prompt_digest, msgspec.to_builtins(sampling) | {"stream": None}, draw]
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def _wire(message: Message, limits: pictures.PixelLimits) -> WireMessage:
    parts: list[str | PreparedPicture] = []
    for part in message.parts:
        parts.append(pictures.prepare(part.picture, limits) if isinstance(part, PicturePart) else part.text)
    return WireMessage(message.role, tuple(parts))
