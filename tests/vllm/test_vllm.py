"""A real vLLM on the CPU, started as `--serve vllm:PATH` starts it; run by `make test-vllm`.

Its models are the tiny random ones: what is proven is the wire (pictures, log-probs, refusals), not quality.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ares_eval.inference import logprobs, probe, servers
from ares_eval.inference.failures import classify
from ares_eval.inference.servers import RunningServer
from ares_eval.inference.servers.ask import Answer, ask
from ares_eval.inference.transport import Endpoint, HttpAnswer

VLLM = os.environ.get("ARES_VLLM_PYTHON")
ROOT = Path(__file__).parents[2]
FLAGS = ["--dtype", "float32", "--max-num-seqs", "32", "--enforce-eager"]
CONTEXT = 4096

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(VLLM is None, reason="run by `make test-vllm`")]


def build(module: str, folder: Path) -> Path:
    """Make a tiny model in vLLM's environment, which has torch and transformers."""
    assert VLLM is not None
    subprocess.run([VLLM, "-m", f"tests.models.{module}", str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = build("tiny_qwen_vl", tmp_path_factory.mktemp("tiny-vl"))
    flags = [*FLAGS, "--max-model-len", str(CONTEXT), "--skip-mm-profiling"]
    log_dir = tmp_path_factory.mktemp("log")
    with servers.start(f"vllm:{folder}", extra_args=flags, log_dir=log_dir, model_name="tiny-vl") as server:
        yield server


def post(server: RunningServer, content: Any, **parameters: Any) -> Answer:
    body = {"model": server.model_name, "messages": [{"role": "user", "content": content}], **parameters}
    return ask(f"{server.base_url}/chat/completions", body, timeout=300)


def picture(size: tuple[int, int], colour: str = "red") -> dict[str, Any]:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"},
    }


QUESTION = {"type": "text", "text": "Which colour?"}


def test_the_server_and_its_probe(seeing: RunningServer) -> None:
    assert seeing.context == CONTEXT
    assert seeing.vocabulary == 448
    assert seeing.weights_digest is not None
    found = probe.probe(Endpoint(seeing.base_url), "tiny-vl")
    assert found.chat and found.listed and found.pictures and found.raw_logprobs and found.n and found.seeded
    assert found.family == "vllm"
    assert found.version
    assert found.top_logprobs == 50
    assert found.context == CONTEXT


def test_pictures_cost_by_their_size_and_reach_the_answer(seeing: RunningServer) -> None:
    def seen(*pictures: dict[str, Any]) -> tuple[int, float]:
        answer = post(seeing, [*pictures, QUESTION], temperature=0, max_tokens=1, logprobs=True, top_logprobs=1)
        assert answer.ok, answer.text
        entry = answer.body["choices"][0]["logprobs"]["content"][0]
        return answer.body["usage"]["prompt_tokens"], entry["logprob"]

    bare, _ = seen()
    red, blue = seen(picture((112, 84))), seen(picture((112, 84), "blue"))
    assert red[0] == blue[0] == bare + 12 + 2
    assert red[1] != blue[1]
    assert seen(picture((448, 448)))[0] == bare + 256 + 2
    assert seen(picture((1008, 1008)))[0] == bare + 1296 + 2
    assert seen(picture((112, 84)), picture((56, 56)))[0] == bare + 12 + 4 + 4


def test_logprobs_as_the_evaluator_reads_them(seeing: RunningServer) -> None:
    import msgspec

    for seed in range(4):
        answer = post(seeing, "What is 3 plus 4?", max_tokens=48, seed=seed, logprobs=True, top_logprobs=20)
        choice = answer.body["choices"][0]
        entries = choice["logprobs"]["content"]
        assert len(entries) == answer.body["usage"]["completion_tokens"]
        trace = logprobs.token_trace(
            msgspec.convert(entries, list[logprobs.Token]),
            text=choice["message"]["content"],
            finish_reason=choice["finish_reason"],
            asked=20,
            vocabulary=seeing.vocabulary,
        )
        assert trace.top == 20
        assert (trace.entropy_low <= trace.entropy_high).all()
        assert (trace.entropy_low > 0).all()
        assert (trace.entropy_high < 6.2).all()  # ln 448 = 6.1


def test_its_refusals_are_understood(seeing: RunningServer) -> None:
    def fault(answer: Answer) -> Any:
        return classify(HttpAnswer(answer.status, {}, answer.text.encode()))

    too_long = fault(post(seeing, "What is 3 plus 4?", max_tokens=2 * CONTEXT))
    assert not too_long.retry
    assert too_long.context is not None and too_long.context.limit == CONTEXT
    unknown = ask(f"{seeing.base_url}/chat/completions", {"model": "x", "messages": [{"role": "user", "content": "x"}]})
    assert fault(unknown).fatal
    assert not fault(post(seeing, [picture((3000, 4)), QUESTION], max_tokens=1)).retry


def test_a_text_model_takes_no_pictures(tmp_path: Path) -> None:
    folder = build("tiny_text", tmp_path / "tiny-text")
    with servers.start(f"vllm:{folder}", extra_args=FLAGS, log_dir=tmp_path) as server:
        assert probe.meet(Endpoint(server.base_url), server.model_name, pictures=True).pictures is False


def test_a_whole_run_with_two_pixel_limits(seeing: RunningServer, tmp_path: Path) -> None:
    """The evaluator's own pixel limits show in the prompt tokens that vLLM counts."""
    prompts = []
    for name, limits in (("small", ("1", "65536")), ("large", ("262144", "1048576"))):
        command = [sys.executable, "-m", "ares_eval.cli", "run", "--openai-base-url", seeing.base_url]
        command += ["--model-name", "tiny-vl", "--datasets", "smoke_pictures", "--limit", "6", "--max-tokens", "16"]
        command += ["--min-pixels", limits[0], "--max-pixels", limits[1], "--output-dir", str(tmp_path / name)]
        command += ["--cache-dir", str(tmp_path / "cache"), "--logprobs", "20", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        lines = next((tmp_path / name).rglob("samples.jsonl")).read_text().splitlines()
        prompts.append(sum(json.loads(line)["usage"]["prompt"] for line in lines))
        assert len(lines) == 6
    assert prompts[1] > prompts[0] + 6 * 100
