"""The transformers server with tiny random models, against what transformers itself computes."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ares_eval.inference import logprobs, probe, servers
from ares_eval.inference.servers import RunningServer
from ares_eval.inference.servers.ask import Answer, ask
from ares_eval.inference.transport import Endpoint

pytestmark = [
    pytest.mark.hf,
    pytest.mark.skipif(
        importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None,
        reason="needs the extra [hf]",
    ),
]

QUESTION = "What is 12 plus 7? Answer with a letter, é or ∑."


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models import tiny_text

    return tiny_text.build(tmp_path_factory.mktemp("tiny-text"))


@pytest.fixture(scope="module")
def text(text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log_dir = tmp_path_factory.mktemp("log")
    with servers.start(
        f"hf:{text_model}", log_dir=log_dir, model_name="tiny", extra_args=["--context", "512"]
    ) as server:
        yield server


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    from tests.models import tiny_qwen_vl

    folder = tiny_qwen_vl.build(tmp_path_factory.mktemp("tiny-vl"))
    with servers.start(f"hf:{folder}", log_dir=tmp_path_factory.mktemp("log"), model_name="vl") as server:
        yield server


def post(server: RunningServer, content: Any = QUESTION, **parameters: Any) -> Answer:
    body = {"model": server.model_name, "messages": [{"role": "user", "content": content}], **parameters}
    return ask(f"{server.base_url}/chat/completions", body, timeout=120)


def chat(server: RunningServer, content: Any = QUESTION, **parameters: Any) -> dict[str, Any]:
    answer = post(server, content, **parameters)
    assert answer.ok, answer.text
    body: dict[str, Any] = answer.body
    return body


def said(body: dict[str, Any], number: int = 0) -> str:
    text: str = body["choices"][number]["message"]["content"]
    return text


def picture(size: tuple[int, int], colour: str, kind: str = "PNG") -> dict[str, Any]:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    url = f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def with_pictures(*pictures: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pictures, {"type": "text", "text": "Which colour?"}]


# ---------------------------------------------------------------- exactness


def test_greedy_answers_and_their_odds_are_those_of_transformers(text: RunningServer, text_model: Path) -> None:
    """Oracle: one forward pass of the plain model over the prompt and the server's own tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    body = chat(text, temperature=0, max_tokens=24, logprobs=True, top_logprobs=50)
    entries = body["choices"][0]["logprobs"]["content"]
    ids = [entry["id"] for entry in entries]
    tokenizer, model = AutoTokenizer.from_pretrained(text_model), AutoModelForCausalLM.from_pretrained(text_model)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    prompt_ids = list(prompt["input_ids"] if hasattr(prompt, "keys") else prompt)
    assert body["usage"]["prompt_tokens"] == len(prompt_ids)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt_ids + ids])).logits[0, len(prompt_ids) - 1 : -1].double()
    odds = torch.log_softmax(logits, dim=-1)
    entropies = -(odds.exp() * odds).sum(-1)
    for i, entry in enumerate(entries):
        assert entry["id"] == int(odds[i].argmax())
        assert entry["logprob"] == pytest.approx(float(odds[i, entry["id"]]), abs=1e-4)
        assert entry["entropy"] == pytest.approx(float(entropies[i]), abs=1e-4)
        best = torch.topk(odds[i], 50).values.tolist()
        assert [item["logprob"] for item in entry["top_logprobs"]] == pytest.approx(best, abs=1e-4)
    assert said(body) == tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(entry["token"] for entry in entries) == said(body)


def test_logprobs_do_not_depend_on_how_tokens_are_chosen(text: RunningServer) -> None:
    first = [
        chat(text, max_tokens=1, logprobs=True, top_logprobs=20, seed=3, **sampling)["choices"][0]["logprobs"][
            "content"
        ][0]
        for sampling in ({"temperature": 0}, {"temperature": 2}, {"top_p": 0.1}, {"top_k": 2})
    ]
    for other in first[1:]:
        assert other["top_logprobs"] == first[0]["top_logprobs"]
        assert other["entropy"] == first[0]["entropy"]


def test_the_evaluator_reads_the_trace_and_its_bounds_hold_the_exact_entropy(text: RunningServer) -> None:
    import msgspec

    body = chat(text, temperature=1, seed=5, max_tokens=40, logprobs=True, top_logprobs=20)
    entries = body["choices"][0]["logprobs"]["content"]
    tokens = msgspec.convert(entries, list[logprobs.Token])
    trace = logprobs.token_trace(
        tokens,
        text=said(body),
        finish_reason=body["choices"][0]["finish_reason"],
        asked=20,
        vocabulary=text.vocabulary,
    )
    assert "".join(trace.tokens) == said(body)
    for entry, low, high in zip(entries, trace.entropy_low, trace.entropy_high, strict=True):
        assert low - 1e-4 <= entry["entropy"] <= high + 1e-4
    exact = chat(text, temperature=0, max_tokens=3, logprobs=True, top_logprobs=text.vocabulary)
    for entry in exact["choices"][0]["logprobs"]["content"]:
        values = [item["logprob"] for item in entry["top_logprobs"]]
        assert len(values) == text.vocabulary
        assert -sum(math.exp(v) * v for v in values) == pytest.approx(entry["entropy"], abs=1e-4)


# ---------------------------------------------------------------- sampling


def test_seeds_repeat_and_differ(text: RunningServer) -> None:
    one = [said(chat(text, seed=11, max_tokens=16)) for _ in range(2)]
    assert one[0] == one[1]
    assert len({said(chat(text, seed=seed, max_tokens=16)) for seed in range(4)}) == 4
    assert said(chat(text, max_tokens=16)) != said(chat(text, max_tokens=16))


def test_top_k_and_top_p_keep_to_the_likely_tokens(text: RunningServer) -> None:
    entry = chat(text, temperature=0, max_tokens=1, logprobs=True, top_logprobs=50)["choices"][0]["logprobs"][
        "content"
    ][0]
    ranked = entry["top_logprobs"]
    mass, nucleus = 0.0, set()
    for item in ranked:
        if mass < 0.5:
            nucleus.add(item["id"])
        mass += math.exp(item["logprob"])
    assert mass > 0.5 and len(nucleus) > 1

    def ids(**sampling: Any) -> set[int]:
        body = chat(text, max_tokens=1, n=64, seed=1, temperature=1, logprobs=True, **sampling)
        return {choice["logprobs"]["content"][0]["id"] for choice in body["choices"]}

    assert ids(top_k=3) <= {item["id"] for item in ranked[:3]}
    assert ids(top_p=0.5) <= nucleus
    assert ids(top_k=1) == ids(top_p=0) == {ranked[0]["id"]}
    assert len(ids()) > len(nucleus)


def test_draws_are_several_and_all_counted(text: RunningServer) -> None:
    body = chat(text, n=3, seed=2, max_tokens=10)
    texts = [said(body, i) for i in range(3)]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert body["usage"]["completion_tokens"] == 30
    assert [said(chat(text, n=3, seed=2, max_tokens=10), i) for i in range(3)] == texts


def test_stop_strings_end_the_text_before_them(text: RunningServer) -> None:
    whole = said(chat(text, temperature=0, max_tokens=24))
    stop = whole[6:9]
    body = chat(text, temperature=0, max_tokens=24, stop=["never", stop])
    assert said(body) == whole[: whole.index(stop)]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] < 24


def test_the_end_token_ends_an_answer_and_is_no_text(text: RunningServer) -> None:
    ended = None
    for seed in range(40):
        body = chat(text, seed=seed, temperature=2, max_tokens=200, logprobs=True)
        if body["choices"][0]["finish_reason"] == "stop":
            ended = body
            break
    assert ended is not None
    last = ended["choices"][0]["logprobs"]["content"][-1]
    assert last["token"] == "" and last["bytes"] == []
    assert "<|im_end|>" not in said(ended)


# ---------------------------------------------------------------- the wire


def test_a_stream_says_the_same(text: RunningServer) -> None:
    asked = {"seed": 4, "max_tokens": 12, "n": 2, "logprobs": True, "top_logprobs": 2, "stop": ["zz"]}
    plain = chat(text, **asked)
    raw = post(text, stream=True, stream_options={"include_usage": True}, **asked).text
    lines = [line.removeprefix("data: ") for line in raw.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == plain["usage"]
    for number in range(2):
        mine = [chunk["choices"][0] for chunk in chunks[:-1] if chunk["choices"][0]["index"] == number]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(part["delta"].get("content", "") for part in mine) == said(plain, number)
        entries = [entry for part in mine if part["logprobs"] for entry in part["logprobs"]["content"]]
        assert entries == plain["choices"][number]["logprobs"]["content"]
        assert mine[-1]["finish_reason"] == plain["choices"][number]["finish_reason"]


def test_the_official_client(text: RunningServer) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=text.base_url, api_key="none", max_retries=0)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    reply = client.chat.completions.create(
        model="tiny", messages=messages, max_completion_tokens=5, logprobs=True, top_logprobs=3, seed=1
    )
    assert reply.usage.completion_tokens == 5
    assert len(reply.choices[0].logprobs.content[0].top_logprobs) == 3
    stream = client.chat.completions.create(model="tiny", messages=messages, max_tokens=5, seed=1, stream=True)
    parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "".join(parts) == reply.choices[0].message.content
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=messages)
    assert [model.id for model in client.models.list()] == ["tiny"]


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, 400, "messages"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": True}, 400, "temperature"),
        ({"top_p": 1.5}, 400, "top_p"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 1.5}, 400, "max_tokens"),
        ({"n": 1000}, 400, "n"),
        ({"stop": [""]}, 400, "stop"),
        ({"logprobs": True, "top_logprobs": 5000}, 400, "top_logprobs"),
        ({"top_logprobs": 5}, 400, "top_logprobs"),
        ({"reasoning_effort": "low"}, 400, "reasoning_effort"),
        ({"presence_penalty": 1}, 400, "presence_penalty"),
        ({"tools": []}, 400, "tools"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    text: RunningServer, changes: dict[str, Any], status: int, param: str
) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, **changes}
    answer = ask(f"{text.base_url}/chat/completions", body)
    assert answer.status == status
    assert answer.body["error"]["param"] == param


def test_a_body_that_is_no_json(text: RunningServer) -> None:
    import urllib.error
    import urllib.request

    for data in (b"{", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{text.base_url}/chat/completions", data, timeout=30)
        with caught.value as error:
            assert error.code == 400


def test_the_context_is_the_limit_of_prompt_and_answer(text: RunningServer) -> None:
    prompt = chat(text, max_tokens=1)["usage"]["prompt_tokens"]
    body = chat(text, temperature=0, max_tokens=512 - prompt)
    assert body["choices"][0]["finish_reason"] in ("stop", "length")
    for content, tokens in ((QUESTION, 513 - prompt), ("7 " * 2000, 1)):
        answer = post(text, content, max_tokens=tokens)
        assert answer.status == 400
        assert answer.body["error"]["code"] == "context_length_exceeded"
        assert "maximum context length is 512 tokens" in answer.body["error"]["message"]
    unlimited = chat(text, temperature=0)
    assert unlimited["usage"]["total_tokens"] <= 512


def test_a_client_that_goes_away_frees_the_model(text: RunningServer) -> None:
    from ares_eval.inference.servers.ask import Unreachable

    body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 400, "n": 32, "seed": 1}
    with pytest.raises(Unreachable):
        ask(f"{text.base_url}/chat/completions", body, timeout=0.3)
    assert chat(text, max_tokens=1)
    assert "its request was dropped" in text.log_path.read_text()


# ---------------------------------------------------------------- pictures


def test_pictures_reach_the_answer_and_cost_by_their_size(seeing: RunningServer) -> None:
    def ask_about(*pictures: dict[str, Any]) -> tuple[int, float]:
        body = chat(seeing, with_pictures(*pictures), temperature=0, max_tokens=1, logprobs=True)
        return body["usage"]["prompt_tokens"], body["choices"][0]["logprobs"]["content"][0]["entropy"]

    bare, _ = ask_about()
    red, blue = ask_about(picture((112, 84), "red")), ask_about(picture((112, 84), "blue", "JPEG"))
    assert red[0] == blue[0] == bare + 12 + 2
    assert red[1] != blue[1]
    assert ask_about(picture((448, 448), "red"))[0] == bare + 256 + 2
    assert ask_about(picture((112, 84), "red"), picture((56, 56), "red"))[0] == bare + 12 + 4 + 4
    # Above the model's own limit of 1,536 tokens it is scaled down.
    assert bare + 1400 < ask_about(picture((2000, 2000), "red"))[0] <= bare + 1536 + 2


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/cat.png",
        "data:image/png;base64,!!!",
        "data:image/png;base64,AAAA",
        "data:text/plain;base64,AAAA",
        "",
    ],
)
def test_pictures_that_cannot_be_used(seeing: RunningServer, url: str) -> None:
    answer = post(seeing, with_pictures({"type": "image_url", "image_url": {"url": url}}), max_tokens=1)
    assert answer.status == 400
    assert answer.body["error"]["param"] == "messages"


def test_a_placeholder_written_as_text_is_refused(seeing: RunningServer) -> None:
    """Else a question could claim a picture that was never sent."""
    assert post(seeing, "<|image_pad|>", max_tokens=1).status == 400


def test_a_decompression_bomb_is_refused(seeing: RunningServer) -> None:
    answer = post(seeing, with_pictures(picture((9000, 9000), "red")), max_tokens=1)
    assert answer.status == 400
    assert "too large" in answer.body["error"]["message"]


def test_the_probe_sees_what_they_can(text: RunningServer, seeing: RunningServer) -> None:
    for server, pictures in ((text, False), (seeing, True)):
        found = probe.probe(Endpoint(server.base_url), server.model_name)
        assert found.chat and found.listed and found.raw_logprobs and found.n and found.seeded
        assert found.pictures is pictures
        assert found.context == server.context
        assert found.top_logprobs == probe.LOGPROB_STEPS[-1]
        assert found.family == "ares transformers server"
    assert post(text, with_pictures(picture((56, 56), "red")), max_tokens=1).status == 400


# ---------------------------------------------------------------- starting


def test_the_digest_follows_the_weights(text: RunningServer, text_model: Path, tmp_path: Path) -> None:
    from tests.models import tiny_text

    assert text.weights_digest == servers.weights_digest(f"hf:{text_model}")
    again, other = tmp_path / "again", tmp_path / "other"
    again.mkdir()
    assert servers.weights_digest(f"hf:{tiny_text.build(again)}") == text.weights_digest
    assert servers.weights_digest(f"hf:{tiny_text.build(other, seed=1)}") != text.weights_digest


def test_a_folder_without_weights_says_so(text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((text_model / "config.json").read_text())
    with (
        pytest.raises(servers.ServerFailed, match=r"(?s)ended with code 1 .*model\.safetensors"),
        servers.start(f"hf:{tmp_path}", log_dir=tmp_path),
    ):
        pass
