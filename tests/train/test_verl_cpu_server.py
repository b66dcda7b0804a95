"""The rollout server of the CPU backend as verl's client sees it, without Ray around it."""

from __future__ import annotations

import asyncio

import pytest

from tests.models import tiny_text

PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from verl.workers.config import HFModelConfig, RolloutConfig

    from ares_train.verl_cpu.rollout_server import HFServer

    rollout = RolloutConfig(
        name="hf_cpu",
        dtype="float32",
        prompt_length=16,
        response_length=8,
        max_num_seqs=3,
        tensor_model_parallel_size=1,
    )
    model = HFModelConfig(
        path=str(tiny_text.build(tmp_path_factory.mktemp("server"))), override_config={"attn_implementation": "sdpa"}
    )
    return HFServer(rollout, model, 0)


def ask(server, *requests: dict, version: int = 0):
    """Answers to requests that arrive together; what a refused one was refused with."""

    async def together():
        server._loop = None
        server._model_in_use = asyncio.Lock()
        server._arrived = asyncio.Event()
        await server.set_global_steps(version)
        coming = [
            server.generate(str(n), **{"prompt_ids": PROMPT, "sampling_params": {"logprobs": True}, **request})
            for n, request in enumerate(requests)
        ]
        answers = await asyncio.gather(*coming, return_exceptions=True)
        if server._loop is not None:
            server._loop.cancel()
        return answers

    return asyncio.run(together())


def test_sessions_of_a_prompt_differ_and_are_the_same_in_every_run(server):
    first = ask(server, *[{}] * 4, version=1)
    again = ask(server, *[{}] * 4, version=2)
    tokens = [answer.token_ids for answer in first]
    assert len({tuple(row) for row in tokens}) == 4
    assert [answer.token_ids for answer in again] != tokens
    ask(server, {}, version=3)
    assert [answer.token_ids for answer in ask(server, *[{}] * 4, version=1)] == tokens


def test_a_named_session_gets_the_stream_of_its_number_in_any_order(server):
    counted = [answer.token_ids for answer in ask(server, *[{}] * 4, version=4)]
    names = ("3", "0", "2", "1")
    named = ask(server, *[{"sampling_params": {"ares_stream": name}} for name in names], version=4)
    assert [answer.token_ids for answer in named] == [counted[int(name)] for name in names]


def test_an_answer_carries_version_entropies_and_log_probs_where_asked(server):
    with_log_probs, without = ask(server, {}, {"sampling_params": {"max_tokens": 3}}, version=7)
    assert len(with_log_probs.log_probs) == len(with_log_probs.extra_fields["token_entropy"]) == 8
    assert all(value < 0 for value in with_log_probs.log_probs)
    assert all(value > 0 for value in with_log_probs.extra_fields["token_entropy"])
    assert with_log_probs.extra_fields["global_steps"] == 7
    assert without.log_probs is None
    assert (len(without.token_ids), without.stop_reason) == (3, "length")


def test_a_refused_request_tells_why_and_leaves_the_others_alone(server):
    video, unknown, long, well = ask(
        server, {"video_data": ["film"]}, {"sampling_params": {"min_p": 0.1}}, {"prompt_ids": [5] * 24}, {}
    )
    assert "does not take video_data" in str(video)
    assert "does not know the sampling parameter min_p" in str(unknown)
    assert "leaves no room" in str(long)
    assert len(well.token_ids) == 8


def test_interrupting_is_refused(server):
    with pytest.raises(NotImplementedError, match="trainer_mode=sync"):
        asyncio.run(server.abort_all_requests())
