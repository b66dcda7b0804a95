"""`ares-train merge` as a command, and its upload to a stand-in for the Hub over a real socket."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ares_train import cli
from ares_train.checkpoints import CheckpointError
from ares_train.merge import publish
from tests.train.merge_checkpoints import ROOT, made

TOKEN = "hf_notARealToken0123456789"


@dataclass
class Hub:
    """What of the Hub an upload speaks to: repositories, upload modes, large files, commits."""

    address: str = ""
    answer: int = 200
    repositories: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def reply(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        name = "me/model"
        if path == "/api/repos/create":
            wanted = json.loads(body)
            self.repositories[f"{wanted['organization']}/{wanted['name']}"] = bool(
                wanted.get("private") or wanted.get("visibility") == "private"
            )
            return {"url": f"{self.address}/{name}"}
        if path == f"/api/models/{name}/preupload/main":
            modes = [
                {"path": each["path"], "uploadMode": _mode(each["path"]), "shouldIgnore": False, "oid": None}
                for each in json.loads(body)["files"]
            ]
            return {"files": modes}
        if path == f"/{name}.git/info/lfs/objects/batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.address}/put/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return {"transfer": "basic", "objects": objects}
        if method == "PUT":
            self.large[path.removeprefix("/put/")] = body
            return {}
        if path == f"/api/models/{name}/commit/main":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.files[value["path"]] = self.large[value["oid"]]
            return {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.address}/{name}/commit/{'0' * 40}"}
        return {}


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.split("?")[0]
            # Large files go to storage, which has addresses of its own and is shown no token.
            shown = self.headers.get("Authorization")
            allowed = shown == f"Bearer {TOKEN}" or self.command == "PUT"
            hub.asked.append(f"{self.command} {path}")
            status = hub.answer if allowed else 401
            made_of = hub.reply(self.command, path, body) if status == 200 else {"error": f"no: {shown}"}
            data = json.dumps(made_of).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(*words: object, hub: Hub) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ares_train.cli", "merge", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=kept | own, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def actor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory) / "run-w3" / "global_step_5" / "actor"


def test_merged_checked_and_uploaded(actor: Path, tmp_path: Path) -> None:
    with serving(Hub()) as hub:
        ended = run(
            "--local_dir", actor, "--target_dir", tmp_path / "out", "--hf_upload_path", "me/model", "--private", hub=hub
        )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"checked: 26 tensors equal .* bit by bit", ended.stdout)
    assert re.search(r"126,216 parameters in 26 tensors, float32\nsource sha256:[0-9a-f]{64}\n", ended.stdout)
    assert ended.stdout.endswith(f"uploaded to {hub.address}/me/model\n")
    assert hub.repositories == {"me/model": True}
    here = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.files == here and len(here["model.safetensors"]) > 500_000
    for text in (ended.stdout, ended.stderr, *(data.decode("latin-1") for data in here.values())):
        assert TOKEN not in text


@pytest.mark.parametrize(
    ("answer", "token", "said"),
    [
        (200, "hf_another", "401: the token is not valid"),
        (403, TOKEN, "403: the token may not write there"),
        (500, TOKEN, "500: see its status page"),
    ],
)
def test_what_the_hub_refuses_is_said_without_the_token(answer: int, token: str, said: str, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    (tmp_path / "config.json").write_text("{}")
    with serving(Hub(answer=answer)) as hub, pytest.raises(CheckpointError) as caught:
        publish.upload(tmp_path, "me/model", api=HfApi(endpoint=hub.address, token=token))
    assert str(caught.value) == f"upload to me/model: the Hub answered {said}; the folder is at {tmp_path}"
    assert hub.asked and not hub.files and caught.value.__suppress_context__


def test_no_hub_to_speak_to(tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    with serving(Hub()) as hub:
        address = hub.address
    with pytest.raises(CheckpointError, match=r"upload to me/model: Connect\w+; the folder is at .*, try again"):
        publish.upload(tmp_path, "me/model", api=HfApi(endpoint=address, token=TOKEN))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--hf-upload-path", "me/model"), 1, "no token; run `hf auth login` or set HF_TOKEN"),
        (("--hf_upload_path", "me/too/deep"), 1, "--hf_upload_path: Repo id must be in the form"),
        (("--private",), 2, "--private says how to upload; add --hf_upload_path"),
    ],
)
def test_what_is_refused_before_anything_is_merged(
    words: tuple[str, ...],
    code: int,
    said: str,
    actor: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert cli.main(["merge", "--local-dir", str(actor), "--target-dir", str(tmp_path / "out"), *words]) == code
    shown = capsys.readouterr()
    assert said in shown.err and len(shown.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_hyphens_and_underscores_and_one_line_for_a_fault(
    actor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["merge", "--local-dir", str(actor), "--target-dir", str(tmp_path / "out"), "--no_check"]
    assert cli.main([*words, "--dtype", "bfloat16"]) == 0
    first = capsys.readouterr().out
    assert "26 tensors, bfloat16" in first and "checked:" not in first
    assert cli.main([*words, "--dtype", "bfloat16"]) == 0
    assert "holds this checkpoint already" in capsys.readouterr().out
    assert cli.main([*words, "--dtype", "float32"]) == 1
    assert re.fullmatch(r"ares-train merge: .*out: exists and is not this merge; .*--force\n", capsys.readouterr().err)
    assert cli.main(["merge", "--local_dir", str(tmp_path / "nothing")]) == 1
    assert "nothing: no such folder" in capsys.readouterr().err


def test_a_file_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    assert cli.main(["merge", "--local_dir", str(file)]) == 1
    assert f"{file}: a file; give the folder of the checkpoint or of the run" in capsys.readouterr().err
