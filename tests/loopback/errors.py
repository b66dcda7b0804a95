"""How each server says no: the JSON of an error, and the words it is known by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tests.loopback.http import Response

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
