"""The default transport: one aiohttp session, connections kept alive, as little work per request as there can be.

The proxy is looked up once, not per request, and ``.netrc`` is never read: a key is sent only where it was given for.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from ares_eval.inference.transport import (
    CHAT_PATH,
    COMPLETION_PATH,
    CONNECT_SECONDS,
    MAX_ANSWER_BYTES,
    Endpoint,
    HttpAnswer,
    TransportError,
    environment_proxy,
    is_streamed,
    request_headers,
)

if TYPE_CHECKING:
    import aiohttp

READ_BUFFER = 2**19
"""Bytes aiohttp may hold before it pauses reading: a log-prob answer of megabytes arrives in few pieces."""

WHOLE_BODY = 2**20
"""Bodies above this (several pictures) are written in pieces, so that one of them does not hold up the loop."""


class AiohttpTransport:
    """Requests to one endpoint over at most ``connections`` connections.

    ``timeout``: seconds without a byte, ``total``: seconds for a whole request. The session is opened by the first
    request, in the loop that makes it.
    """

    def __init__(self, endpoint: Endpoint, *, connections: int, timeout: float, total: float = 7200.0) -> None:
        self._base_url = endpoint.base_url
        self._headers = request_headers(endpoint)
        self._proxy = environment_proxy(endpoint.base_url)
        self._connections = connections
        self._timeout = timeout
        self._total = total
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        session = self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(
                total=self._total, sock_connect=min(self._timeout, CONNECT_SECONDS), sock_read=self._timeout
            ),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_BUFFER,
        )
        return session

    async def post_chat(self, body: bytes) -> HttpAnswer:
        """See Transport."""
        return await self._post(CHAT_PATH, body, None)

    async def stream_chat(self, body: bytes, feed: Callable[[bytes], None]) -> HttpAnswer:
        """See Transport."""
        return await self._post(CHAT_PATH, body, feed)

    async def post_completion(self, body: bytes) -> HttpAnswer:
        """See Transport."""
        return await self._post(COMPLETION_PATH, body, None)

    async def _post(self, path: str, body: bytes, feed: Callable[[bytes], None] | None) -> HttpAnswer:
        import aiohttp

        session = self._session or self._open()
        data = io.BytesIO(body) if len(body) > WHOLE_BODY else body
        try:
            url = self._base_url + path
            async with session.post(url, data=data, proxy=self._proxy, allow_redirects=False) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                streamed = feed is not None and is_streamed(response.status, response.content_type)
                chunks: list[bytes] = []
                size = 0
                async for chunk in response.content.iter_any():
                    size += len(chunk)
                    if size > MAX_ANSWER_BYTES:
                        response.close()
                        raise TransportError("read", f"the answer is longer than {MAX_ANSWER_BYTES >> 20} MiB")
                    if streamed and feed is not None:
                        feed(chunk)
                    else:
                        chunks.append(chunk)
                whole = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                return HttpAnswer(response.status, headers, whole)
        except aiohttp.ConnectionTimeoutError:
            raise TransportError("connect", "the server did not accept a connection in time") from None
        except TimeoutError as error:
            raise TransportError("timeout", self._late(error)) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise TransportError("connect", f"the certificate is not trusted: {error.certificate_error}") from None
        except aiohttp.ClientConnectorError as error:
            raise TransportError("connect", f"cannot connect: {error.strerror or type(error).__name__}") from None
        except aiohttp.ClientHttpProxyError as error:
            raise TransportError("connect", f"the proxy answered {error.status} {error.message}") from None
        except aiohttp.ServerDisconnectedError:
            raise TransportError("read", "the server closed the connection without an answer") from None
        except aiohttp.ClientPayloadError:
            raise TransportError("read", "the answer was cut short") from None
        except (aiohttp.ClientError, OSError) as error:
            words = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise TransportError("read", f"the connection failed: {words}") from None

    def _late(self, error: BaseException) -> str:
        import aiohttp

        if isinstance(error, aiohttp.SocketTimeoutError):
            return f"no byte came for {self._timeout:g} s"
        return f"the request took longer than {self._total:g} s"

    async def close(self) -> None:
        """Close the session and its connections; a later request would open a new one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
