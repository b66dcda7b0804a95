"""One JSON question to a server, by the standard library alone: for readiness checks and capability probes.

Promises: a bounded time and a bounded body; no redirect is followed (it would carry the key elsewhere); servers
on this machine are reached directly even where a proxy is configured; the key appears in no error.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ares_eval.inference.transport import USER_AGENT, is_loopback

MAX_BODY = 16 * 2**20
"""A probe's answer with log-probs is some kilobytes; what is larger than this is not the answer of a model server."""


class Unreachable(OSError):
    """No HTTP answer at all: refused, reset, timed out, unknown host, or no HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: ``body`` is the decoded JSON, or None where it is not JSON (then see ``text``)."""

    status: int
    body: Any
    text: str

    @property
    def ok(self) -> bool:
        """A 2xx status."""
        return 200 <= self.status < 300

    def complaint(self) -> str:
        """The server's own words for an error, from an OpenAI-shaped, flat or plain body; at most 300 characters."""
        words: object = None
        if isinstance(self.body, dict):
            inner = self.body.get("error")
            words = inner.get("message") if isinstance(inner, dict) else inner or self.body.get("message")
            words = words or self.body.get("detail")
        return f"HTTP {self.status}: {str(words or self.text).strip()[:300]}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_request: Any) -> None:
        return None


def ask(
    url: str,
    body: Any = None,
    *,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
    max_body: int = MAX_BODY,
) -> Answer:
    """GET ``url``, or POST ``body`` as JSON. Every HTTP status is an Answer; raises Unreachable where there is none.

    At most ``max_body`` bytes are read; a longer answer is cut, and no JSON then.
    """
    proxies: dict[str, str] | None = {} if is_loopback(urlsplit(url).hostname or "") else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _NoRedirect)
    sent = {"Accept": "application/json", "User-Agent": USER_AGENT}
    if body is not None:
        sent["Content-Type"] = "application/json"
    if api_key:
        sent["Authorization"] = f"Bearer {api_key}"
    sent |= headers or {}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=sent)
    try:
        try:
            with opener.open(request, timeout=timeout) as response:
                return _answer(response.status, response.read(max_body))
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.read(MAX_BODY))
    except urllib.error.URLError as error:
        raise Unreachable(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(str(error) or type(error).__name__) from error


def _answer(status: int, raw: bytes) -> Answer:
    text = raw.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    return Answer(status, body, text)
