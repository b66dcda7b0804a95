"""The digest of weights: it follows contents and nothing else, and an unchanged large file is not read again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ares_eval.inference.servers import weights


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARES_CACHE", str(tmp_path / "cache"))


def model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_file_is_its_sha256(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    assert weights.digest(file) == "sha256:" + hashlib.sha256(b"GGUF").hexdigest()


def test_a_folder_follows_its_model_files_only(tmp_path: Path) -> None:
    one, two = model(tmp_path / "one"), model(tmp_path / "two")
    (two / "README.md").write_text("about")
    (two / ".cache.json").write_text("hidden")
    (two / "runs").mkdir()
    before = weights.digest(one)
    assert weights.digest(two) == before
    (two / "model.safetensors").write_bytes(b"weightz")
    assert weights.digest(two) != before
    (one / "model.safetensors").rename(one / "other.safetensors")
    assert weights.digest(one) != before


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model(tmp_path / "one")
    before = weights.digest(folder)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert weights.digest(folder) == before


def test_a_file_changed_in_place_is_seen_by_its_time(tmp_path: Path) -> None:
    folder = model(tmp_path / "one")
    before = weights.digest(folder)
    file = folder / "model.safetensors"
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert weights.digest(folder) != before


@pytest.mark.parametrize("memory", [b"", b"[]", b"\xff", b'{"/x": 3}'])
def test_a_damaged_memory_is_only_slower(tmp_path: Path, memory: bytes) -> None:
    folder = model(tmp_path / "one")
    before = weights.digest(folder)
    (tmp_path / "cache" / "digests.json").write_bytes(memory)
    assert weights.digest(folder) == before


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ARES_CACHE", str(tmp_path / "file" / "below"))
    assert weights.digest(model(tmp_path / "one")).startswith("sha256:")


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert weights.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("ARES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "ares"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert weights.cache_folder() == tmp_path / "home" / ".cache" / "ares"
