"""What a fault means: may it be retried, does the try count, must the run stop, and what did the server say.

``classify`` turns an answer of a status other than 200, or an exception of the transport or of decoding, into one
Fault. It knows the error bodies of OpenAI, vLLM, llama.cpp, lmdeploy (flat) and of proxies (HTML), and the few 500s
that are permanent. Messages are the server's own words, bounded in length, with secrets cut out. Pure: no clock but
the ``now`` that is passed in.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from ares_eval.inference.logprobs import MissingLogprobs
from ares_eval.inference.parameters import ContextLimit, context_limit, refused_parameter
from ares_eval.inference.transport import HttpAnswer, TransportError
from ares_eval.inference.wire import EmptyReply, Malformed, ServerSaidError

MESSAGE_LENGTH = 600
"""Characters of a server's message that are kept: servers echo whole requests into their errors."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed try. ``cause`` is one of the words of ``types.Failure``.

    ``retry``: another try may succeed. ``counts``: the try counts against the retries (not where the server said when
    to come back). ``retry_after``: seconds from now. ``fatal``: no other request can succeed either. ``parameter``:
    the request parameter that was refused as unsupported.
    """

    cause: str
    message: str
    retry: bool
    counts: bool = True
    retry_after: float | None = None
    fatal: bool = False
    status: int | None = None
    parameter: str | None = None
    context: ContextLimit | None = None


def classify(problem: HttpAnswer | BaseException, *, secrets: Iterable[str] = (), now: float | None = None) -> Fault:
    """The Fault behind an answer that is no reply, or behind an exception (TypeError for one that is none of ours).

    ``secrets`` are cut out of the message; ``now`` is the time in seconds since the epoch, for Retry-After dates.
    """
    secrets = tuple(secrets)
    if isinstance(problem, HttpAnswer):
        return _answer_fault(problem.status, problem.headers, problem.body, secrets, now)
    if isinstance(problem, ServerSaidError):
        return _answer_fault(problem.status or 500, {}, problem.body, secrets, now, within_reply=True)
    words = _clean(str(problem), secrets)
    if isinstance(problem, TransportError):
        return Fault("timeout" if problem.kind == "timeout" else "network", words, retry=True)
    if isinstance(problem, EmptyReply):
        return Fault("empty", words, retry=True, status=200)
    if isinstance(problem, Malformed):
        return Fault("malformed", words, retry=True, status=200)
    if isinstance(problem, MissingLogprobs):
        return Fault("no_logprobs", words, retry=False, status=200)
    raise TypeError(f"no fault of the wire: {type(problem).__name__}")


# ---------------------------------------------------------------- by status

QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_user_quota"}
)
FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
PICTURE_CODES = frozenset(
    {"invalid_image", "invalid_image_format", "invalid_image_url", "invalid_base64", "image_parse_error"}
)
MODEL_CODES = frozenset({"model_not_found", "deploymentnotfound", "invalid_model"})

FILTERED = re.compile(r"content management policy|content filter|moderation|was flagged", re.I)
BAD_KEY = re.compile(
    r"(invalid|incorrect|not valid|missing).{0,20}api.?key|api.?key.{0,20}(invalid|incorrect|not valid)", re.I
)
NO_MODEL = re.compile(
    r"model\b.{0,200}?\b(does not exist|not found|is not available|unknown model)|unknown model", re.I | re.S
)
NO_PICTURES = re.compile(
    r"mmproj|(image|picture|vision|multi-?modal)\S* (input )?(is |are )?(not|un)\s?(support|available)"
    r"|(does not|doesn't|not) support (image|vision|multi-?modal|picture)|not a (multi-?modal|vision)"
    r"|image_url is only supported|at most \d+ image|support image input|unknown part type: image",
    re.I,
)
BAD_PICTURE = re.compile(
    r"cannot identify image|invalid image|image_parse_error|absolute aspect ratio|failed to (load|decode|open) image"
    r"|truncated image|incorrect padding|not a valid image|corrupt(ed)? image|^cannot connect to host",
    re.I,
)
"""The last one: vLLM's 500 for a picture's URL that cannot be reached, which no retry mends."""


def _answer_fault(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    secrets: tuple[str, ...],
    now: float | None,
    within_reply: bool = False,
) -> Fault:
    said = _error_object(body)
    raw = _words(said, status, headers, body)
    message = _clean(raw, secrets)
    codes = {str(said.get(name)).lower() for name in ("code", "type") if said.get(name) is not None}

    def permanent(cause: str, fatal: bool = False, **more: Any) -> Fault:
        return Fault(cause, message, retry=False, fatal=fatal, status=status, **more)

    if codes & FILTER_CODES or (status in (400, 403) and FILTERED.search(raw)):
        return permanent("content_filter")
    if codes & QUOTA_CODES or status == 402:
        return permanent("refused", fatal=True)
    if status in (408, 409, 425, 429) or status >= 500:
        if (status in (500, 501) or within_reply) and NO_PICTURES.search(raw):
            return permanent("unsupported_input")
        if status == 500 and BAD_PICTURE.search(raw):
            return permanent("picture")
        if status in (501, 505):
            return permanent("refused")
        if status == 429 and "request too large" in raw.lower():  # more than a minute's tokens: no wait makes it fit
            return permanent("context")
        advised = _retry_after(headers, said, raw, now) if status in (429, 503) else None
        cause = {429: "rate_limit", 408: "timeout", 504: "timeout"}.get(status, "server")
        return Fault(cause, message, retry=True, counts=advised is None, retry_after=advised, status=status)
    if status in (401, 403) or BAD_KEY.search(raw):
        return permanent("refused", fatal=True)
    if status in (404, 405) and (NO_PICTURES.search(raw) and "model" not in codes):
        return permanent("unsupported_input")
    if status in (404, 405, 410) or status < 400 or codes & MODEL_CODES:
        return permanent("refused", fatal=True)
    context = context_limit(said, raw, codes)
    if context is not None:
        return permanent("context", context=context)
    if codes & PICTURE_CODES or BAD_PICTURE.search(raw):
        return permanent("picture")
    if NO_PICTURES.search(raw):
        return permanent("unsupported_input")
    parameter = refused_parameter(said, raw, codes)
    if parameter in ("logprobs", "top_logprobs") or "logprobs" in raw[:MESSAGE_LENGTH]:
        return permanent("no_logprobs", fatal=True, parameter=parameter)
    if parameter is not None:
        return permanent("refused", parameter=parameter)
    return permanent("refused", fatal=bool(NO_MODEL.search(raw)))


# ---------------------------------------------------------------- what the body says


def _error_object(body: bytes) -> Mapping[str, Any]:
    """The object that holds message, type, code and param: nested, flat, in a list, or {} for what is no JSON."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return {"message": value} if isinstance(value, str) else {}
    inner = value.get("error")
    if isinstance(inner, dict):
        return inner
    if isinstance(inner, str):
        return {**value, "message": inner}
    return value


def _words(said: Mapping[str, Any], status: int, headers: Mapping[str, str], body: bytes) -> str:
    """The server's own words in one line, else the HTTP phrase."""
    if 300 <= status < 400:
        where = headers.get("location", "another address")
        return f"HTTP {status}: the server redirects to {where}; give the base URL it redirects to"
    message = said.get("message", said.get("detail"))
    if isinstance(message, str) and message.strip():
        return message
    if message:
        return msgspec.json.encode(message).decode()
    try:
        phrase = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = f"HTTP {status}"
    if said:
        return f"{phrase}: {msgspec.json.encode(said).decode()}"
    text = body[:65536].decode("utf-8", "replace")
    title = re.search(r"<title>(.*?)</title>", text, re.I | re.S)
    text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
    return f"{phrase}: {text}" if text.strip() else phrase


KEY_LIKE = re.compile(
    r"\b(sk|rk|pk|hf|gsk|xai|nvapi)[-_][A-Za-z0-9_\-*]{6,}|(?i:\bbearer\s+)\S+|\bAIza[A-Za-z0-9_\-]{20,}"
)


def _clean(text: str, secrets: tuple[str, ...]) -> str:
    """One line, bounded, without secrets and control characters."""
    text = text[: 64 * MESSAGE_LENGTH]
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "[key]")
    text = KEY_LIKE.sub("[key]", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"


def _retry_after(headers: Mapping[str, str], said: Mapping[str, Any], raw: str, now: float | None) -> float | None:
    """Seconds to wait, from ``retry-after-ms``, ``retry-after`` (seconds or a date) or the body; None if not said."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    header = headers.get("retry-after")
    if header is not None:
        seconds = _seconds(header)
        if seconds is not None:
            return seconds
        try:
            date = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        return max(0.0, date.timestamp() - _server_time(headers, now))
    seconds = _seconds(said.get("retry_after"))
    if seconds is not None:
        return seconds
    match = re.search(
        r"(?:try again|retry)\s+(?:in|after)\s+(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|seconds?)\b", raw, re.I
    )
    if match:
        return float(match[1]) / (1000 if match[2].lower().startswith("m") else 1)
    return None


def _server_time(headers: Mapping[str, str], now: float | None) -> float:
    """The server's own clock where it tells: its dates are meant by it."""
    try:
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return time.time() if now is None else now


def _seconds(value: object) -> float | None:
    if not isinstance(value, str | int | float):
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
