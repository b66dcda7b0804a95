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
from ares_eval.types import Ask, Message, PicturePart, PreparedPicture, Request, Sample, Sampling, WireMessage

if TYPE_CHECKING:
    from ares_eval.config import RunConfig
    from ares_eval.tasks import Task

KEY_VERSION = 1
"""Raised when equal requests of before and after must not share a cached reply."""


LIKELIHOOD = Sampling(max_tokens=1, temperature=0.0, top_p=None, logprobs=1)
"""Sampling parameters where likelihoods are asked for: nothing is sampled, so the run's own change nothing."""


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


def settings(task: Task, sample: Sample, config: RunConfig) -> RunConfig:
    """The run's settings for one question: what the user did not set, the question or its task may."""
    if not task.defaults and not sample.defaults:
        return config
    own = {**task.defaults, **sample.defaults}
    return config.replace(**{name: own[name] for name in own.keys() - config.given})


def official_rule(task: Task, config: RunConfig) -> str | None:
    """The rule of tasks/official.py that decides over the replies; None where our own scoring does."""
    return getattr(task, "official_rule", None) if config.scoring == "official" else None


def fingerprint(task: Task, config: RunConfig) -> str:
    """The task's fingerprint; where it brings settings along, it matters which of them the user has set."""
    if not task.defaults:
        return task.fingerprint
    chosen = [task.fingerprint, dict(task.defaults), sorted(config.given & task.defaults.keys())]
    return hashlib.sha256(msgspec.json.encode(chosen, order="sorted")).hexdigest()


def prompt(sample: Sample, config: RunConfig) -> Prompt:
    """The messages of ``sample`` in the run's prompt style; raises PictureError where a picture cannot be read.

    Texts whose likelihood is asked for stay as they are.
    """
    limits = pictures.PixelLimits(config.min_pixels, config.max_pixels)
    system = config.system_prompt if sample.ask == "reply" else ""
    styled = prompts.style(sample.messages, system, config.prompt_style)
    messages = tuple(_wire(message, limits) for message in styled)
    return Prompt(messages, prompts.prompt_digest(messages))


def requests(
    sample: Sample, asked: Prompt, model: ModelIdentity, config: RunConfig, todo: Iterator[int]
) -> Iterator[Request]:
    """One request for each draw number in ``todo``."""
    for draw in todo:
        sampling = config.sampling(draw) if sample.ask == "reply" else LIKELIHOOD
        yield Request(
            sample.task,
            sample.id,
            draw,
            asked.messages,
            sampling,
            request_key(model, asked.digest, sampling, draw, sample.ask),
            sample.ask,
        )


def request_key(model: ModelIdentity, prompt_digest: str, sampling: Sampling, draw: int, ask: Ask = "reply") -> str:
    """SHA-256, hexadecimal, of all that changes the reply. Whether it is streamed does not."""
    content: list[object] = [
        KEY_VERSION,
        model,
        prompt_digest,
        msgspec.to_builtins(sampling) | {"stream": None},
        draw,
    ]
    if ask != "reply":
        content.append(ask)
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def _wire(message: Message, limits: pictures.PixelLimits) -> WireMessage:
    parts: list[str | PreparedPicture] = []
    for part in message.parts:
        parts.append(pictures.prepare(part.picture, limits) if isinstance(part, PicturePart) else part.text)
    return WireMessage(message.role, tuple(parts))
