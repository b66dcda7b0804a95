"""The real embedded server: SmolLM2-135M through llama.cpp, started as a run starts it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from ares_eval.inference import probe, servers
from ares_eval.inference.servers import RunningServer, embedded_model
from ares_eval.inference.servers.ask import ask
from ares_eval.inference.transport import Endpoint
from tests.servers.conftest import gone

pytestmark = [
    pytest.mark.embedded,
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs the extra [local]"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    arguments = ["--slots", "2", "--context", "1024"]
    with servers.start("embedded", extra_args=arguments, log_dir=tmp_path_factory.mktemp("log")) as running:
        yield running


def test_what_it_says_of_itself(server: RunningServer) -> None:
    assert server.model_name == "smollm2-135m-instruct"
    assert server.vocabulary == embedded_model.VOCABULARY
    assert server.context == 1024
    assert server.weights_digest == f"sha256:{embedded_model.SHA256}" == servers.weights_digest("embedded")
    assert server.identity["program"] == "xllamacpp"
    assert server.identity["version"]
    assert server.log_path.stat().st_size > 0
    assert server.death() is None


def test_it_answers_with_logprobs(server: RunningServer) -> None:
    body = {
        "model": server.model_name,
        "messages": [{"role": "user", "content": "What is the capital of France? One word."}],
        "max_tokens": 8,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
    }
    answer = ask(f"{server.base_url}/chat/completions", body, timeout=120)
    choice = answer.body["choices"][0]
    assert "Paris" in choice["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 20 for entry in choice["logprobs"]["content"])
    assert answer.body["usage"]["completion_tokens"] <= 8


def test_a_parameter_left_out_is_not_used(server: RunningServer) -> None:
    """llama.cpp's own defaults would cut the distribution (top-k 40, min-p 0.05) without being asked."""
    defaults = ask(server.base_url.removesuffix("/v1") + "/props").body["default_generation_settings"]["params"]
    assert (defaults["temperature"], defaults["top_k"], defaults["top_p"], defaults["min_p"]) == (1.0, 0, 1.0, 0.0)


def test_the_probe_sees_what_it_can(server: RunningServer) -> None:
    found = probe.probe(Endpoint(server.base_url))
    assert found.chat is True
    assert found.listed is True
    assert found.family == "llama.cpp"
    assert found.context == 1024
    assert found.pictures is False
    assert found.top_logprobs == probe.LOGPROB_STEPS[-1]
    assert found.raw_logprobs is True
    assert found.n is True


def test_a_killed_run_leaves_no_server(server: RunningServer, tmp_path: Path) -> None:
    script = f"""
        import time
        from pathlib import Path
        from ares_eval.inference import servers
        with servers.start("embedded", log_dir=Path({str(tmp_path)!r})) as server:
            print(server.process.pid, server.base_url, flush=True)
            time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        guard, url = run.stdout.readline().split()
        children = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
        assert len(children) == 1
        assert ask(f"{url}/models").ok
        run.send_signal(signal.SIGKILL)
    assert gone(int(children[0]))
    assert gone(int(guard))
    assert server.death() is None


def test_wrong_arguments_end_the_start_with_their_message(tmp_path: Path) -> None:
    with (
        pytest.raises(servers.ServerFailed, match="unrecognized arguments: --enforce-eager"),
        servers.start("embedded", extra_args=["--enforce-eager"], log_dir=tmp_path),
    ):
        pass


def test_a_gguf_of_ones_own_without_llama_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    file = embedded_model.gguf(lambda _: None)
    said: list[str] = []
    with servers.start(f"llama.cpp:{file}", log_dir=tmp_path, notify=said.append) as server:
        assert server.model_name == file.stem
        assert server.context == 2048
    assert any("xllamacpp is used" in line for line in said)
