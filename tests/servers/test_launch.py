"""`--serve`: what it may say, and the exact command line of each kind of server, run against a fake program."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ares_eval.inference import servers
from ares_eval.inference.servers import ServeSpecError, parse_spec


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "My-Model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 1000}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def argv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The arguments that the fake program was started with, without its own name."""
    monkeypatch.setenv("FAKE_ARGV", str(tmp_path / "argv"))
    return lambda: json.loads((tmp_path / "argv").read_text())[1:]


def without_port(words: list[str], option: str) -> list[str]:
    place = words.index(option)
    assert words[place + 1].isdigit()
    return words[:place] + words[place + 2 :]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "unknown kind of server ''; kinds: embedded, vllm, lmdeploy, llama.cpp, hf"),
        ("vlm:x", "did you mean vllm?"),
        ("llamacpp:x", "did you mean llama.cpp?"),
        ("vllm", "--serve vllm:PATH"),
        ("llama.cpp:", "--serve llama.cpp:FILE.gguf"),
        ("llama.cpp:/no/such.gguf", "there is no such file"),
        ("hf:/no/such/folder", "no such folder, and it is no Hugging Face model name"),
        ("embedded:x", "takes no model"),
    ],
)
def test_what_serve_refuses(text: str, said: str) -> None:
    with pytest.raises(ServeSpecError) as caught:
        parse_spec(text)
    assert said in str(caught.value)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ServeSpecError, match=r"has no config\.json"):
        parse_spec(f"vllm:{tmp_path}")


def test_a_folder_wins_over_a_hub_name(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent.parent)
    local = parse_spec(f"hf:{checkpoint.parent.name}/{checkpoint.name}")
    assert local.path == checkpoint
    assert local.hub is None
    assert servers.served_name(local) == "My-Model"
    assert parse_spec("vllm:Qwen/Qwen2.5-VL-7B-Instruct").hub == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert servers.served_name("vllm:Qwen/Qwen2.5-VL-7B-Instruct") == "Qwen2.5-VL-7B-Instruct"
    assert servers.served_name("embedded") == "smollm2-135m-instruct"


def test_vllm(program: Callable[[str], Path], argv: Callable[[], list[str]], checkpoint: Path, tmp_path: Path) -> None:
    program("vllm")
    with servers.start(f"vllm:{checkpoint}", extra_args=["--max-model-len", "123"], log_dir=tmp_path) as server:
        assert server.model_name == "My-Model"
        assert server.context == 123
        assert server.vocabulary == 1000
        assert server.weights_digest == servers.weights_digest(f"vllm:{checkpoint}")
        assert server.identity["weights"] == server.weights_digest
        assert server.identity["serve_args"] == ["--max-model-len", "123"]
        assert server.death() is None
    assert "the end of its log" in str(server.death())
    assert without_port(argv(), "--port") == [
        *("serve", str(checkpoint), "--served-model-name", "My-Model", "--host", "127.0.0.1", "--max-logprobs", "50"),
        *("--logprobs-mode", "raw_logprobs", "--generation-config", "vllm", "--max-model-len", "123"),
    ]


def test_vllm_for_pictures(
    program: Callable[[str], Path], argv: Callable[[], list[str]], checkpoint: Path, tmp_path: Path
) -> None:
    program("vllm")
    (checkpoint / "config.json").write_text(json.dumps({"vision_config": {}, "text_config": {"vocab_size": 77}}))
    with servers.start(f"vllm:{checkpoint}", model_name="seen", log_dir=tmp_path) as server:
        assert server.model_name == "seen"
        assert server.vocabulary == 77
    assert argv()[-2:] == ["--limit-mm-per-prompt", '{"image": 8}']


def test_vllm_in_an_environment_of_its_own(
    program: Callable[[str], Path],
    argv: Callable[[], list[str]],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARES_VLLM_PYTHON", str(program("python-of-vllm")))
    with servers.start(f"vllm:{checkpoint}", log_dir=tmp_path):
        pass
    assert argv()[:4] == ["-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]


def test_lmdeploy(
    program: Callable[[str], Path], argv: Callable[[], list[str]], checkpoint: Path, tmp_path: Path
) -> None:
    program("lmdeploy")
    with servers.start(f"lmdeploy:{checkpoint}", extra_args=["--tp", "2"], log_dir=tmp_path):
        pass
    assert without_port(argv(), "--server-port") == [
        *("serve", "api_server", str(checkpoint), "--model-name", "My-Model", "--server-name", "127.0.0.1"),
        *("--backend", "pytorch", "--logprobs-mode", "raw_logprobs", "--tp", "2"),
    ]


def test_lmdeploy_in_an_environment_of_its_own(
    program: Callable[[str], Path], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = program("lmdeploy")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("ARES_LMDEPLOY_PYTHON", str(found.with_name("python")))
    with servers.start(f"lmdeploy:{checkpoint}", log_dir=tmp_path) as server:
        assert server.identity["command"][0] == str(found)


def test_llama_cpp(program: Callable[[str], Path], argv: Callable[[], list[str]], tmp_path: Path) -> None:
    program("llama-server")
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF")
    with servers.start(f"llama.cpp:{file}", extra_args=["--mmproj", "p.gguf"], log_dir=tmp_path) as server:
        assert server.model_name == "tiny"
    assert without_port(argv(), "--port") == [
        *("-m", str(file), "--alias", "tiny", "--host", "127.0.0.1", "-np", "4", "-c", "8192"),
        *("--temp", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--mmproj", "p.gguf"),
    ]


@pytest.mark.parametrize(
    ("kind", "mend"),
    [
        ("vllm", "set ARES_VLLM_PYTHON"),
        ("lmdeploy", "set ARES_LMDEPLOY_PYTHON"),
        ("hf", r"pip install 'ares\[hf\]'"),
        ("llama.cpp", r"set ARES_LLAMA_SERVER, or pip install 'ares\[local\]'"),
        ("embedded", r"pip install 'ares\[local\]'"),
    ],
)
def test_a_missing_program_says_its_mend(
    program: Callable[[str], Path],
    kind: str,
    mend: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    absent = ("vllm", "torch", "transformers", "xllamacpp")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else found(name))
    monkeypatch.setenv("PATH", str(tmp_path))
    path = checkpoint / "config.json" if kind == "llama.cpp" else checkpoint
    spec = kind if kind == "embedded" else f"{kind}:{path}"
    with pytest.raises(ServeSpecError, match=mend), servers.start(spec, log_dir=tmp_path):
        pass


def test_an_environment_that_is_not_there(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARES_VLLM_PYTHON", "/no/such/python")
    with (
        pytest.raises(ServeSpecError, match="ARES_VLLM_PYTHON: /no/such/python"),
        servers.start(f"vllm:{checkpoint}", log_dir=tmp_path),
    ):
        pass


def test_a_key_given_to_the_server_is_not_recorded(
    program: Callable[[str], Path], checkpoint: Path, tmp_path: Path
) -> None:
    program("vllm")
    arguments = ["--api-key", "sk-secret"]
    with servers.start(f"vllm:{checkpoint}", extra_args=arguments, log_dir=tmp_path, api_key="sk-secret") as server:
        assert "sk-secret" not in json.dumps(server.identity)
        assert "sk-secret" not in repr(server)
