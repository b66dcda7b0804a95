"""The loopback's HTTP: what a client may send, in whatever pieces, is read right."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import loopback
from tests.loopback.http import parse_request


@pytest.fixture(scope="module")
def server():
    with loopback.start() as running:
        yield running


def talk(server: loopback.Server, *pieces: bytes) -> bytes:
    """Send the pieces one by one, read until the server closes or says no more."""
    address = urlsplit(server.root)
    with socket.create_connection((address.hostname, address.port), timeout=2) as wire:
        for piece in pieces:
            wire.sendall(piece)
        received = b""
        while piece := wire.recv(65536):
            received += piece
        return received


LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_requests_behind_each_other_on_one_connection(server):
    received = talk(server, b"GET /health HTTP/1.1\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n" + LAST)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert received.index(b'"status"') < received.index(b'"list"') < received.rindex(b'"status"')


def test_a_body_in_chunks_and_crumbs(server):
    body = b'{"model": "m", "messages": [{"role": "user", "content": "What is 17 + 25?"}]}'
    chunks = b"".join(b"%x;x=1\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:50], body[50:]))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    whole = head + chunks + b"0\r\n\r\n"
    crumbs = [whole[start : start + 11] for start in range(0, len(whole), 11)]
    assert rb"\\boxed{42}" in talk(server, *crumbs)


def test_what_is_no_http(server):
    assert talk(server, b"HELLO\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert talk(server, b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert talk(server, b"A" * 70_000).startswith(b"HTTP/1.1 400")


@given(st.binary(max_size=40), st.integers(0, 200))
def test_a_request_is_read_when_it_is_whole(body, cut):
    whole = (
        b"POST /a%20b?c=d%26 HTTP/1.1\r\nX-Y:  z \r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    part = whole[: min(cut, len(whole) - 1)]
    assert parse_request(bytearray(part), 1) is None
    request, used = parse_request(bytearray(whole + b"next"), 1)
    assert used == len(whole)
    assert (request.method, request.path, request.query, request.body) == ("POST", "/a b", {"c": "d&"}, body)
    assert request.headers["x-y"] == "z"
