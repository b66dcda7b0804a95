"""The hub, over its protocol on the loopback server: rows, commits, cache, and every way it can refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tasks import tiny

SCRIPT = """
import json, sys
from ares_eval.tasks import TaskError, load
from tests.tasks import tiny
try:
    task = load("tiny", dataset_dir=sys.argv[2] or None, include_path=[sys.argv[1]])
    samples = [tiny.plain(sample) for sample in task.samples()]
    for sample in samples:
        for _, parts in sample[6]:
            parts[:] = [part if isinstance(part, str) else len(part) for part in parts]
    print(json.dumps({"source": task.source, "digest": task.dataset_digest, "size": task.size, "samples": samples}))
except TaskError as error:
    print(json.dumps({"error": str(error)}))
"""
"""The libraries read their environment when they are imported, so each case is a process."""


def asked(folder: Path, endpoint: str, environment: Mapping[str, str] | None = None, data: str = "") -> dict[str, Any]:
    variables = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), **(environment or {})}
    words = [sys.executable, "-c", SCRIPT, str(folder / "tasks"), data]
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert "secret-token" not in done.stdout + done.stderr
    return told


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub with org/tiny, and the task file that asks for it."""
    tiny.parquet(tmp_path / "hub" / "org" / "tiny" / "data" / "test-00000-of-00001.parquet")
    tiny.task_file(tmp_path / "tasks")
    return tmp_path / "hub"


def test_rows_come_from_the_hub_and_then_from_its_cache(
    tmp_path: Path, hub: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback(hub=str(hub))
    first = asked(tmp_path, server.root)
    assert first["source"] == "hub: org/tiny (split test)"
    assert first["size"] == 3
    assert len(first["digest"]) == 40
    sizes = [[len(data) for data in row["pictures"]] for row in tiny.ROWS]
    assert [sample[6][0][1] for sample in first["samples"]] == [
        ["one ", sizes[0][0], " two"],
        ["none"],
        ['a "quoted"\tline\nand ', sizes[2][1], " then ", sizes[2][0]],
    ]
    offline = asked(tmp_path, server.root, {"HF_HUB_OFFLINE": "1"})
    assert (offline["samples"], offline["digest"]) == (first["samples"], first["digest"])
    gone = asked(tmp_path, "http://127.0.0.1:9")
    assert (gone["samples"], gone["digest"]) == (first["samples"], first["digest"])
    assert "from its cache" in gone["source"]


def test_a_gated_dataset_needs_a_token(tmp_path: Path, hub: Path, start_loopback: Callable[..., Any]) -> None:
    server = start_loopback(hub=str(hub), hub_gated="org/tiny", hub_token="secret-token")
    without = asked(tmp_path, server.root)["error"]
    assert "org/tiny is gated" in without
    assert "set HF_TOKEN" in without
    refused = asked(tmp_path, server.root, {"HF_TOKEN": "another-secret-token"})["error"]
    assert "ask for access" in refused
    assert asked(tmp_path, server.root, {"HF_TOKEN": "secret-token"})["size"] == 3


def test_what_is_not_there_is_one_line_with_its_mend(
    tmp_path: Path, hub: Path, start_loopback: Callable[..., Any]
) -> None:
    server = start_loopback(hub=str(hub))
    tiny.task_file(tmp_path / "tasks", tiny.YAML.replace("org/tiny", "org/none"))
    (tmp_path / "data").mkdir()
    absent = asked(tmp_path, server.root, data=str(tmp_path / "data"))["error"]
    assert absent.startswith(f"tiny: data unavailable: nothing for it in {tmp_path / 'data'}; the hub has no dataset")
    assert "--dataset-dir" in absent
    assert "HF_HUB_OFFLINE" in asked(tmp_path, server.root, {"HF_HUB_OFFLINE": "1"})["error"]
    assert "cannot be reached" in asked(tmp_path, "http://127.0.0.1:9")["error"]
    tiny.task_file(tmp_path / "tasks", tiny.YAML.replace("dataset_path", "test_split: nothere\ndataset_path"))
    assert "has no split nothere, only test" in asked(tmp_path, server.root)["error"]
    tiny.task_file(tmp_path / "tasks", tiny.YAML.replace("dataset_path", "dataset_name: other\ndataset_path"))
    assert "other" in asked(tmp_path, server.root)["error"]


def test_two_endpoints_do_not_mix(tmp_path: Path, hub: Path, start_loopback: Callable[..., Any]) -> None:
    other = tmp_path / "other"
    tiny.parquet(other / "org" / "tiny" / "data" / "test-00000-of-00001.parquet", tiny.ROWS[1:])
    one = asked(tmp_path, start_loopback(hub=str(hub)).root)
    two = asked(tmp_path, start_loopback(hub=str(other)).root)
    assert (one["size"], two["size"]) == (3, 2)
    assert one["digest"] != two["digest"]
