"""The engine against the loopback server: every request ends once, faults are retried, nothing is asked twice."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ares_eval.inference.cache import Cache
from ares_eval.inference.engine import Engine, EngineOptions
from ares_eval.inference.transport import Endpoint, Transport
from ares_eval.types import Failure, Reply, Request, Sampling, WireMessage
from tests import loopback

TRANSPORTS = ["aiohttp", "openai"]


def request(number: int, draw: int = 0, **sampling: Any) -> Request:
    text = f"What is {number} + {number}?"
    key = hashlib.sha256(f"{number}/{draw}/{sorted(sampling.items())}".encode()).hexdigest()
    return Request("t", str(number), draw, (WireMessage("user", (text,)),), Sampling(**sampling), key)


def transport(kind: str, endpoint: Endpoint, timeout: float) -> Transport:
    if kind == "openai":
        from ares_eval.inference.transport_openai import OpenAITransport

        return OpenAITransport(endpoint, connections=64, timeout=timeout)
    from ares_eval.inference.transport_aiohttp import AiohttpTransport

    return AiohttpTransport(endpoint, connections=64, timeout=timeout)


@contextmanager
def engine(
    url: str, kind: str = "aiohttp", *, timeout: float = 30.0, cache: Cache | None = None, **options: Any
) -> Iterator[Engine]:
    endpoint = Endpoint(url, "sk-test-secret-key")
    with Engine(
        "m",
        lambda: transport(kind, endpoint, timeout),
        EngineOptions(secrets=endpoint.secrets(), **options),
        cache=cache,
    ) as made:
        yield made


def outcomes(pairs: Iterator[tuple[Request, Reply | Failure]]) -> dict[tuple[str, int], Reply | Failure]:
    found: dict[tuple[str, int], Reply | Failure] = {}
    for asked, outcome in pairs:
        assert (asked.sample, asked.draw) not in found
        found[asked.sample, asked.draw] = outcome
    return found


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_every_request_gets_its_own_reply(kind: str) -> None:
    answers = {f"What is {n} + {n}?": str(2 * n) for n in range(200)}
    with loopback.start(answers=answers) as server, engine(server.url, kind, threads=32) as asks:
        found = outcomes(asks.run(request(n) for n in range(200)))
        assert server.stats()["most_in_flight"] <= 32
    assert len(found) == 200
    for (sample, _), reply in found.items():
        assert isinstance(reply, Reply)
        assert f"boxed{{{2 * int(sample)}}}" in reply.text
        assert reply.attempts == 1
        assert reply.latency > 0


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("stream", [False, True])
def test_faults_are_retried_and_never_become_replies(kind: str, stream: bool) -> None:
    faults = ["429=0.1", "500=0.05", "reset=0.02", "empty=0.02", "malformed=0.02", "hang=0.01"]
    answers = {f"What is {n} + {n}?": str(2 * n) for n in range(300)}
    with (
        loopback.start(answers=answers, fault=faults, retry_after=0.05) as server,
        engine(server.url, kind, threads=32, max_retries=8, timeout=1.5) as asks,
    ):
        found = outcomes(asks.run(request(n, stream=stream) for n in range(300)))
        stats = server.stats(bodies=True)
    assert all(isinstance(reply, Reply) and f"{{{2 * int(n)}}}" in reply.text for (n, _), reply in found.items())
    assert len(found) == 300
    assert stats["asked_after_good"] == 0


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_a_server_that_only_fails_ends_the_run(kind: str) -> None:
    with loopback.start(fault=["500=1"]) as server, engine(server.url, kind, threads=8, max_retries=1) as asks:
        found = outcomes(asks.run(request(n) for n in range(500)))
    assert asks.fatal is not None
    assert asks.fatal.cause == "server"
    assert len(found) < 100
    assert all(isinstance(outcome, Failure) for outcome in found.values())


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_a_refused_key_stops_the_run_at_once_without_showing_it(kind: str) -> None:
    with loopback.start(api_key="right") as server, engine(server.url, kind, threads=4) as asks:
        found = outcomes(asks.run(request(n) for n in range(100)))
        assert server.stats()["requests"] <= 8
    assert asks.fatal is not None
    assert asks.fatal.status == 401
    assert "sk-test" not in str(asks.fatal)
    assert not any(isinstance(outcome, Reply) for outcome in found.values())


def test_an_unknown_model_stops_the_run_with_the_servers_words() -> None:
    with loopback.start(model="another") as server, engine(server.url) as asks:
        outcomes(asks.run(request(n) for n in range(50)))
    assert asks.fatal is not None
    assert asks.fatal.status == 404
    assert "m" in asks.fatal.message


def test_a_refused_parameter_is_renamed_or_dropped_once_and_recorded() -> None:
    with (
        loopback.start(unsupported="max_tokens,temperature") as server,
        engine(server.url, threads=4) as asks,
    ):
        found = outcomes(asks.run(request(n) for n in range(40)))
        requests = server.stats()["requests"]
    assert all(isinstance(outcome, Reply) for outcome in found.values())
    assert asks.changes.renamed == {"max_tokens"}
    assert asks.changes.dropped == {"temperature"}
    assert requests <= 40 + 2 * 4


def test_max_tokens_is_lowered_to_what_fits() -> None:
    with loopback.start(context=512, dialect="vllm") as server, engine(server.url, threads=2) as asks:
        found = outcomes(asks.run(request(n, max_tokens=4096) for n in range(6)))
    assert all(isinstance(outcome, Reply) for outcome in found.values())
    assert len(asks.lowered) == 6
    assert all(0 < tokens < 512 for tokens in asks.lowered.values())


def test_the_cache_answers_the_second_time(tmp_path: Path) -> None:
    with loopback.start() as server, closing(Cache(tmp_path)) as cache:
        with engine(server.url, cache=cache) as asks:
            first = outcomes(asks.run(request(n, draw) for n in range(20) for draw in range(2)))
        before = server.stats()["requests"]
        with engine(server.url, cache=cache) as asks:
            second = outcomes(asks.run(request(n, draw) for n in range(20) for draw in range(2)))
        assert server.stats()["requests"] == before == 40
    texts = [{name: outcome.text for name, outcome in run.items()} for run in (first, second)]  # type: ignore[union-attr]
    assert texts[0] == texts[1]
    assert all(isinstance(outcome, Reply) and outcome.cached for outcome in second.values())


def test_equal_requests_are_asked_once() -> None:
    with loopback.start(latency=0.1) as server, engine(server.url, threads=16) as asks:
        pairs = list(asks.run(request(n % 3) for n in range(12)))
        assert server.stats()["requests"] == 3
    assert Counter(asked.sample for asked, _ in pairs) == {"0": 4, "1": 4, "2": 4}


def test_two_processes_with_the_same_requests_send_each_once(tmp_path: Path) -> None:
    """Two caches on one folder stand for two processes: their claims are those of two open files."""
    results: list[dict[tuple[str, int], Reply | Failure]] = []

    def work(url: str) -> None:
        with closing(Cache(tmp_path)) as cache, engine(url, threads=8, cache=cache) as asks:
            results.append(outcomes(asks.run(request(n) for n in range(60))))

    with loopback.start(latency=0.02) as server:
        workers = [threading.Thread(target=work, args=(server.url,)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert server.stats()["requests"] == 60
    assert [len(found) for found in results] == [60, 60]
    assert all(isinstance(outcome, Reply) for found in results for outcome in found.values())


def test_failures_are_not_cached(tmp_path: Path) -> None:
    with closing(Cache(tmp_path)) as cache:
        with loopback.start(fault=["malformed=1"]) as server, engine(server.url, cache=cache, max_retries=0) as asks:
            outcomes(asks.run(request(n) for n in range(4)))
        assert cache.stats().entries == 0
        with loopback.start() as server, engine(server.url, cache=cache) as asks:
            found = outcomes(asks.run(request(n) for n in range(4)))
    assert all(isinstance(outcome, Reply) for outcome in found.values())


def test_draining_waits_for_what_is_in_flight_and_sends_no_more() -> None:
    with loopback.start(latency=0.3) as server, engine(server.url, threads=4) as asks:
        found = 0
        for _ in asks.run(request(n) for n in range(100)):
            found += 1
            asks.drain()
        assert server.stats()["requests"] == found <= 8


def test_retry_after_delays_that_request_only() -> None:
    with (
        loopback.start(fault_when=["What is 0 + 0?=429"], retry_after=1.5, latency=0.01) as server,
        engine(server.url, threads=2) as asks,
    ):
        asks._options = EngineOptions(threads=2, total=4.0)
        order = []
        began = time.monotonic()
        for asked, outcome in asks.run(request(n) for n in range(40)):
            order.append((asked.sample, type(outcome), time.monotonic() - began))
    assert order[-1][:2] == ("0", Failure)
    assert all(kind is Reply and when < 1.4 for _, kind, when in order[:-1])


def test_log_probs_that_were_asked_for_and_not_given_are_an_error() -> None:
    with loopback.start(no_logprobs=True) as server, engine(server.url) as asks:
        found = outcomes(asks.run(request(n, logprobs=5) for n in range(3)))
    assert {outcome.cause for outcome in found.values() if isinstance(outcome, Failure)} == {"no_logprobs"}
    assert asks.fatal is not None


@pytest.mark.parametrize("dialect", ["openai", "vllm", "llamacpp", "lmdeploy"])
@pytest.mark.parametrize("stream", [False, True])
def test_log_probs_of_every_dialect(dialect: str, stream: bool) -> None:
    with (
        loopback.start(dialect=dialect, logprobs_mode=True, tokens=30) as server,
        engine(server.url) as asks,
    ):
        asks.vocabulary = 50_000
        found = outcomes(asks.run(request(n, logprobs=10, stream=stream) for n in range(5)))
    for reply in found.values():
        assert isinstance(reply, Reply), reply
        trace = reply.trace
        assert trace is not None
        assert len(trace.tokens) == len(trace.entropy_low) == len(trace.entropy_high) == len(trace.tail)
        assert (trace.entropy_low <= trace.entropy_high + 1e-4).all()
        assert (trace.tail >= 0).all()
        shown = trace.tokens[:-1] if trace.end else trace.tokens
        assert "".join(shown) in (reply.text, reply.reasoning)
