"""Each dialect refuses, cuts and counts as its server does."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import aiohttp
import pytest

from tests import loopback
from tests.loopback.options import DIALECTS


def picture(kind: str = "PNG", size: tuple[int, int] = (56, 29), damage: bool = False) -> dict:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, kind)
    data = stream.getvalue()
    if damage:
        data = data[: len(data) // 2]
    url = f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def chat(text: str = "What is 17 + 25?", *parts: dict, **more) -> dict:
    content = [{"type": "text", "text": text}, *parts] if parts else text
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def post(server: loopback.Server, body: dict, path: str = "/chat/completions") -> tuple[int, dict]:
    async def go() -> tuple[int, dict]:
        async with aiohttp.ClientSession() as session, session.post(server.url + path, json=body) as reply:
            return reply.status, json.loads(await reply.read())

    return asyncio.run(go())


@pytest.fixture(scope="module", params=DIALECTS)
def short(request):
    """A server of each dialect with a context of 100 tokens, for text only."""
    with loopback.start(dialect=request.param, context=100, text_only=True, logprobs_mode=True) as server:
        yield request.param, server


def test_the_shape_of_an_error(short):
    dialect, server = short
    code, reply = post(server, chat(messages="hello"))
    assert code == 400
    match dialect:
        case "openai":
            assert set(reply["error"]) == {"message", "type", "param", "code"}
        case "vllm":
            assert (reply["error"]["type"], reply["error"]["code"]) == ("BadRequestError", 400)
        case "llamacpp":
            assert reply["error"]["code"] == 400
        case "lmdeploy":
            assert "error" not in reply
            assert reply["code"] == 400
            assert "messages" in reply["message"]


def test_unknown_model(short):
    dialect, server = short
    code, _ = post(server, chat(model="other"))
    assert code == (200 if dialect == "llamacpp" else 404)


def test_any_temperature_is_fine_with_llamacpp(short):
    dialect, server = short
    assert [post(server, chat(temperature=t))[0] for t in (-1, 9)] == (
        [200] * 2 if dialect == "llamacpp" else [400] * 2
    )


def test_max_tokens_beyond_the_context(short):
    dialect, server = short
    code, reply = post(server, chat(max_tokens=8192))
    assert code == (400 if dialect in ("openai", "vllm") else 200)
    if dialect == "openai":
        assert "max_tokens is too large: 8192. This model supports at most 100" in reply["error"]["message"]
        assert reply["error"]["param"] == "max_tokens"
    if dialect == "vllm":
        assert "max_model_len=100" in reply["error"]["message"]


def test_prompt_beyond_the_context(short):
    dialect, server = short
    code, reply = post(server, chat("word " * 120))
    match dialect:
        case "openai":
            assert (code, reply["error"]["code"]) == (400, "context_length_exceeded")
        case "vllm":
            assert code == 400
            assert "maximum input length of 100 tokens" in reply["error"]["message"]
        case "llamacpp":
            assert (code, reply["error"]["type"], reply["error"]["n_ctx"]) == (400, "exceed_context_size_error", 100)
        case "lmdeploy":
            assert (code, reply["choices"][0]["finish_reason"]) == (200, "length")
            assert (reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"]) == ("", 0)


@pytest.mark.parametrize("dialect", ["llamacpp", "lmdeploy"])
def test_answer_cut_at_the_context_without_a_word(start_loopback, dialect):
    code, reply = post(start_loopback(dialect=dialect, context=100), chat("word " * 60, max_tokens=8192))
    assert (code, reply["choices"][0]["finish_reason"], reply["usage"]["total_tokens"]) == (200, "length", 100)


def test_picture_without_eyes(short):
    dialect, server = short
    code, reply = post(server, chat("What?", picture()))
    assert code == (500 if dialect == "llamacpp" else 400)
    if dialect == "llamacpp":
        assert "mmproj" in reply["error"]["message"]


def test_how_many_alternatives(short):
    dialect, server = short
    code, _ = post(server, chat(logprobs=True, top_logprobs=21))
    assert code == (200 if dialect == "llamacpp" else 400)


def test_usage_of_two_choices(short):
    dialect, server = short
    _, reply = post(server, chat(n=2, max_tokens=12))
    assert len(reply["choices"]) == 2
    assert reply["usage"]["completion_tokens"] == (12 if dialect == "llamacpp" else 24)


def test_the_model_card_tells_the_context(short):
    dialect, server = short

    async def card() -> dict:
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/models") as reply:
            return (await reply.json())["data"][0]

    told = asyncio.run(card())
    assert (told.get("max_model_len") or told.get("meta", {}).get("n_ctx")) == (
        100 if dialect in ("vllm", "llamacpp") else None
    )


def test_lmdeploy_without_its_launch_flag(start_loopback):
    server = start_loopback(dialect="lmdeploy")
    code, reply = post(server, chat(logprobs=True, top_logprobs=5))
    assert (code, "not enabled logprobs_mode in engine configuration" in reply["message"]) == (400, True)


def test_vllm_in_older_words(start_loopback):
    server = start_loopback(dialect="vllm", context=100, older_words=True)
    _, reply = post(server, chat(max_tokens=8192))
    assert "is too large: 8192. This model's maximum context length is 100 tokens" in reply["error"]["message"]


def test_extras_of_vllm_and_lmdeploy(start_loopback):
    vllm = post(start_loopback(dialect="vllm"), chat(prompt_logprobs=1, return_token_ids=True, max_tokens=9))[1]
    assert vllm["prompt_logprobs"][0] is None
    assert len(vllm["prompt_logprobs"]) > 3
    assert len(vllm["choices"][0]["token_ids"]) == 9
    lmdeploy = post(
        start_loopback(dialect="lmdeploy", logprobs_mode=True),
        chat(return_token_ids=True, return_logprob=True, logprobs=True, max_tokens=9),
    )[1]["choices"][0]
    assert len(lmdeploy["output_ids"]) == 9
    pairs = [(entry["logprob"], number) for entry, number in
             zip(lmdeploy["logprobs"]["content"], lmdeploy["output_ids"], strict=True)]  # fmt: skip
    assert list(map(tuple, lmdeploy["output_token_logprobs"])) == pairs


def test_parameters_that_a_reasoning_model_refuses(start_loopback):
    server = start_loopback(unsupported="max_tokens,temperature,top_p", hidden_reasoning=100)
    code, reply = post(server, chat(max_tokens=50))
    assert (code, reply["error"]["code"], reply["error"]["param"]) == (400, "unsupported_parameter", "max_tokens")
    code, reply = post(server, chat(max_completion_tokens=50, temperature=0.3))
    assert (code, reply["error"]["code"], reply["error"]["param"]) == (400, "unsupported_value", "temperature")
    code, reply = post(server, chat(max_completion_tokens=50, temperature=1))
    assert code == 200
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] == 100
    assert reply["usage"]["completion_tokens"] == 150


@pytest.mark.parametrize("where", ["reasoning", "reasoning_content", "think"])
def test_where_the_reasoning_goes(start_loopback, where):
    message = post(start_loopback(reasoning=where), chat())[1]["choices"][0]["message"]
    assert message["content"].endswith("\\boxed{42}.")
    if where == "think":
        assert message["content"].startswith("<think>\n")
        assert "</think>" in message["content"]
    else:
        assert message[where]


def test_pictures_are_looked_at(start_loopback):
    server = start_loopback(check_pictures=True)
    without = post(server, chat("What?"))[1]["usage"]["prompt_tokens"]
    code, reply = post(server, chat("What?", picture(), picture("JPEG", (28, 28))))
    assert code == 200
    assert reply["usage"]["prompt_tokens"] - without == 2 * 2 + 1
    assert server.stats()["pictures"] == {"image/png 56x29": 1, "image/jpeg 28x28": 1}
    lie = picture("PNG")
    lie["image_url"]["url"] = lie["image_url"]["url"].replace("image/png", "image/jpeg")
    for wrong in (picture(damage=True), lie, {"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AAAA"}}):
        assert post(server, chat("What?", wrong))[0] == 400


def test_a_picture_that_cannot_be_fetched(start_loopback):
    far = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/none.png"}}
    assert post(start_loopback(dialect="openai"), chat("What?", far))[0] == 400
    assert post(start_loopback(dialect="vllm"), chat("What?", far))[0] == 500


def test_plain_completions_score_a_prompt(start_loopback):
    server = start_loopback()
    asked = {"model": "m", "prompt": ["two and two is four", "two and two is five"], "max_tokens": 1, "echo": True}
    choices = post(server, {**asked, "logprobs": 1}, "/completions")[1]["choices"]
    for choice, prompt in zip(choices, asked["prompt"], strict=True):
        scores = choice["logprobs"]
        assert choice["text"].startswith(prompt)
        assert "".join(scores["tokens"]) == choice["text"]
        assert scores["token_logprobs"][0] is None
        assert all(value <= 0 for value in scores["token_logprobs"][1:])
        assert [choice["text"][at:][: len(token)] for at, token in zip(scores["text_offset"], scores["tokens"], strict=True)] == scores["tokens"]  # fmt: skip # noqa: E501
    one, two = (choice["logprobs"]["token_logprobs"] for choice in choices)
    assert one[:4] == two[:4]
    assert one[4] != two[4]
    llama = post(start_loopback(dialect="llamacpp"), {**asked, "logprobs": 1}, "/completions")[1]
    assert llama["choices"][0]["logprobs"] is None


def test_wrong_answers_at_a_rate_and_from_a_table(start_loopback):
    server = start_loopback(answers={"Name a colour.": "red", "A letter, please, of the alphabet.": "C"}, wrong=0.5)
    said = [post(server, chat(f"What is {n} + 1?"))[1]["choices"][0]["message"]["content"] for n in range(60)]
    right = sum(f"\\boxed{{{n + 1}}}" in text for n, text in enumerate(said))
    assert 15 < right < 45
    sure = start_loopback(answers={"Name a colour.": "red", "A letter, please, of the alphabet.": "C"})
    for question, answer in (("Think.\nName a  colour.\nNow!", "red"), ("A letter, please, of the alphabet.", "C")):
        assert f"\\boxed{{{answer}}}" in post(sure, chat(question))[1]["choices"][0]["message"]["content"]


def test_draws(start_loopback):
    fixed, successive = start_loopback(), start_loopback(draws="successive")

    def say(server: loopback.Server, **more) -> str:
        return post(server, chat(**more))[1]["choices"][0]["message"]["content"]

    assert len({say(fixed) for _ in range(4)}) == 1
    assert len({say(successive) for _ in range(8)}) > 1
    assert say(fixed, seed=3) == say(fixed, seed=3)
    assert len({say(fixed, seed=seed) for seed in range(8)}) > 1
