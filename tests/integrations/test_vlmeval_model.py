"""Our engine as VLMEvalKit's model, on its own base class (light import; the full package was not run here)."""

from __future__ import annotations

import base64
import importlib
import importlib.metadata
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ares_eval.config import load
from ares_eval.integrations import vlmeval_full
from ares_eval.integrations.vlmeval_light import package_folder
from ares_eval.integrations.vlmeval_model import model_class
from tests import loopback
from tests.integrations import vlmeval_tables as tables

try:
    importlib.metadata.distribution("ms-vlmeval")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("VLMEvalKit is not installed (pip install --no-deps ms-vlmeval==0.0.20)", allow_module_level=True)


@pytest.fixture
def model_type(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    before = set(sys.modules)
    root = package_folder()
    for name, folder in (("vlmeval", root), ("vlmeval.api", root / "api")):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        monkeypatch.setitem(sys.modules, name, module)
    importlib.import_module("vlmeval.api.base")
    yield model_class()
    for name in set(sys.modules) - before:
        if name.startswith("vlmeval"):
            del sys.modules[name]


def message(folder: Path) -> list[dict[str, str]]:
    picture = folder / "1.png"
    picture.write_bytes(base64.b64decode(tables.picture(1)))
    kinds = [("text", "See "), ("image", str(picture)), ("text", " and say.")]
    return [{"type": kind, "value": value} for kind, value in kinds]


def test_pictures_stay_between_texts_and_replies_are_cached(tmp_path: Path, model_type: Any) -> None:
    with loopback.start(reply="<think>hm</think>B", keep_bodies=True) as server:
        config = load(
            {"model_name": "m", "openai_base_url": server.url, "cache_dir": tmp_path / "c", "system_prompt": ""}
        )
        model = model_type(config, use_vllm=False)
        assert model.is_api and model.generate(message(tmp_path), dataset="MMStar") == "B"
        assert model.generate(message(tmp_path), dataset="MMStar") == "B"
        (request,) = server.requests()
    (turn,) = (
        json.loads(request["body"])["messages"] if isinstance(request["body"], str) else request["body"]["messages"]
    )
    assert [part["type"] for part in turn["content"]] == ["text", "image_url", "text"]


def test_a_failure_is_their_failure_text(tmp_path: Path, model_type: Any) -> None:
    with loopback.start(fault=["500=1"]) as server:
        config = load({"model_name": "m", "openai_base_url": server.url, "cache_dir": tmp_path / "c", "max_retries": 0})
        said = model_type(config).generate(message(tmp_path))
        assert server.stats()["requests"] == 1, "one layer of retries, ours"
    assert said.startswith("Failed to obtain answer via API.")


def test_thinking_goes_along_where_vlmevalkit_splits_it(
    tmp_path: Path, model_type: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLIT_THINK", "1")
    with loopback.start(reply="<think>hm</think>B") as server:
        config = load({"model_name": "m", "openai_base_url": server.url, "cache_dir": tmp_path / "c"})
        assert model_type(config).generate("Which?") == "<think>hm</think>B"


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert vlmeval_full.main(["--data", "MMStar"]) == 2
    assert "--model-name is missing" in capsys.readouterr().err
    assert vlmeval_full.registered_name("org/Qwen2.5-VL") == "org_Qwen2_5-VL"
    if importlib.util.find_spec("torch") is None:
        assert vlmeval_full.main(["--model-name", "m", "--data", "MMStar"]) == 2
        assert "full package cannot be imported" in capsys.readouterr().err
