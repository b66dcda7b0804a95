"""The hub's own clients read datasets from the loopback server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import loopback

READ = """
import datasets, json, sys
name, *more = sys.argv[1:]
try:
    rows = datasets.load_dataset(name, split="test", **json.loads(more[0]))
    print(json.dumps([[row["question"], list(row["image"].size), row["image"].format] for row in rows]))
except Exception as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A hub with an open and a gated dataset of two pictures."""
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    root = tmp_path_factory.mktemp("hub")

    def cell(colour: str, width: int) -> dict:
        stream = io.BytesIO()
        Image.new("RGB", (width, 6), colour).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": f"{colour}.png"}

    features = {"info": {"features": {"question": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}}}
    table = pyarrow.table({"question": ["one?", "two?"], "image": [cell("red", 8), cell("blue", 9)]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    for name in ("pictures", "secret"):
        folder = root / "acme" / name
        (folder / "data").mkdir(parents=True)
        pyarrow.parquet.write_table(table, folder / "data" / "test-00000-of-00001.parquet")
        (folder / "README.md").write_text("---\nlicense: mit\n---\n# Pictures\n")
    with loopback.start(hub=root, hub_gated="acme/secret", hub_token="hf_right") as server:
        yield server


def read(server: loopback.Server, home, name: str, **options):
    """The dataset's rows as another process reads them, or its error."""
    environment = {**os.environ, "HF_ENDPOINT": server.root, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    for variable in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        environment.pop(variable, None)
    done = subprocess.run(
        [sys.executable, "-c", READ, name, json.dumps(options)], env=environment, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


ROWS = [["one?", [8, 6], "PNG"], ["two?", [9, 6], "PNG"]]


def test_a_dataset_with_pictures(hub, tmp_path):
    assert read(hub, tmp_path, "acme/pictures") == ROWS


def test_a_gated_dataset_opens_with_its_token_only(hub, tmp_path):
    assert "gated" in read(hub, tmp_path, "acme/secret")["text"]
    assert "gated" in read(hub, tmp_path, "acme/secret", token="hf_other")["text"]
    assert read(hub, tmp_path, "acme/secret", token="hf_right") == ROWS


def test_what_is_not_there(hub, tmp_path):
    assert "doesn't exist" in read(hub, tmp_path, "acme/none")["text"]
    assert "doesn't exist" in read(hub, tmp_path, "acme/pictures", revision="never")["text"]


def test_the_hub_client(hub, tmp_path):
    """huggingface_hub: listing, paths-info, downloads with caching by ETag, ranges."""
    from huggingface_hub import HfApi, HfFileSystem

    api = HfApi(endpoint=hub.root, token=False)
    assert api.list_repo_files("acme/pictures", repo_type="dataset") == [
        "README.md",
        "data/test-00000-of-00001.parquet",
    ]
    info = api.dataset_info("acme/pictures")
    assert (info.id, info.gated, len(info.sha)) == ("acme/pictures", False, 40)
    found = api.get_paths_info("acme/pictures", ["README.md", "data", "none"], repo_type="dataset")
    assert [each.path for each in found] == ["README.md", "data"]
    hub.reset()
    for _ in range(2):
        path = api.hf_hub_download("acme/pictures", "README.md", repo_type="dataset", cache_dir=tmp_path)
        assert "# Pictures" in Path(path).read_text()
    fetched = [name for name in hub.stats()["other"] if name.startswith("GET") and "README" in name]
    assert [hub.stats()["other"][name] for name in fetched] == [1]
    system = HfFileSystem(endpoint=hub.root, token=False)
    with system.open("datasets/acme/pictures/README.md", block_size=8) as file:
        file.seek(4)
        assert file.read(7) == b"license"
