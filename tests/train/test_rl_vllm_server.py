"""The vLLM server's contract with verl's base server and vLLM's engine, both stand-ins: none of it ran on a GPU."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ares_train.rl import entropy_sources
from ares_train.rl.entropy_sources import Answered, EntropyMissing
from ares_train.rl.vllm_server import TopKServer, entropies

DISTRIBUTION = [0.5, 0.25, 0.125, 0.0625, 0.0625]


@dataclass
class Sampling:
    """vLLM's SamplingParams, of which two attributes matter here."""

    logprobs: int | None
    prompt_logprobs: int | None = None


@dataclass
class Engine:
    """vLLM's AsyncLLM: cumulative outputs, log-probs for the sampled token and the ``logprobs`` largest."""

    tokens: list[int]
    asked: list[int | None] = field(default_factory=list)
    slept: int = 0

    async def sleep(self, level: int) -> None:
        self.slept = level

    async def generate(self, *, prompt: Any, sampling_params: Sampling, request_id: str, **_: Any) -> Any:
        self.asked.append(sampling_params.logprobs)
        for count in range(1, len(self.tokens) + 1):
            steps = None
            if sampling_params.logprobs is not None:
                steps = [self._step(token, sampling_params.logprobs) for token in self.tokens[:count]]
            output = SimpleNamespace(token_ids=self.tokens[:count], logprobs=steps, finish_reason="stop")
            yield SimpleNamespace(outputs=[output], request_id=request_id)

    def _step(self, sampled: int, k: int) -> dict[int, Any]:
        known = sorted(set(range(k)) | {sampled})
        return {t: SimpleNamespace(logprob=math.log(DISTRIBUTION[t]), rank=t + 1) for t in known}


class Base:
    """The part of verl's vLLMHttpServer.generate that touches the engine, word for word in what it relies on."""

    engine: Any

    async def generate(self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **_: Any) -> Any:
        params = Sampling(logprobs=0 if sampling_params.pop("logprobs", False) else None)
        final = None
        async for output in self.engine.generate(prompt=prompt_ids, sampling_params=params, request_id=request_id):
            final = output
        assert final is not None
        tokens, log_probs = final.outputs[0].token_ids, None
        if params.logprobs is not None:
            log_probs = [step[tokens[at]].logprob for at, step in enumerate(final.outputs[0].logprobs)]
        return SimpleNamespace(token_ids=tokens, log_probs=log_probs, extra_fields={"global_steps": 1})


class Server(TopKServer, Base):
    topk = 3


def served(tokens: list[int], **sampling: Any) -> tuple[Any, Engine, Server]:
    server = Server()
    server.engine = engine = Engine(tokens)
    return asyncio.run(server.generate([1, 2], {"temperature": 1.0, **sampling}, "r")), engine, server


def lower_bound(k: int) -> float:
    kept = [*DISTRIBUTION[:k], sum(DISTRIBUTION[k:])]
    return -sum(p * math.log(p) for p in kept)


def test_an_answer_carries_an_entropy_for_every_token() -> None:
    output, engine, server = served([0, 4, 1], logprobs=True)
    assert engine.asked == [3]
    assert output.log_probs == pytest.approx([math.log(DISTRIBUTION[token]) for token in (0, 4, 1)])
    assert output.extra_fields["ares_entropy"] == pytest.approx([lower_bound(3)] * 3, abs=1e-6)
    assert output.extra_fields["global_steps"] == 1
    # Nothing is kept for a request that was answered, and everything else reaches the engine.
    assert server.engine.entropies("r") is None
    asyncio.run(server.engine.sleep(level=2))
    assert engine.slept == 2


def test_without_log_probs_nothing_is_asked_for() -> None:
    output, engine, _ = served([0, 1], logprobs=False)
    assert engine.asked == [None] and "ares_entropy" not in output.extra_fields


def test_a_sampled_token_below_the_k_largest_is_part_of_the_rest() -> None:
    step = {t: SimpleNamespace(logprob=math.log(p), rank=t + 1) for t, p in enumerate(DISTRIBUTION) if t in (0, 1, 4)}
    assert entropies([step], 2) == pytest.approx([lower_bound(2)], abs=1e-6)


def test_minus_infinity_is_a_probability_of_zero() -> None:
    step = {0: SimpleNamespace(logprob=0.0, rank=1), 1: SimpleNamespace(logprob=-math.inf, rank=2)}
    assert entropies([step], 2) == [0.0]


def source(name: str, **answered: Any) -> Any:
    async def ask(prompt_ids: list[int], **sampling: Any) -> Any:
        assert prompt_ids == [7, 8, 0, 1] and sampling["prompt_logprobs"] == 3 and sampling["max_tokens"] == 1
        # verl: one entry a token but the first, and a padding entry at the end.
        rows = [[math.log(p) for p in DISTRIBUTION[:3]] for _ in range(3)]
        rows[1] = [0.0, -math.inf, -math.inf]
        return SimpleNamespace(extra_fields={"prompt_logprobs": [*rows, [0.0] * 3]})

    asked = {
        "prompt": [7, 8],
        "tokens": [0, 1],
        "log_probs": [-0.5, -1.0],
        "extra": {},
        "topk": 3,
        "ask": ask,
        **answered,
    }
    return asyncio.run(entropy_sources.SOURCES[name](Answered(**asked)))


def test_rescoring_aligns_entries_with_response_tokens() -> None:
    assert source("rescore").tolist() == pytest.approx([0.0, lower_bound(3)], abs=1e-6)


def test_the_other_sources() -> None:
    assert source("surprisal").tolist() == [0.5, 1.0]
    assert source("exact", extra={"token_entropy": [0.25, 0.5, 9.0]}).tolist() == [0.25, 0.5]
    assert source("server_topk", extra={"ares_entropy": [0.25, 0.5]}).dtype == np.float32


@pytest.mark.parametrize(("name", "answered"), [("exact", {}), ("server_topk", {}), ("surprisal", {"log_probs": None}),
                                                ("exact", {"extra": {"token_entropy": [0.1]}})])  # fmt: skip
def test_a_source_that_is_not_served_says_so(name: str, answered: dict[str, Any]) -> None:
    with pytest.raises(EntropyMissing):
        source(name, **answered)


def test_verls_server_still_calls_the_engine_as_the_stand_in_does() -> None:
    """Read from the source, since importing it needs vLLM."""
    import importlib.util
    from pathlib import Path

    found = importlib.util.find_spec("verl")
    assert found is not None and found.submodule_search_locations
    text = (
        Path(found.submodule_search_locations[0]) / "workers" / "rollout" / "vllm_rollout" / "vllm_async_server.py"
    ).read_text()
    assert "generator = self.engine.generate(" in text and "request_id=request_id," in text
    assert 'sampling_params["logprobs"] = 0 if sampling_params.pop("logprobs", False) else None' in text
    assert "self.server_class = ray.remote(vLLMHttpServer)" in text
