"""What carries a request: an endpoint, its raw answer, and the faults of the way.

A transport takes the bytes of one chat request and returns the status, the headers and the bytes of the answer. It
decides nothing: retries, permits, decoding and records are the engine's, the same for every transport. Answers are
bounded in size and time, redirects are not followed (a POST would become a GET or carry the key elsewhere), and no
message holds the key.
"""

from __future__ import annotations

import ipaddress
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import urlsplit

from ares_eval import __version__

MAX_ANSWER_BYTES = 256 * 2**20
"""No answer is longer: 32,768 tokens with 20 alternatives take about 40 MB, and a hostile server stops here."""

CONNECT_SECONDS = 30.0
"""Enough for a slow name server and a far host; a server that takes longer to accept a connection is down."""

USER_AGENT = f"ares-eval/{__version__}"

CHAT_PATH = "/chat/completions"
COMPLETION_PATH = "/completions"


class TransportError(Exception):
    """The answer did not arrive. ``kind``: connect (nothing was asked), read (cut on the way), timeout."""

    def __init__(self, kind: Literal["connect", "read", "timeout"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go and as whom. The key and the headers never show in its repr.

    ``base_url`` is normalised on construction (ValueError where it is no http or https URL).
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", normalise_base_url(self.base_url))
        key = self.api_key.strip() if self.api_key else None
        if key and not (key.isascii() and key.isprintable()):
            raise ValueError("the API key holds characters that cannot be sent in a header")
        object.__setattr__(self, "api_key", key or None)

    def secrets(self) -> tuple[str, ...]:
        """What must be cut out of any text that leaves the process: the key and the values of the extra headers."""
        return tuple(value for value in (self.api_key, *self.headers.values()) if value)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer as it came. ``headers`` have lower-case names; ``body`` is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """One server's connection pool. Its coroutines run in the event loop that first used it."""

    async def post_chat(self, body: bytes) -> HttpAnswer:
        """POST a chat request; raises TransportError."""

    async def stream_chat(self, body: bytes, feed: Callable[[bytes], None]) -> HttpAnswer:
        """The same for a streamed answer: each chunk of an answer of status 200 goes to ``feed`` as it arrives.

        The answer's body is then empty. An answer of another status, or a JSON body from a server that does not
        stream, is returned whole and not fed. What ``feed`` raises ends the request and is passed on.
        """

    async def post_completion(self, body: bytes) -> HttpAnswer:
        """POST a plain completion request; raises TransportError."""

    async def close(self) -> None:
        """Close all connections."""


def normalise_base_url(url: str) -> str:
    """The URL before ``/chat/completions``, without a trailing slash; ``/v1`` stays as given.

    Raises ValueError for what cannot be a base URL: no http or https, no host, a user and password, a query.
    """
    text = url.strip()
    if not text:
        raise ValueError("the base URL is empty; expected for example http://127.0.0.1:8000/v1")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"the base URL is no URL ({error})") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("the base URL holds a user or password: give the key apart from it")
    if parts.scheme not in ("http", "https") or not host or port == 0 or any(c.isspace() for c in text):
        raise ValueError(f"the base URL {text!r} is no http:// or https:// URL, for example http://127.0.0.1:8000/v1")
    if parts.query or parts.fragment:
        raise ValueError("the base URL holds a query or fragment: only scheme, host, port and path are used")
    path = parts.path.rstrip("/").removesuffix(CHAT_PATH).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def environment_proxy(base_url: str) -> str | None:
    """The proxy that the environment names for this URL (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY), or None.

    A server on this machine is never asked through a proxy. Raises ValueError for a proxy that is not http(s).
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or is_loopback(host) or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise ValueError(f"the environment's proxy for {parts.scheme} is of a kind that is not supported: use http://")
    return proxy


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by name or address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def request_headers(endpoint: Endpoint) -> dict[str, str]:
    """The headers of every request to an endpoint; the endpoint's own come last."""
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": USER_AGENT}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    return headers | dict(endpoint.headers)


def is_streamed(status: int, content_type: str) -> bool:
    """Whether an answer to a streaming request is a stream: some servers ignore ``stream`` and send plain JSON."""
    return status == 200 and "json" not in content_type.lower()
