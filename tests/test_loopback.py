"""The loopback server speaks OpenAI's wire: the official client passes against it."""

from __future__ import annotations

import re

import pytest

from tests import loopback

openai = pytest.importorskip("openai")

QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.fixture(scope="module")
def server():
    with loopback.start(api_key="k") as running:
        yield running


@pytest.fixture
def client(server):
    server.reset()
    with openai.OpenAI(base_url=server.url, api_key="k", max_retries=0) as made:
        yield made


def boxed(text: str) -> str:
    return re.search(r"\\boxed\{(.*)\}", text)[1]


def test_plain_reply(client, server):
    reply = client.chat.completions.create(model="m", messages=QUESTION)
    assert boxed(reply.choices[0].message.content) == "42"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.completion_tokens == 64
    assert server.stats()["good"] == 1


def test_stream_is_the_plain_reply_in_pieces(client):
    plain = client.chat.completions.create(model="m", messages=QUESTION, logprobs=True, top_logprobs=2)
    events = list(
        client.chat.completions.create(
            model="m",
            messages=QUESTION,
            logprobs=True,
            top_logprobs=2,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    with_text = [event.choices[0] for event in events if event.choices]
    assert "".join(each.delta.content or "" for each in with_text) == plain.choices[0].message.content
    assert events[-1].usage == plain.usage
    assert events[-1].choices == []
    assert with_text[-1].finish_reason == "stop"
    entries = [entry for each in with_text if each.logprobs for entry in each.logprobs.content]
    assert len(entries) == len(plain.choices[0].logprobs.content) == 64


def test_models(client, server):
    assert [card.id for card in client.models.list()] == ["m"]
    assert client.models.retrieve("m").id == "m"


def test_cut_at_max_tokens_and_at_stop(client):
    cut = client.chat.completions.create(model="m", messages=QUESTION, max_completion_tokens=10)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 10
    stopped = client.chat.completions.create(model="m", messages=QUESTION, stop=["The answer"])
    assert "The answer" not in stopped.choices[0].message.content
    assert stopped.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"model": "other"}, openai.NotFoundError),
        ({"temperature": "hot"}, openai.BadRequestError),
        ({"temperature": 3}, openai.BadRequestError),
        ({"top_logprobs": 5}, openai.BadRequestError),
        ({"messages": []}, openai.BadRequestError),
        ({"messages": [{"role": "robot", "content": "hi"}]}, openai.BadRequestError),
        ({"stop": ["a", "b", "c", "d", "e"]}, openai.BadRequestError),
        ({"extra_body": {"top_k": 5}}, openai.BadRequestError),
        ({"extra_headers": {"Authorization": "Bearer stolen"}}, openai.AuthenticationError),
    ],
)
def test_refuses_what_openai_refuses(client, server, wrong, error):
    with pytest.raises(error):
        client.chat.completions.create(**{"model": "m", "messages": QUESTION, **wrong})
    assert server.stats()["good"] == 0
