"""Our engine as a model of VLMEvalKit: interleaved messages in, text out; a failure is its failure text.

VLMEvalKit calls ``generate`` from threads of its own and tries again by itself; here the engine retries (Retry-After,
only what can succeed) and VLMEvalKit's tries are set to one. A reply that failed is stored as VLMEvalKit's failure
text, which it counts and asks again; it is never an answer. Requests are those of ``ares-eval --datasets vlm:NAME``, so
both share the cache.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ares_eval import plan
from ares_eval.inference.cache import Cache
from ares_eval.inference.engine import Engine, EngineOptions
from ares_eval.inference.transport import Endpoint, Transport
from ares_eval.types import AnswerSpec, Failure, Message, Picture, PictureError, PicturePart, Reply, Sample, TextPart

if TYPE_CHECKING:
    from ares_eval.config import RunConfig

OPENAI_URL = "https://api.openai.com/v1"


def model_class() -> Any:
    """The class, made when VLMEvalKit can be imported: its base class is theirs."""
    from vlmeval.api.base import BaseAPI

    class AresModel(BaseAPI):  # type: ignore[misc]
        """A model behind an OpenAI-compatible endpoint; ``config`` says which and how."""

        is_api = True
        allowed_types = ("text", "image")

        def __init__(self, config: RunConfig, **_: Any) -> None:
            super().__init__(retry=1, wait=0, system_prompt=None, verbose=False)
            self._config = config

        def generate_inner(self, inputs: list[dict[str, str]], **_: Any) -> tuple[int, str, str]:
            """(0, text, ""), or (-1, failure text, cause)."""
            outcome = ask(self._config, inputs)
            if isinstance(outcome, Failure):
                return -1, f"{self.fail_msg} {outcome.cause}", outcome.message
            if outcome.reasoning and os.environ.get("SPLIT_THINK"):
                return 0, f"<think>{outcome.reasoning}</think>{outcome.text}", ""
            return 0, outcome.text, ""

    return AresModel


def ask(config: RunConfig, inputs: list[dict[str, str]]) -> Reply | Failure:
    """The reply to one message of texts and picture files, through cache and engine."""
    parts = tuple(
        PicturePart(_picture(Path(piece["value"]))) if piece["type"] == "image" else TextPart(piece["value"])
        for piece in inputs
    )
    sample = Sample("vlmeval", "0", (Message("user", parts),), "", AnswerSpec(), "0")
    try:
        asked = plan.prompt(sample, config)
    except (PictureError, OSError) as error:
        return Failure("picture", str(error), attempts=0)
    identity = plan.ModelIdentity(config.model_name, config.model_revision, None)
    (request,) = plan.requests(sample, asked, identity, config, iter([0]))
    endpoint = _endpoint(config)
    with contextlib.ExitStack() as stack:
        # Caches belong to one thread, and VLMEvalKit asks from many.
        cache = None if config.no_cache else stack.enter_context(contextlib.closing(Cache(config.cache_folder())))
        options = EngineOptions(threads=1, max_retries=config.max_retries, secrets=endpoint.secrets())
        engine = stack.enter_context(
            Engine(config.model_name, lambda: _transport(config, endpoint), options, cache=cache)
        )
        for _, outcome in engine.run([request]):
            return outcome
    return engine.fatal or Failure("stopped", "not asked")


def _picture(path: Path) -> Picture:
    return Picture(path.name, path.read_bytes)


def _endpoint(config: RunConfig) -> Endpoint:
    key = config.openai_api_key.value if config.openai_api_key else None
    return Endpoint(config.openai_base_url or OPENAI_URL, key)


def _transport(config: RunConfig, endpoint: Endpoint) -> Transport:
    if config.transport == "openai":
        from ares_eval.inference.transport_openai import OpenAITransport

        return OpenAITransport(endpoint, connections=1, timeout=config.timeout)
    from ares_eval.inference.transport_aiohttp import AiohttpTransport

    return AiohttpTransport(endpoint, connections=1, timeout=config.timeout)
