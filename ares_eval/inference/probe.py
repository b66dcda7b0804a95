"""What an OpenAI-compatible server can do, found out by asking it: no documentation is trusted, no answer is invented.

``meet`` is the quick look before a run; ``probe`` asks everything, for `ares-eval doctor`, with some twenty requests of
a few tokens each. None in a result means "not known". Only the standard library is used, apart from the engine:
a probe must work where the engine does not.
"""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ares_eval.inference.servers.ask import Answer, Unreachable, ask
from ares_eval.inference.servers.process import find_model
from ares_eval.inference.transport import Endpoint

QUICK_TIMEOUT = 20.0
"""Seconds for each question of ``meet``: a server that is slower is met by the engine with its own patience."""

TIMEOUT = 120.0
"""Seconds for each question of ``probe``; the first answer of a cold server on a loaded machine takes a minute."""

LOGPROB_STEPS = (2, 5, 20, 50, 100, 200)
"""Numbers of alternatives that are tried in this order until one is refused: OpenAI's limits are 5 and 20.

Not 1: lmdeploy leaves the sampled token out, so that one alternative may be none."""

PICTURE_WORDS = re.compile(
    r"image|picture|vision|multi-?modal|modalit|mmproj|valid string|must be a string|expected (a )?string", re.I
)
"""How servers say that they take no pictures; a text-only server may just say that content must be a string."""

OWNERS = {"llamacpp": "llama.cpp", "vllm": "vllm", "lmdeploy": "lmdeploy", "ares": "ares transformers server"}
"""``owned_by`` of a listed model -> the program that serves it."""

TRANSIENT = frozenset({401, 403, 404, 408, 409, 425, 429, 502, 503, 504})
"""Statuses that say nothing about pictures, log-probs or any other ability."""


@dataclass(frozen=True, slots=True)
class ServerProbe:
    """What a server said of itself and showed.

    ``listed``: the model is in /v1/models (``models`` names what is, at most 50). ``context`` in tokens.
    ``top_logprobs``: most alternatives that it accepted *and* gave, 0 for none. ``raw_logprobs``: they do not depend
    on the temperature. ``n``: several choices in one request. ``reasoning_field``: where the reasoning came apart from
    the content. ``seeded``: the same seed gave the same reply twice. ``refused``: parameters that it does not take.
    ``error``: why no chat was possible, in the server's own words.
    """

    reachable: bool
    listed: bool | None = None
    models: tuple[str, ...] = ()
    family: str | None = None
    version: str | None = None
    context: int | None = None
    chat: bool | None = None
    pictures: bool | None = None
    top_logprobs: int | None = None
    raw_logprobs: bool | None = None
    n: bool | None = None
    reasoning_field: str | None = None
    seeded: bool | None = None
    refused: tuple[str, ...] = ()
    error: str | None = None


def meet(endpoint: Endpoint, model: str, *, pictures: bool) -> ServerProbe:
    """The quick look: what is listed and, where ``pictures`` will be sent, whether one is taken. Never raises."""
    found = _introduce(endpoint, model, QUICK_TIMEOUT)
    if not (found.reachable and pictures):
        return found
    return replace(found, pictures=_Chat(endpoint, model, QUICK_TIMEOUT).takes_pictures())


def probe(endpoint: Endpoint, model: str | None = None) -> ServerProbe:
    """Everything. ``model`` may be left out where the server lists exactly one. Never raises."""
    found = _introduce(endpoint, model, TIMEOUT)
    if model is None and len(found.models) == 1:
        model = found.models[0]
        found = _introduce(endpoint, model, TIMEOUT)
    if not found.reachable:
        return found
    if model is None:
        return replace(found, error="no model named; choose one of those it lists with --model-name")
    chat = _Chat(endpoint, model, TIMEOUT)
    try:
        # Some tokens more than one, so that a reasoning model shows the field it reasons in.
        first = chat.ask(max_tokens=16)
        if not first.ok:
            return replace(found, chat=False, error=_cleaned(first.complaint(), endpoint), refused=tuple(chat.refused))
        top, raw = _logprobs(chat)
        several = chat.ask(n=2)
        seeds = [chat.ask(max_tokens=8, seed=7, temperature=1.0) for _ in range(2)]
        return replace(
            found,
            chat=True,
            pictures=chat.takes_pictures(),
            top_logprobs=top,
            raw_logprobs=raw,
            n=None if several.status in TRANSIENT else several.ok and len(_choices(several)) == 2,
            reasoning_field=_reasoning_field(first),
            seeded=_said(seeds[0]) == _said(seeds[1]) if all(seed.ok for seed in seeds) else None,
            refused=tuple(chat.refused),
        )
    except Unreachable as error:
        return replace(found, chat=False, error=_cleaned(str(error), endpoint), refused=tuple(chat.refused))


# ---------------------------------------------------------------- questions


class _Chat:
    """Small chats with one model; learns which parameters the server refuses and leaves them out from then on."""

    def __init__(self, endpoint: Endpoint, model: str, timeout: float) -> None:
        self.endpoint, self.model, self.timeout = endpoint, model, timeout
        self.refused: list[str] = []

    def ask(self, content: Any = "Say hi.", *, max_tokens: int = 1, **parameters: Any) -> Answer:
        """One chat, once more for each parameter that is refused by name. Raises Unreachable."""
        while True:
            limit = "max_completion_tokens" if "max_tokens" in self.refused else "max_tokens"
            body = {"model": self.model, "messages": [{"role": "user", "content": content}], limit: max_tokens}
            body |= {name: value for name, value in parameters.items() if name not in self.refused}
            url = f"{self.endpoint.base_url}/chat/completions"
            answer = _ask(self.endpoint, url, body, timeout=self.timeout)
            name = _refused(answer, [limit, *parameters])
            if name is None or name in self.refused or name in ("logprobs", "top_logprobs", "n"):
                return answer
            self.refused.append(name)

    def takes_pictures(self) -> bool | None:
        """Whether a small picture is taken; None where the answer says nothing about it."""
        parts = [
            {"type": "text", "text": "Which colour?"},
            {"type": "image_url", "image_url": {"url": PICTURE}},
        ]
        try:
            answer = self.ask(parts)
        except Unreachable:
            return None
        if answer.ok:
            return True
        refused = answer.status not in TRANSIENT and PICTURE_WORDS.search(answer.complaint())
        return False if refused else None


def _introduce(endpoint: Endpoint, model: str | None, timeout: float) -> ServerProbe:
    """What the server says of itself without being asked to think."""
    try:
        listing = _ask(endpoint, f"{endpoint.base_url}/models", timeout=timeout)
    except Unreachable as error:
        return ServerProbe(reachable=False, error=_cleaned(str(error), endpoint))
    data = listing.body.get("data") if isinstance(listing.body, dict) else None
    entries = [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    names = tuple(str(entry.get("id"))[:200] for entry in entries[:50])
    entry = find_model(listing.body, model) if model else None
    family, version = _family(endpoint, entry or (entries[0] if entries else {}))
    return ServerProbe(
        reachable=True,
        listed=None if data is None or model is None else entry is not None,
        models=names,
        family=family,
        version=version,
        context=_context(entry or {}),
        error=None if listing.ok else _cleaned(listing.complaint(), endpoint),
    )


def _family(endpoint: Endpoint, entry: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """(program, version) where they can be seen: the owner of the listed model, vLLM's /version, llama.cpp's /props."""
    owner = str(entry.get("owned_by") or "").lower()
    family = OWNERS.get(owner)
    if family is None:
        return ("openai", None) if urlsplit(endpoint.base_url).hostname == "api.openai.com" else (None, None)
    page, key = ("/props", "build_info") if family == "llama.cpp" else ("/version", "version")
    try:
        said = _ask(endpoint, endpoint.base_url.removesuffix("/v1") + page, timeout=5.0)
    except Unreachable:
        return family, None
    version = said.body.get(key) if said.ok and isinstance(said.body, dict) else None
    return family, str(version)[:100] if version else None


def _logprobs(chat: _Chat) -> tuple[int | None, bool | None]:
    """(most alternatives, whether they are raw); (0, None) where there are none at all."""
    most: int | None = None
    for wanted in LOGPROB_STEPS:
        answer = chat.ask(logprobs=True, top_logprobs=wanted, temperature=0.0)
        if answer.status in TRANSIENT:
            break
        given = len(_alternatives(answer)) if answer.ok else 0
        # lmdeploy leaves the sampled token out of the list, so one less than asked is still what was asked.
        complete = given > 0 and given >= wanted - 1
        most = wanted if complete else max(most or 0, given)
        if not complete:
            break
    if not most:
        return most, None
    if "temperature" in chat.refused:
        return most, None
    few = min(5, most)
    # Again where nothing can be compared: llama.cpp says nothing of a token that is only a piece of a character.
    for _ in range(3):
        cool, hot = (_alternatives(chat.ask(logprobs=True, top_logprobs=few, temperature=t)) for t in (0.5, 2.0))
        shared = cool.keys() & hot.keys()
        if shared:
            return most, all(abs(cool[token] - hot[token]) < 0.05 + 0.02 * abs(cool[token]) for token in shared)
    return most, None


# ---------------------------------------------------------------- answers


def _ask(endpoint: Endpoint, url: str, body: Any = None, *, timeout: float) -> Answer:
    return ask(url, body, api_key=endpoint.api_key, headers=endpoint.headers, timeout=timeout)


def _cleaned(words: str, endpoint: Endpoint) -> str:
    """A server's words without the key, which some of them repeat."""
    for secret in endpoint.secrets():
        words = words.replace(secret, "***")
    return words


def _refused(answer: Answer, names: list[str]) -> str | None:
    """The parameter among ``names`` that a 400 or 422 refuses as such."""
    from ares_eval.inference.parameters import refused_parameter

    if answer.status not in (400, 422) or not isinstance(answer.body, dict):
        return None
    said = answer.body.get("error")
    said = said if isinstance(said, dict) else answer.body
    name = refused_parameter(said, answer.text[:4096], {str(said.get("code"))})
    return name if name in names else None


def _choices(answer: Answer) -> list[dict[str, Any]]:
    choices = answer.body.get("choices") if isinstance(answer.body, dict) else None
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _message(answer: Answer) -> dict[str, Any]:
    choices = _choices(answer)
    message = choices[0].get("message") if choices else None
    return message if isinstance(message, dict) else {}


def _said(answer: Answer) -> tuple[str, ...]:
    message = _message(answer)
    return tuple(str(message.get(field)) for field in ("content", "reasoning_content", "reasoning"))


def _reasoning_field(answer: Answer) -> str | None:
    message = _message(answer)
    for field in ("reasoning_content", "reasoning"):
        if message.get(field):
            return field
    return "<think> in content" if "<think>" in str(message.get("content")) else None


def _alternatives(answer: Answer) -> dict[str, float]:
    """The alternatives of the first token: text (made distinct by position where several look alike) -> log-prob."""
    choices = _choices(answer)
    logprobs = choices[0].get("logprobs") if choices else None
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    items = first.get("top_logprobs") if isinstance(first, dict) else None
    found: dict[str, float] = {}
    for position, item in enumerate(items if isinstance(items, list) else []):
        value = item.get("logprob") if isinstance(item, dict) else None
        if isinstance(value, int | float):
            text = str(item.get("token"))
            found[f"{text}#{position}" if text in found else text] = float(value)
    return found


def _context(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    sizes = [entry.get(key) for key in ("max_model_len", "context_length", "context_window", "max_context_length")]
    sizes.append(meta.get("n_ctx") if isinstance(meta, dict) else None)
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


def _red_square(side: int = 56) -> str:
    """A PNG of one colour as a data URL; 56 pixels, since some models take no picture below 28."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff\x00\x00" * side) * side
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


PICTURE = _red_square()
