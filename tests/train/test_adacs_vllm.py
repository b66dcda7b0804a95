"""Offline vLLM through Ray: it asks what the server path asks and its replies become the same samples. No vLLM runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ares_eval import plan
from ares_train.adacs import ingest, offline_vllm, sample
from ares_train.adacs.config import AdacsConfig, from_dict
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout
from ares_train.adacs.questions import sample_of
from tests.train.adacs_corpus import configured, samples, silent, sums, write_jsonl

QUESTIONS = 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "sums.jsonl", sums(QUESTIONS))


def vllm_config(source: Path) -> AdacsConfig:
    ask = {"model_name": "org/model", "logprobs": 3, "max_tokens": 16, "top_k": 5, "stop": ["END"]}
    pool = {"engine": "vllm", "ask": ask, "draws": 2}
    return configured(source, sample={"executor": "ray", "estimator": pool})


def test_offline_vllm_refuses_where_it_cannot_run(source: Path, tmp_path: Path) -> None:
    config = vllm_config(source)
    ingest.run(config, tmp_path / "w", silent)
    with pytest.raises(AdacsError, match="engine vllm: vLLM is not installed in this environment; mend: "):
        sample.run(config, tmp_path / "w", silent)


def test_offline_vllm_asks_what_the_server_path_asks(source: Path, tmp_path: Path) -> None:
    config = vllm_config(source)
    ingest.run(config, tmp_path / "w", silent)
    asked = sample.asked_set(config, Layout(tmp_path / "w"), "estimator")
    rows = offline_vllm.rows_of(asked, 0)
    assert [(row["part"], row["draw"]) for row in rows[:2]] == [(0, 0), (0, 1)]
    assert len(rows) == 2 * 8
    sent = offline_vllm.preprocess(rows[1], offline_vllm.as_json(asked.config))
    question = pq.read_table(asked.questions.path(0)).to_pylist()[0]
    prompt = plan.prompt(sample_of(question, "adacs/estimator"), asked.config)
    (request,) = plan.requests(sample_of(question, "adacs/estimator"), prompt, asked.model, asked.config, iter([1]))
    assert (sent["qid"], sent["draw"], sent["seed"], sent["key"]) == (question["qid"], 1, 1, request.key)
    assert sent["messages"] == [
        {"role": message.role, "content": "".join(map(str, message.parts))} for message in request.messages
    ]
    assert sent["sampling_params"] == {
        "max_tokens": 16, "temperature": 0.3, "top_p": 0.95, "top_k": 5, "seed": 1, "stop": ["END"], "logprobs": 3,
    }  # fmt: skip


def test_ray_takes_the_configuration_of_its_engines(source: Path, tmp_path: Path) -> None:
    from ray.data.llm import vLLMEngineProcessorConfig

    settings = vllm_config(source).settings()
    settings["sample"]["estimator"]["vllm"] = {"tensor_parallel_size": 2, "max_model_len": 4096}
    config = from_dict(settings)
    ingest.run(config, tmp_path / "w", silent)
    asked = sample.asked_set(config, Layout(tmp_path / "w"), "estimator")
    made = offline_vllm.engine_config(config.sample.estimator, asked, 3)
    assert isinstance(made, vLLMEngineProcessorConfig)
    assert (made.model_source, made.concurrency, made.should_continue_on_error) == ("org/model", 3, True)
    assert made.engine_kwargs.items() >= {"tensor_parallel_size": 2, "max_model_len": 4096}.items()


def reply(tokens: int, **more: Any) -> dict[str, Any]:
    """A row as ray.data.llm's vLLM stage gives it (vLLMOutputData of Ray 2.60), with what preprocess carried along."""
    half = {"logprob": -0.6931471805599453, "rank": 1, "decoded_token": "a"}
    other = {"logprob": -0.6931471805599453, "rank": 2, "decoded_token": "b"}
    return {
        "part": 0, "qid": "q", "draw": 0, "seed": 0, "key": "k", "cause": "", "__inference_error__": "",
        "generated_text": "a" * tokens, "generated_tokens": [7] * tokens, "num_generated_tokens": tokens,
        "logprobs": [{7: half, 9: other}] * tokens, **more,
    }  # fmt: skip


def test_offline_vllm_gives_samples(source: Path, tmp_path: Path) -> None:
    whole = offline_vllm.postprocess(reply(3), 16, 2)
    assert (whole["text"], whole["finish_reason"], whole["completion_tokens"]) == ("aaa", "stop", 3)
    assert whole["entropy"] == pytest.approx([0.6931472] * 3)
    assert offline_vllm.postprocess(reply(16), 16, 0)["finish_reason"] == "length"
    assert offline_vllm.postprocess(reply(16), 16, 0)["entropy"] is None
    unread = offline_vllm.postprocess(reply(3, cause="picture"), 16, 2)
    assert (unread["text"], unread["cause"], unread["entropy"]) == (None, "picture", None)
    config = vllm_config(source)
    ingest.run(config, tmp_path / "w", silent)
    asked = sample.asked_set(config, Layout(tmp_path / "w"), "estimator")
    rows = offline_vllm.rows_of(asked, 0)
    replies = [offline_vllm.postprocess(reply(3, **{**row, "key": "k"}), 16, 2) for row in rows]
    replies[3] = {**rows[3], "seed": 1, "key": "k", "__inference_error__": "ValueError: too long"}
    random.Random(0).shuffle(replies)
    damaged = [{**one, "text": None, "cause": "server"} if n in (1, 2, 5) else one for n, one in enumerate(replies)]
    sent: list[int] = []

    def answering(given: list[dict[str, Any]]) -> Callable[[list[dict[str, Any]]], Iterator[Mapping[str, Any]]]:
        def answer(items: list[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
            sent.append(len(items))
            wanted = {(row["qid"], row["draw"]) for row in items}
            return (one for one in given if (one["qid"], one["draw"]) in wanted)

        return answer

    lost = offline_vllm.ask_wave(asked, [0], answering(damaged)).total()
    assert lost >= 3
    assert not asked.stage.finished(0)
    # What came back is kept: only what was lost is asked again.
    assert offline_vllm.ask_wave(asked, [0], answering(replies)) == {}
    assert sent == [16, lost]
    kept = samples(tmp_path / "w")
    assert [(row["qid"], row["draw"]) for row in kept] == [(row["qid"], row["draw"]) for row in rows]
    assert [row["cause"] for row in kept] == [None] * 3 + ["server"] + [None] * 12
