"""Faults come by seed, body and try, never by the order of arrival; and each looks on the wire as it should."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.loopback.faults import AT_ONCE, KINDS, fault_plan
from tests.loopback.limits import Bucket


def body(number: int = 0, **more) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": f"What is {number} + 1?"}], **more}


async def _ask(url: str, bodies: list[dict], timeout: float = 5.0) -> list[tuple[int | str, bytes, dict]]:
    """Status, bytes and headers of each reply; the error's name where there is none."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=timeout)) as session:

        async def one(asked: dict) -> tuple[int | str, bytes, dict]:
            try:
                async with session.post(f"{url}/chat/completions", json=asked) as reply:
                    return reply.status, await reply.read(), dict(reply.headers)
            except (aiohttp.ClientError, TimeoutError) as error:
                return type(error).__name__, b"", {}

        return await asyncio.gather(*map(one, bodies))


def ask(url: str, bodies: list[dict], timeout: float = 5.0) -> list[tuple[int | str, bytes, dict]]:
    return asyncio.run(_ask(url, bodies, timeout))


@given(st.integers(0, 99), st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=30, unique=True))
def test_decisions_do_not_depend_on_order(seed, asked):
    plan = fault_plan(seed, ["429=0.2", "500=0.2", "reset=0.1"], "", [])
    there = {each: [plan.decide(each, attempt) for attempt in range(3)] for each in asked}
    back = {each: [plan.decide(each, attempt) for attempt in range(3)] for each in reversed(asked)}
    assert there == back


def test_rates_are_met():
    plan = fault_plan(3, ["429=0.10", "500=0.05", "hang=0.01"], "", [])
    decided = [plan.decide(number.to_bytes(4, "big"), 0) for number in range(20_000)]
    assert decided.count("429") / 20_000 == pytest.approx(0.10, abs=0.01)
    assert decided.count("500") / 20_000 == pytest.approx(0.05, abs=0.007)
    assert decided.count("hang") / 20_000 == pytest.approx(0.01, abs=0.004)


@pytest.mark.parametrize("rates", [["burp=0.1"], ["429=0.7", "500=0.6"]])
def test_impossible_plans_are_refused(rates):
    with pytest.raises(ValueError, match=r"unknown fault|more than 1"):
        fault_plan(0, rates, "", [])


def test_every_kind_on_the_wire(start_loopback):
    """Each kind by a text in the prompt, so that one server shows them all."""
    kinds = [kind for kind in KINDS if kind not in ("hang",)]
    server = start_loopback(fault_when=[f"[{kind}]={kind}" for kind in KINDS], drip_pause=0.01, retry_after=1.5)
    asked = [{"model": "m", "messages": [{"role": "user", "content": f"[{kind}] 1 + 1"}]} for kind in kinds]
    seen = dict(zip(kinds, ask(server.url, asked), strict=True))
    status = {kind: reply[0] for kind, reply in seen.items()}
    assert {kind for kind, code in status.items() if code == 429} == {"429", "429-date", "429-bare", "quota"}
    for kind in ("401", "403", "408", "409", "500", "503"):
        assert status[kind] == int(kind)
    assert seen["429"][2]["Retry-After"] == "1.5"
    assert "Retry-After" not in seen["429-bare"][2]
    until = email.utils.parsedate_to_datetime(seen["503-date"][2]["Retry-After"]).timestamp() - time.time()
    assert -1 < until < 3
    assert json.loads(seen["quota"][1])["error"]["code"] == "insufficient_quota"
    assert json.loads(seen["no-model"][1])["error"]["code"] == "model_not_found"
    assert json.loads(seen["filter-400"][1])["error"]["code"] == "content_filter"
    assert status["502-html"] == 502
    assert seen["502-html"][1].startswith(b"<html>")
    assert {status["reset"], status["reset-mid"]} <= {"ClientOSError", "ServerDisconnectedError", "ClientPayloadError"}
    assert status["truncated"] == "ClientPayloadError"
    assert seen["empty-body"][:2] == (200, b"")
    with pytest.raises(json.JSONDecodeError):
        json.loads(seen["malformed"][1])
    empty = json.loads(seen["empty"][1])
    assert (empty["choices"][0]["message"]["content"], empty["usage"]["completion_tokens"]) == ("", 0)
    assert json.loads(seen["filter"][1])["choices"][0]["finish_reason"] == "content_filter"
    assert "\\boxed{2}" in json.loads(seen["drip"][1])["choices"][0]["message"]["content"]
    stats = server.stats()
    assert stats["faults"] == dict.fromkeys(kinds, 1)
    assert stats["good"] == 1
    assert stats["in_flight"] == 0


def test_silence_until_the_client_goes(start_loopback):
    server = start_loopback(fault_when=["1 + 1=hang"])
    assert "hang" in AT_ONCE
    assert ask(server.url, [body(1)], timeout=0.2)[0][0] in ("SocketTimeoutError", "ServerTimeoutError")
    assert server.stats()["in_flight"] == 0


def test_script_then_good_and_asked_again(start_loopback):
    server = start_loopback(script="500,429,good")
    codes = [ask(server.url, [body()])[0][0] for _ in range(4)]
    assert codes == [500, 429, 200, 200]
    stats = server.stats(bodies=True)
    assert stats["asked_after_good"] == 1
    assert list(stats["bodies"].values()) == [{"asked": 4, "good": 2}]
    server.reset()
    assert server.stats()["requests"] == 0


def test_faults_are_the_same_on_another_day(start_loopback):
    """The same bodies meet the same faults whatever runs beside them."""
    bodies = [body(number) for number in range(60)]
    options = {"fault": ["500=0.3", "429=0.2"], "fault_seed": 7}
    one = [reply[0] for reply in ask(start_loopback(**options).url, bodies)]
    two = [reply[0] for reply in ask(start_loopback(**options).url, bodies[::-1])][::-1]
    assert one == two
    assert {200, 429, 500} == set(one)


def test_rate_limit_lets_the_burst_through(start_loopback):
    server = start_loopback(rate=1, burst=10, retry_after=0.2)
    codes = [reply[0] for reply in ask(server.url, [body(number) for number in range(30)])]
    assert codes.count(200) in (10, 11)
    assert codes.count(429) == 30 - codes.count(200) == server.stats()["rate_limited"]


def test_bucket_fills_at_its_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("tests.loopback.limits.time.monotonic", lambda: now[0])
    bucket = Bucket(rate=10, burst=5)
    taken = sum(bucket.take() for _ in range(20))
    for _ in range(100):
        now[0] += 0.01
        taken += bucket.take()
    assert taken == 5 + 10


def test_capacity_queues_and_overload_refuses(start_loopback):
    queueing = start_loopback(latency=0.02, capacity=2)
    assert [reply[0] for reply in ask(queueing.url, [body(number) for number in range(10)])] == [200] * 10
    assert queueing.stats()["span"] >= 5 * 0.02
    full = start_loopback(latency=0.2, overload=4)
    codes = [reply[0] for reply in ask(full.url, [body(number) for number in range(10)])]
    assert (codes.count(200), codes.count(503)) == (4, 6)
