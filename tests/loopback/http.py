"""A small HTTP/1.1 server on asyncio's protocols: as little CPU as a mock can use, and every bad habit of a network.

One connection answers one request at a time and stays open. A handler returns a Response, a Stream or a Fault of
the wire (cut, reset, silence). The handler is cancelled when its client goes away. Not for the open internet.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

MOST_HEADER_BYTES = 64 * 1024
MOST_BODY_BYTES = 256 * 1024 * 1024

REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class HttpRequest:
    """A request as it came: header names in lower case, the path unquoted."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    peer: int
    """Number of the connection, counted from 1."""


@dataclass(slots=True)
class Response:
    """A whole reply. ``body`` may come in pieces that are written as they are."""

    status: int = 200
    body: bytes | list[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(slots=True)
class Stream:
    """A reply in chunks."""

    chunks: AsyncIterator[bytes]
    status: int = 200
    content_type: str = "text/event-stream; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Reset:
    """The connection is reset; ``after`` is a reply of which half is sent before (else nothing is)."""

    after: Response | None = None


@dataclass(slots=True)
class Cut:
    """The reply's length is announced in full, half of it comes, then the connection is closed."""

    response: Response


@dataclass(slots=True)
class Silence:
    """Not one byte, until the client goes away."""


Answer: TypeAlias = Response | Stream | Reset | Cut | Silence
Handler: TypeAlias = Callable[[HttpRequest], Awaitable[Answer]]


class Connection(asyncio.Protocol):
    """One connection: reads requests, calls the handler, writes its answer."""

    opened = 0

    def __init__(self, handler: Handler, on_bytes: Callable[[int, int], None]) -> None:
        self.handler = handler
        self.on_bytes = on_bytes
        self.buffer = bytearray()
        self.transport: asyncio.Transport
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        Connection.opened += 1
        self.number = Connection.opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=8 * 1024 * 1024)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.on_bytes(len(data), 0)
        self.buffer += data
        if self.task is None:
            self._next()

    def _next(self) -> None:
        """Start on the next request if it is here in full."""
        try:
            parsed = parse_request(self.buffer, self.number)
        except ValueError as error:
            self._write_response(Response(400, str(error).encode(), content_type="text/plain"), close=True)
            return
        if parsed is None:
            return
        request, used = parsed
        del self.buffer[:used]
        self.task = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: HttpRequest) -> None:
        whole = False
        try:
            whole = await self._respond(request)
        finally:
            # A handler that raises has answered nothing: better a broken connection than a client that waits.
            if not whole:
                self.transport.abort()
        self.task = None
        if self.buffer and not self.transport.is_closing():
            self._next()

    async def _respond(self, request: HttpRequest) -> bool:
        """Answer one request; True if the connection can take another."""
        answer = await self.handler(request)
        close = request.headers.get("connection", "").lower() == "close"
        match answer:
            case Response():
                self._write_response(answer, close=close, head_only=request.method == "HEAD")
            case Stream():
                await self._write_stream(answer)
            case Cut(response):
                whole = b"".join(render(response, close=False))
                self._write([whole[: len(whole) - max(1, body_length(response) // 2)]])
                close = True
            case Reset(after):
                if after is not None:
                    whole = b"".join(render(after, close=False))
                    self._write([whole[: len(whole) // 2]])
                    await asyncio.sleep(0.005)
                self._reset()
            case Silence():
                await asyncio.Event().wait()
        if close:
            self.transport.close()
        return True

    def _write(self, pieces: list[bytes]) -> None:
        self.on_bytes(0, sum(map(len, pieces)))
        if not self.transport.is_closing():
            self.transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _write_response(self, response: Response, close: bool, head_only: bool = False) -> None:
        pieces = render(response, close)
        self._write(pieces[:1] if head_only else pieces)
        if close:
            self.transport.close()

    async def _write_stream(self, stream: Stream) -> None:
        self._write([head(stream.status, stream.content_type, {"Transfer-Encoding": "chunked", **stream.headers})])
        async for chunk in stream.chunks:
            await self.writable.wait()
            self._write([b"%x\r\n%b\r\n" % (len(chunk), chunk)])
        self._write([b"0\r\n\r\n"])

    def _reset(self) -> None:
        # Without lingering the kernel sends RST rather than FIN.
        handle: socket.socket = self.transport.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def parse_request(buffer: bytearray, peer: int) -> tuple[HttpRequest, int] | None:
    """The first request in the buffer and its length in bytes; None while it is not complete.

    Raises ValueError for what is no HTTP request.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MOST_HEADER_BYTES:
            raise ValueError("headers too long")
        return None
    lines = buffer[:end].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise ValueError("not an HTTP/1.1 request")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    start = end + 4
    if headers.get("transfer-encoding", "").lower() == "chunked":
        chunked = parse_chunks(buffer, start)
        if chunked is None:
            return None
        body, used = chunked
    else:
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= MOST_BODY_BYTES:
            raise ValueError("body too long")
        used = start + length
        if len(buffer) < used:
            return None
        body = bytes(memoryview(buffer)[start:used])
    target = words[1]
    if "?" in target or "%" in target:
        parts = urlsplit(target)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query, keep_blank_values=True))
    else:
        path, query = target, {}
    return HttpRequest(words[0], path, query, headers, body, peer), used


def parse_chunks(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    """A chunked body from ``start`` and the index behind it; None while it is not complete."""
    body = bytearray()
    while True:
        line = buffer.find(b"\r\n", start)
        if line < 0:
            return None
        size = int(bytes(buffer[start:line]).split(b";")[0], 16)
        if len(body) + size > MOST_BODY_BYTES:
            raise ValueError("body too long")
        start = line + 2
        if len(buffer) < start + size + 2:
            return None
        body += buffer[start : start + size]
        start += size + 2
        if size == 0:
            return bytes(body), start


_date = (0, "")


def http_date() -> str:
    """The date header's value, made once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, email.utils.formatdate(now, usegmt=True))
    return _date[1]


def head(status: int, content_type: str, headers: Mapping[str, str]) -> bytes:
    """The status line and the headers."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, '')}", f"Date: {http_date()}", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def body_length(response: Response) -> int:
    """Length of the body in bytes."""
    return len(response.body) if isinstance(response.body, bytes) else sum(map(len, response.body))


def render(response: Response, close: bool) -> list[bytes]:
    """Head and body as they go over the wire; a Content-Length given in the headers (HEAD replies) is kept."""
    headers = dict(response.headers)
    headers.setdefault("Content-Length", str(body_length(response)))
    if close:
        headers["Connection"] = "close"
    pieces = [response.body] if isinstance(response.body, bytes) else response.body
    return [head(response.status, response.content_type, headers), *pieces]


@contextlib.asynccontextmanager
async def serving(
    handler: Handler, host: str, port: int, on_bytes: Callable[[int, int], None]
) -> AsyncIterator[tuple[str, int]]:
    """Listen; yields host and port. ``on_bytes(received, sent)`` is told of all traffic."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(handler, on_bytes), host, port, backlog=2048)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
