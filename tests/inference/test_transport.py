"""Both transports against a server that says exactly the bytes it is told to: they differ in nothing that counts."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_eval.inference import transport_aiohttp, transport_openai
from ares_eval.inference.transport import Endpoint, TransportError, environment_proxy, normalise_base_url
from ares_eval.inference.transport_aiohttp import AiohttpTransport
from ares_eval.inference.transport_openai import OpenAITransport

KEY = "sk-test-0123456789"
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "é?"}], "top_k": 3}).encode()
REPLY = b'{"choices": [{"message": {"content": "4"}}]}'

Action = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Heard:
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Bytes:
    """A server that keeps what it hears and then does what ``action`` says."""

    action: Action
    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    serving: set[asyncio.Task] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                raw = dict(line.split(": ", 1) for line in head[1:] if line)
                headers |= {name.lower(): value for name, value in raw.items()}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.heard.append(Heard(head[0], headers, body))
                await self.action(writer)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(action: Action) -> AsyncIterator[Bytes]:
    made = Bytes(action)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        server.close()
        for task in made.serving:
            task.cancel()
        await asyncio.gather(*made.serving)


def says(status: int = 200, body: bytes = REPLY, kind: str = "application/json", **headers: str) -> Action:
    head = {"content-type": kind, "content-length": str(len(body))} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    data = f"HTTP/1.1 {status} Words\r\n" + "".join(f"{name}: {value}\r\n" for name, value in head.items()) + "\r\n"

    async def action(writer: asyncio.StreamWriter) -> None:
        writer.write(data.encode() + body)

    return action


def raw(*pieces: bytes | float, close: bool = False, reset: bool = False) -> Action:
    """Bytes, and pauses in seconds, as they are; then perhaps the end of the connection."""

    async def action(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                writer.write(piece)
                await writer.drain()
        if reset:
            writer.transport.abort()
        elif close:
            writer.close()

    return action


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


@pytest.fixture(params=[AiohttpTransport, OpenAITransport], ids=["aiohttp", "openai"])
def kind(request):
    if request.param is OpenAITransport:
        pytest.importorskip("openai")
    return request.param


@contextlib.asynccontextmanager
async def opened(kind, url: str, key: str | None = KEY, **options):
    more = {"environ": {}} if kind is OpenAITransport and "environ" not in options else {}
    made = kind(Endpoint(url, key), **{"connections": 4, "timeout": 5.0} | more | options)
    try:
        yield made
    finally:
        await made.close()


def fault(kind, action: Action, **options) -> TransportError:
    async def run() -> TransportError:
        async with serving(action) as server, opened(kind, server.url, **options) as transport:
            with pytest.raises(TransportError) as caught:
                await transport.post_chat(BODY)
            return caught.value

    error = asyncio.run(run())
    assert KEY not in str(error)
    assert str(error)
    return error


# ---------------------------------------------------------------- good answers


def test_request_and_answer(kind):
    async def run():
        async with serving(says(201, x_Request_Id="r1")) as server, opened(kind, server.url + "/") as transport:
            return await transport.post_chat(BODY), server.heard

    answer, heard = asyncio.run(run())
    assert (answer.status, answer.body) == (201, REPLY)
    assert answer.headers["x-request-id"] == "r1"
    assert heard[0].line == "POST /v1/chat/completions HTTP/1.1"
    assert json.loads(heard[0].body) == json.loads(BODY)
    assert heard[0].headers["authorization"] == f"Bearer {KEY}"
    assert heard[0].headers["content-type"] == "application/json"
    assert heard[0].headers["user-agent"].startswith("ares-eval/")


def test_no_key_no_authorization(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-server")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))

    async def run():
        async with serving(says()) as server, opened(kind, server.url, key=None) as transport:
            await transport.post_chat(BODY)
            return server.heard

    assert "authorization" not in asyncio.run(run())[0].headers


def test_connections_are_kept_alive(kind):
    async def run():
        async with serving(says()) as server, opened(kind, server.url) as transport:
            for _ in range(10):
                await transport.post_chat(BODY)
            return server.connections

    assert asyncio.run(run()) == 1


def test_as_many_connections_as_asked_for(kind):
    """Nobody is answered before all have asked: a hidden cap below 150 would hang."""

    async def run():
        everybody = asyncio.Barrier(150)

        async def action(writer):
            await everybody.wait()
            await says()(writer)

        async with serving(action) as server, opened(kind, server.url, connections=150) as transport:
            await asyncio.gather(*(transport.post_chat(BODY) for _ in range(150)))
            return server.connections

    assert asyncio.run(run()) == 150


def test_compressed_answer(kind):
    action = says(body=gzip.compress(REPLY * 1000), content_encoding="gzip")

    async def run():
        async with serving(action) as server, opened(kind, server.url) as transport:
            return await transport.post_chat(BODY)

    assert asyncio.run(run()).body == REPLY * 1000


def test_large_body_goes_whole_and_without_warning(kind):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 3_000_000}]}).encode()

    async def run():
        async with serving(says()) as server, opened(kind, server.url) as transport:
            await transport.post_chat(body)
            return server.heard

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert json.loads(asyncio.run(run())[0].body) == json.loads(body)


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 503])
def test_other_statuses_are_answers(kind, status):
    action = says(status, b'{"error": {"message": "no"}}', Retry_After="7", location="/elsewhere")

    async def run():
        async with serving(action) as server, opened(kind, server.url) as transport:
            return await transport.post_chat(BODY), len(server.heard)

    answer, asked = asyncio.run(run())
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (status, b'{"error": {"message": "no"}}', "7")
    assert asked == 1


# ---------------------------------------------------------------- faults of the way


def test_nobody_listens(kind):
    async def run():
        async with serving(says()) as server:
            url = server.url
        async with opened(kind, url) as transport:
            with pytest.raises(TransportError) as caught:
                await transport.post_chat(BODY)
            return caught.value.kind

    assert asyncio.run(run()) == "connect"


@pytest.mark.parametrize(
    "action",
    [
        raw(reset=True),
        raw(close=True),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", close=True),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", reset=True),
        raw(CHUNKED + chunks(b"abc"), close=True),
        raw(b"rubbish\r\n\r\n", close=True),
        raw(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope"),
    ],
    ids=["reset", "closed", "cut body", "reset body", "cut chunks", "no HTTP", "broken gzip"],
)
def test_cut_answers(kind, action):
    assert fault(kind, action).kind == "read"


def test_silence(kind):
    assert fault(kind, raw(60.0), timeout=0.2).kind == "timeout"


def test_silence_in_the_middle(kind):
    assert fault(kind, raw(CHUNKED + chunks(b"abc"), 60.0), timeout=0.2).kind == "timeout"


def test_a_drip_ends_at_the_total(kind):
    drip = [piece for _ in range(50) for piece in (chunks(b"."), 0.05)]
    assert fault(kind, raw(CHUNKED, *drip), timeout=5.0, total=0.3).kind == "timeout"


def test_answers_are_bounded(kind, monkeypatch):
    monkeypatch.setattr(transport_aiohttp, "MAX_ANSWER_BYTES", 2**20)
    monkeypatch.setattr(transport_openai, "MAX_ANSWER_BYTES", 2**20)
    bomb = gzip.compress(bytes(3 * 2**20))
    assert fault(kind, says(body=bomb, content_encoding="gzip")).kind == "read"


def test_a_connection_that_was_closed_meanwhile_is_replaced(kind):
    async def run():
        closing = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", close=True)
        async with serving(closing) as server, opened(kind, server.url) as transport:
            for _ in range(3):
                await transport.post_chat(BODY)
                await asyncio.sleep(0.02)
            return server.connections

    assert asyncio.run(run()) == 3


# ---------------------------------------------------------------- streams


def test_stream_is_fed_as_it_comes(kind):
    fed: list[bytes] = []

    async def run():
        seen = asyncio.Event()

        async def action(writer):
            writer.write(CHUNKED + chunks(b"data: 1\n\n"))
            await seen.wait()
            writer.write(chunks(b"data: 2\n\n") + b"0\r\n\r\n")

        def feed(chunk: bytes) -> None:
            fed.append(chunk)
            seen.set()

        async with serving(action) as server, opened(kind, server.url) as transport:
            return await transport.stream_chat(BODY, feed)

    answer = asyncio.run(run())
    assert (answer.status, answer.body) == (200, b"")
    assert b"".join(fed) == b"data: 1\n\ndata: 2\n\n"
    assert len(fed) > 1


@pytest.mark.parametrize("action", [says(429, b"{}", "text/event-stream"), says(200, REPLY)])
def test_what_is_no_stream_is_not_fed(kind, action):
    fed: list[bytes] = []

    async def run():
        async with serving(action) as server, opened(kind, server.url) as transport:
            return await transport.stream_chat(BODY, fed.append)

    answer = asyncio.run(run())
    assert answer.body in (b"{}", REPLY)
    assert fed == []


def test_cut_stream(kind):
    fed: list[bytes] = []

    async def run():
        async with serving(raw(CHUNKED + chunks(b"abc"), close=True)) as server, opened(kind, server.url) as transport:
            await transport.stream_chat(BODY, fed.append)

    with pytest.raises(TransportError):
        asyncio.run(run())


def test_what_feed_raises_is_passed_on_and_the_next_request_works(kind):
    def feed(chunk: bytes) -> None:
        raise ZeroDivisionError

    async def run():
        stream = raw(CHUNKED + chunks(b"abc"), 0.01, chunks(b"def") + b"0\r\n\r\n")
        async with serving(stream) as server, opened(kind, server.url) as transport:
            with pytest.raises(ZeroDivisionError):
                await transport.stream_chat(BODY, feed)
            return await transport.post_chat(BODY)

    assert asyncio.run(run()).body == b"abcdef"


# ---------------------------------------------------------------- where it goes


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:8000/v1", "http://h:8000/v1"),
        ("http://h:8000/v1/", "http://h:8000/v1"),
        (" https://h/v1/chat/completions ", "https://h/v1"),
        ("https://h/v1/chat/completions/", "https://h/v1"),
        ("https://h", "https://h"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://h/api/v3/chat", "https://h/api/v3/chat"),
    ],
)
def test_base_urls(url, base):
    assert normalise_base_url(url) == base
    assert normalise_base_url(base) == base


@pytest.mark.parametrize(
    "url", ["", "  ", "h:8000/v1", "localhost", "ftp://h/v1", "http://", "http://h:port/v1", "http://h:99999/v1",
            "http://user:secret@h/v1", "http://h/v1?key=secret", "http://h/v1#x", "http://a b/v1", "http://[::1/v1"]
)  # fmt: skip
def test_nonsense_urls(url):
    with pytest.raises(ValueError, match="base URL") as caught:
        normalise_base_url(url)
    assert "secret" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_base_url_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        base = normalise_base_url(text)
        assert normalise_base_url(base) == base


def test_endpoint_shows_no_secret():
    endpoint = Endpoint("http://h/v1/chat/completions", f" {KEY}\n", {"x-token": "t0ken"})
    assert endpoint.base_url == "http://h/v1"
    assert endpoint.api_key == KEY
    assert KEY not in repr(endpoint)
    assert "t0ken" not in repr(endpoint)
    assert set(endpoint.secrets()) == {KEY, "t0ken"}


def test_key_that_fits_no_header():
    with pytest.raises(ValueError, match="key") as caught:
        Endpoint("http://h/v1", "geheim-ключ")
    assert "geheim" not in str(caught.value)


@pytest.fixture
def without_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_proxies_of_the_environment(without_proxies):
    env = without_proxies.setenv
    assert environment_proxy("https://h/v1") is None
    env("HTTPS_PROXY", "http://p:3128")
    assert environment_proxy("https://h/v1") == "http://p:3128"
    assert environment_proxy("http://h/v1") is None
    assert environment_proxy("https://localhost/v1") is None
    assert environment_proxy("https://127.0.0.1:8000/v1") is None
    env("ALL_PROXY", "q:80")
    assert environment_proxy("http://h/v1") == "http://q:80"
    env("NO_PROXY", "h,.example.org")
    assert environment_proxy("http://h:8000/v1") is None
    assert environment_proxy("http://a.example.org/v1") is None
    env("NO_PROXY", "")
    env("ALL_PROXY", "socks5://user:secret@q:80")
    with pytest.raises(ValueError, match="not supported") as caught:
        environment_proxy("http://h/v1")
    assert "secret" not in str(caught.value)


def test_requests_go_through_the_proxy(kind, without_proxies):
    async def run():
        async with serving(says()) as proxy:
            without_proxies.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1").replace("//", "//u:p@"))
            async with opened(kind, "http://model.invalid/v1") as transport:
                await transport.post_chat(BODY)
            return proxy.heard[0]

    heard = asyncio.run(run())
    assert heard.line.startswith("POST http://model.invalid/v1/chat/completions ")
    assert heard.headers["proxy-authorization"].startswith("Basic ")


def test_azure_by_its_environment():
    pytest.importorskip("openai")

    async def run(**env: str):
        async with serving(says()) as server:
            environ = {
                "AZURE_OPENAI_ENDPOINT": server.url.removesuffix("/v1"),
                "OPENAI_API_VERSION": "2026-01-01",
            } | env
            async with opened(OpenAITransport, "http://unused.invalid/v1", environ=environ) as transport:
                await transport.post_chat(BODY)
            return server.heard[0]

    heard = asyncio.run(run())
    assert heard.line == "POST /openai/deployments/m/chat/completions?api-version=2026-01-01 HTTP/1.1"
    assert heard.headers["api-key"] == KEY
    assert asyncio.run(run(AZURE_OPENAI_API_KEY="azure-key")).headers["api-key"] == "azure-key"
    assert asyncio.run(run(AZURE_OPENAI_AD_TOKEN="azure-token")).headers["authorization"] == "Bearer azure-token"


def test_azure_without_a_key():
    pytest.importorskip("openai")
    environ = {"AZURE_OPENAI_ENDPOINT": "http://a.invalid", "OPENAI_API_VERSION": "1"}
    with pytest.raises(ValueError, match="AZURE_OPENAI_API_KEY"):
        OpenAITransport(Endpoint("http://h/v1"), connections=1, timeout=1.0, environ=environ)
