"""No test of this folder reaches a network or the user's own hub cache, or changes how long a CSV field may be."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def csv_limit() -> Iterator[None]:
    """The limit is the process's, and reading a TSV sets it."""
    before = csv.field_size_limit()
    yield
    csv.field_size_limit(before)


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is a port on this machine where nobody listens."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
