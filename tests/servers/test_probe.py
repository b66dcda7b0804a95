"""The capability probe against the loopback server's dialects, against servers that lie, and against none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ares_eval.inference import probe
from ares_eval.inference.servers.process import free_port
from ares_eval.inference.transport import Endpoint
from tests import loopback

Start = Callable[..., loopback.Server]


def endpoint(server: loopback.Server, key: str | None = None) -> Endpoint:
    return Endpoint(server.url, key)


@pytest.mark.parametrize(
    ("dialect", "family", "top"),
    [("openai", None, 20), ("vllm", "vllm", 20), ("llamacpp", "llama.cpp", 200), ("lmdeploy", "lmdeploy", 20)],
)
def test_dialects(start_loopback: Start, dialect: str, family: str | None, top: int) -> None:
    found = probe.probe(endpoint(start_loopback(dialect=dialect, logprobs_mode=True)))
    assert found.reachable and found.chat and found.listed
    assert found.models == ("m",)
    assert found.family == family
    assert found.pictures is True
    assert found.top_logprobs == top
    assert found.raw_logprobs is True
    assert found.n is True
    assert found.error is None


@pytest.mark.parametrize("dialect", ["openai", "vllm", "llamacpp", "lmdeploy"])
def test_a_server_that_takes_no_pictures(start_loopback: Start, dialect: str) -> None:
    server = start_loopback(dialect=dialect, text_only=True)
    assert probe.meet(endpoint(server), "m", pictures=True).pictures is False
    assert probe.meet(endpoint(server), "m", pictures=False).pictures is None
    assert probe.probe(endpoint(server)).pictures is False


def test_the_quick_look_asks_no_chat_where_no_pictures_will_be_sent(start_loopback: Start) -> None:
    server = start_loopback()
    found = probe.meet(endpoint(server), "m", pictures=False)
    assert found.reachable and found.listed
    assert found.chat is None
    assert server.stats()["requests"] == 0


def test_no_logprobs(start_loopback: Start) -> None:
    assert probe.probe(endpoint(start_loopback(no_logprobs=True))).top_logprobs == 0
    # lmdeploy refuses them unless it was started with its flag.
    assert probe.probe(endpoint(start_loopback(dialect="lmdeploy"))).top_logprobs == 0


@pytest.mark.parametrize(
    ("reasoning", "field"),
    [("none", None), ("reasoning_content",) * 2, ("reasoning",) * 2, ("think", "<think> in content")],
)
def test_where_reasoning_goes(start_loopback: Start, reasoning: str, field: str | None) -> None:
    assert probe.probe(endpoint(start_loopback(reasoning=reasoning))).reasoning_field == field


def test_refused_parameters_are_found_and_left_out(start_loopback: Start) -> None:
    found = probe.probe(endpoint(start_loopback(unsupported="max_tokens,temperature")))
    assert found.chat is True
    assert set(found.refused) == {"max_tokens", "temperature"}
    assert found.top_logprobs == 20


def test_the_context_that_a_server_lists(start_loopback: Start) -> None:
    assert probe.meet(endpoint(start_loopback(dialect="vllm", context=777)), "m", pictures=False).context == 777


def test_an_unknown_model(start_loopback: Start) -> None:
    found = probe.probe(endpoint(start_loopback(model="a,b")), "c")
    assert found.models == ("a", "b")
    assert found.listed is False
    assert found.chat is False
    assert "404" in str(found.error)
    unnamed = probe.probe(endpoint(start_loopback(model="a,b")))
    assert unnamed.chat is None
    assert "--model-name" in str(unnamed.error)


def test_a_wrong_key_is_told_and_not_shown(start_loopback: Start) -> None:
    found = probe.probe(endpoint(start_loopback(api_key="right"), "sk-wrong-key"), "m")
    assert found.reachable is True
    assert found.chat is False
    assert "401" in str(found.error)
    assert "sk-wrong-key" not in repr(found)


@pytest.mark.parametrize("fault", ["429", "500", "reset"])
def test_faults_say_nothing_about_abilities(start_loopback: Start, fault: str) -> None:
    found = probe.meet(endpoint(start_loopback(fault=(f"{fault}=1.0",))), "m", pictures=True)
    assert found.listed is True
    assert found.pictures is None


def test_nobody_there() -> None:
    found = probe.probe(Endpoint(f"http://127.0.0.1:{free_port()}/v1"), "m")
    assert found == probe.ServerProbe(reachable=False, error=found.error)
    assert "refused" in str(found.error)
