"""OpenAI's chat bodies for our transformers server: a request read strictly, a reply written.

Everything a request asks is done or refused by name with an OpenAI-shaped error; nothing is ignored that would change
the reply. Pictures come as data URLs; nothing is fetched from anywhere. An extension: each log-prob entry carries
``entropy``, the exact entropy (nats) of the whole next-token distribution, and ``id``.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ares_eval.inference.servers.hf_generate import Draw, Sampling, Token

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ALTERNATIVES = 1000
MAX_DRAWS = 64
MAX_STOPS = 16
MAX_PIXELS = 50_000_000
"""A decoded picture takes 3 bytes a pixel; what is larger than this is refused before it is decoded."""

HARMLESS = frozenset(
    {"model", "messages", "user", "metadata", "store", "stream", "stream_options", "n", "service_tier"}
)
NEUTRAL = {"presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "min_p": 0, "logit_bias": {}}
"""Parameters that are taken where they change nothing."""

SAMPLING = frozenset(
    {"max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "seed", "stop", "logprobs", "top_logprobs"}
)


class Refused(Exception):
    """A request that is answered with an error. ``param`` names the part that is wrong."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.code, self.status = param, code, status

    def body(self) -> dict[str, Any]:
        """OpenAI's error body."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request that can be answered. ``max_tokens`` None: as many as fit. ``pictures`` are still encoded."""

    messages: list[dict[str, Any]]
    pictures: list[bytes]
    max_tokens: int | None
    sampling: Sampling
    stream: bool = False
    include_usage: bool = False
    template_options: Mapping[str, Any] = field(default_factory=dict)


def read(body: Any, model: str, *, takes_pictures: bool) -> Asked:
    """Read a request's JSON; raises Refused."""
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object")
    if body.get("model") != model:
        raise Refused(f"The model {body.get('model')!r} does not exist.", "model", "model_not_found", 404)
    given = {name: value for name, value in body.items() if value is not None}
    for name, value in given.items():
        if name in NEUTRAL and value != NEUTRAL[name]:
            raise Refused(f"Unsupported parameter: {name!r} is not supported.", name, "unsupported_parameter")
        if name not in HARMLESS | SAMPLING | NEUTRAL.keys() | {"chat_template_kwargs"}:
            raise Refused(f"Unsupported parameter: {name!r} is not supported.", name, "unsupported_parameter")
    messages, pictures = _messages(given.get("messages"))
    if pictures and not takes_pictures:
        raise Refused("This model does not take pictures (image_url).", "messages", "unsupported_value")
    options = given.get("stream_options", {})
    template = given.get("chat_template_kwargs", {})
    if not isinstance(options, dict) or not isinstance(template, dict):
        raise Refused("stream_options and chat_template_kwargs must be objects", "stream_options")
    wanted = given.get("max_completion_tokens", given.get("max_tokens"))
    limit = None if wanted is None else int(_number(wanted, "max_tokens", 1, 2**31, whole=True))
    return Asked(
        messages,
        pictures,
        limit,
        _sampling(given),
        stream=_flag(given, "stream"),
        include_usage=_flag(options, "include_usage"),
        template_options=template,
    )


def decode_picture(data: bytes) -> Image:
    """An RGB picture; raises Refused for what is none, or too large."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF", "BMP"))
            if picture.width * picture.height > MAX_PIXELS:
                raise Refused(f"a picture of {picture.width} x {picture.height} pixels is too large", "messages")
            return picture.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(f"a picture cannot be decoded: {error}", "messages") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise Refused(f"a picture is damaged: {error}", "messages") from error


def _messages(value: Any) -> tuple[list[dict[str, Any]], list[bytes]]:
    if not isinstance(value, list) or not value:
        raise Refused("messages must be a list that is not empty", "messages")
    messages: list[dict[str, Any]] = []
    pictures: list[bytes] = []
    for message in value:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant"):
            raise Refused(f"a message's role is {role!r}; expected system, user or assistant", "messages")
        content = message.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise Refused("a message's content must be a string or a list of parts", "messages")
        kept = [_part(part, pictures) for part in parts]
        messages.append({"role": "system" if role == "developer" else role, "content": kept})
    return messages, pictures


def _part(part: Any, pictures: list[bytes]) -> dict[str, str]:
    """The part as chat templates take it; a picture's bytes are appended to ``pictures``."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind != "image_url":
        raise Refused(f"a content part of type {kind!r} is not supported; expected text or image_url", "messages")
    link = part.get("image_url")
    url = link.get("url") if isinstance(link, dict) else link
    head, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (comma and head.startswith("data:image/") and head.endswith(";base64")):
        raise Refused("pictures must come as data URLs (data:image/...;base64,...); nothing is fetched", "messages")
    try:
        pictures.append(base64.b64decode(data, validate=True))
    except binascii.Error as error:
        raise Refused(f"a picture is no base64: {error}", "messages") from error
    return {"type": "image"}


def _sampling(given: Mapping[str, Any]) -> Sampling:
    stop = given.get("stop", [])
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise Refused(f"stop must be a string or at most {MAX_STOPS} strings", "stop")
    alternatives = None
    if _flag(given, "logprobs"):
        alternatives = int(_number(given.get("top_logprobs", 0), "top_logprobs", 0, MAX_ALTERNATIVES, whole=True))
    elif given.get("top_logprobs"):
        raise Refused("top_logprobs needs logprobs: true", "top_logprobs")
    seed = given.get("seed")
    # -1 is how vLLM says "all".
    top_k = max(0, int(_number(given.get("top_k", 0), "top_k", -1, 2**31, whole=True)))
    return Sampling(
        max_tokens=1,
        temperature=_number(given.get("temperature", 1.0), "temperature", 0, 2),
        top_p=_number(given.get("top_p", 1.0), "top_p", 0, 1),
        top_k=top_k,
        seed=None if seed is None else int(_number(seed, "seed", -(2**63), 2**63 - 1, whole=True)),
        stop=tuple(stops),
        logprobs=alternatives,
        draws=int(_number(given.get("n", 1), "n", 1, MAX_DRAWS, whole=True)),
    )


def _number(value: Any, name: str, least: float, most: float, *, whole: bool = False) -> float:
    right = isinstance(value, int) if whole else isinstance(value, int | float)
    if not right or isinstance(value, bool) or not least <= value <= most:
        raise Refused(f"{name} must be {'a whole' if whole else 'a'} number from {least:g} to {most:g}", name)
    number: float = value
    return number


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise Refused(f"{name} must be true or false", name)
    return value


# ---------------------------------------------------------------- replies


def choice(number: int, draw: Draw, names: Mapping[int, str] | None) -> dict[str, Any]:
    """An entry of ``choices``; ``names`` are the texts of token ids, None where no log-probs were asked for."""
    found: dict[str, Any] = {
        "index": number,
        "message": {"role": "assistant", "content": draw.text},
        "finish_reason": draw.finish,
        "logprobs": None,
    }
    if names is not None:
        found["logprobs"] = {"content": [entry(token, names) for token in draw.tokens]}
    return found


def entry(token: Token, names: Mapping[int, str]) -> dict[str, Any]:
    """An entry of ``logprobs.content``: the token's text as it adds to the answer, and the others' own texts.

    The sampled token is spelt the same among the alternatives, so that a reader can tell which of them it is.
    """
    return {
        "id": token.id,
        "token": token.text,
        "bytes": list(token.text.encode()),
        "logprob": token.logprob,
        "entropy": token.entropy,
        "top_logprobs": [_alternative(id, token.text if id == token.id else names[id], p) for id, p in token.top],
    }


def _alternative(number: int, text: str, logprob: float) -> dict[str, Any]:
    return {"id": number, "token": text, "bytes": list(text.encode()), "logprob": logprob}


def usage(prompt: int, draws: Sequence[Draw]) -> dict[str, int]:
    """Tokens of the prompt, counted once, and of all draws (end tokens included)."""
    completion = sum(len(draw.tokens) for draw in draws)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
