"""How each server says no: the JSON of an error, the words it is known by, and what a fault looks like on the wire."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from tests.loopback import chat
from tests.loopback.http import Answer, Cut, Reset, Response, Silence, Stream
from tests.loopback.options import Options

DRIP_PIECES = 20

_VLLM_TYPES = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 500: "InternalServerError"}
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_exceeded",
    404: "not_found_error",
}


def refusal(
    dialect: str,
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """An error reply. ``code`` and ``kind`` (the error's type) are OpenAI's; the others put their own there."""
    if kind is None:
        kind = _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body: dict[str, Any]
    match dialect:
        case "vllm":
            kind = _VLLM_TYPES.get(status, kind)
            body = {"error": {"message": message, "type": kind, "param": param, "code": status}}
        case "llamacpp":
            body = {"error": {"code": status, "message": message, "type": kind, **(more or {})}}
        case "lmdeploy":
            body = {"message": message, "type": kind, "code": status, "param": param, "object": "error"}
        case _:
            body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Response(status, msgspec.json.encode(body), headers or {})


def bad_key(dialect: str) -> Response:
    """The key is missing or wrong."""
    message = "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys."
    return refusal(dialect, 401, message, code="invalid_api_key", kind="invalid_request_error")


def unknown_model(dialect: str, name: str) -> Response:
    """No such model."""
    message = f"The model `{name}` does not exist or you do not have access to it."
    return refusal(dialect, 404, message, code="model_not_found", kind="invalid_request_error")


def too_busy(options: Options, status: int, form: str) -> Response:
    """429 or 503; ``form`` says how Retry-After is given: seconds, date, none."""
    headers = {}
    if form == "seconds":
        headers["Retry-After"] = f"{options.retry_after:g}"
    elif form == "date":
        headers["Retry-After"] = email.utils.formatdate(time.time() + options.retry_after, usegmt=True)
    if status == 429:
        message = "Rate limit reached for requests. Please try again later."
        return refusal(options.dialect, 429, message, code="rate_limit_exceeded", kind="requests", headers=headers)
    message = "The engine is currently overloaded, please try again later."
    return refusal(options.dialect, status, message, headers=headers)


def early_fault(kind: str, options: Options) -> Answer | None:
    """The answer to a fault that needs no reply to spoil; None for the others."""
    dialect = options.dialect
    match kind:
        case "429" | "429-date" | "429-bare":
            return too_busy(options, 429, {"429": "seconds", "429-date": "date", "429-bare": "none"}[kind])
        case "503" | "503-date":
            return too_busy(options, 503, "date" if kind.endswith("date") else "seconds")
        case "408":
            return refusal(dialect, 408, "Request timed out.")
        case "quota":
            message = "You exceeded your current quota, please check your plan and billing details."
            return refusal(dialect, 429, message, code="insufficient_quota", kind="insufficient_quota")
        case "401":
            return bad_key(dialect)
        case "403":
            return refusal(dialect, 403, "You are not allowed to use this model.", code="permission_denied")
        case "no-model":
            return unknown_model(dialect, options.model.split(",")[0])
        case "hang":
            return Silence()
        case "409":
            return refusal(dialect, 409, "The resource is busy.", code="conflict")
        case "500":
            return refusal(dialect, 500, "The server had an error while processing your request. Sorry about that!")
        case "502-html":
            return Response(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", content_type="text/html")
        case "reset":
            return Reset()
        case "empty-body":
            return Response(200, b"")
        case "filter-400":
            message = "The response was filtered due to the prompt triggering the content management policy."
            return refusal(dialect, 400, message, code="content_filter", param="prompt")
    return None


async def _dripping(body: bytes, pause: float) -> AsyncIterator[bytes]:
    size = max(1, -(-len(body) // DRIP_PIECES))
    for start in range(0, len(body), size):
        await asyncio.sleep(pause)
        yield body[start : start + size]


def late_fault(kind: str, options: Options, good: bytes, form: chat.Form) -> Answer:
    """The answer to a fault that spoils a good reply's body."""
    match kind:
        case "reset-mid":
            return Reset(Response(200, good))
        case "malformed":
            return Response(200, good[: len(good) * 2 // 3])
        case "truncated":
            return Cut(Response(200, good))
        case "drip":
            return Stream(_dripping(good, options.drip_pause), content_type="application/json")
        case "empty":
            return Response(200, chat.empty(form))
        case "filter":
            return Response(200, chat.whole(form, [chat.Choice((), (), (), "content_filter")]))
    raise ValueError(f"unknown fault {kind!r}")
