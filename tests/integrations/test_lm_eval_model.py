"""`ares-lm-eval`, and our task files in stock lm-eval: both command lines as they are, against the loopback server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ares_eval import cli, resources
from tests import loopback
from tests.integrations import lm_eval_data as data

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'ares[lm-eval]'")

SECRET = "sk-from-the-environment-98765"
# lm-eval indexes its 14,000 files on every start, ten seconds each time; the tasks of these tests are all included.
WITHOUT_INDEX = """
import sys
import lm_eval.tasks.manager as manager
made = manager.TaskManager.__init__
manager.TaskManager.__init__ = lambda self, *a, **k: made(self, *a, **{**k, "include_defaults": False})
"""
OURS = WITHOUT_INDEX + "from ares_eval.integrations.lm_eval_command import main; sys.exit(main())"
STOCK = WITHOUT_INDEX + "from lm_eval.__main__ import cli_evaluate; cli_evaluate()"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    data.folder(tmp_path / "yaml")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    yield tmp_path


def run(
    program: str, place: Path, model_args: str, *words: str, include: Path | None = None
) -> subprocess.CompletedProcess[str]:
    include = include or place / "yaml"
    command = [sys.executable, "-c", program, "--include_path", str(include), "--output_path", str(place / "out")]
    return subprocess.run(
        [*command, "--log_samples", "--model_args", model_args, *words],
        capture_output=True, text=True, cwd=place, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip


def results(place: Path) -> dict[str, Any]:
    newest = max((place / "out").glob("**/results_*.json"), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(newest.read_text())["results"]


def scores(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if "," in key and "stderr" not in key}


def test_the_same_numbers_and_the_same_cache_both_ways(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused request ends it with a line; the same command goes on; `lm:TASK` then finds everything in the cache."""
    chat = ["--tasks", "our_draws", "--apply_chat_template", "--limit", "5"]
    options: dict[str, Any] = {
        "dialect": "vllm", "answers": data.ANSWERS, "draws": "successive", "wrong": 0.4, "tokens": 12,
        "answer_format": "The answer is {answer}.", "api_key": SECRET,
    }  # fmt: skip
    with loopback.start(**options, fault_when=["box 3?=filter-400"]) as server:
        args = f"model=m,base_url={server.url},num_concurrent=3,cache_dir={place / 'cache'}"
        done = run(OURS, place, args, *chat)
    assert done.returncode == 1
    assert "ares-lm-eval: 3 requests were not answered" in done.stderr
    assert "Traceback" not in done.stderr
    with loopback.start(**options, keep_bodies=True) as server:
        args = f"model=m,base_url={server.url},num_concurrent=3,cache_dir={place / 'cache'}"
        done = run(OURS, place, args, *chat)
        assert done.returncode == 0, done.stderr
        assert server.stats()["requests"] == 3
        plain = run(OURS, place, args, "--tasks", "our_choice", "--limit", "5")
        assert plain.returncode == 0, plain.stderr
        asked = server.stats()["requests"]
        rows = [results(place)["our_choice"]]
        run(OURS, place, args, *chat)
        rows.insert(0, results(place)["our_draws"])
        names = [f"lm:{place}/yaml/{name}" for name in ("our_draws", "our_choice")]
        words = ["--model-name", "m", "--openai-base-url", server.url, "--datasets", ",".join(names), "--limit", "5"]
        words += ["--cache-dir", str(place / "cache"), "--output-dir", str(place / "runs"), "--quiet", "--json"]
        assert cli.main(words) == 0
        assert server.stats()["requests"] == asked
    shown = json.loads(capsys.readouterr().out)["tasks"]
    for name, row in zip(names, rows, strict=True):
        (ours,) = shown[name]["metrics"]["lm_eval"]["results"].values()
        assert scores(ours) == scores(row)
    assert 0 < rows[0]["exact_match,first"] < 1
    samples = [json.loads(line) for line in next((place / "out").glob("**/samples_our_draws_*.jsonl")).open()]
    assert any(len(set(sample["resps"][0])) > 1 for sample in samples), "draws of their own"
    written = [path.read_text() for path in (place / "out").glob("**/*.json*")]
    assert written
    assert not any(SECRET in text for text in [*written, done.stdout, done.stderr])


def test_pictures_at_their_marks(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.hub(tmp_path / "hub")
    tasks = Path(lm_eval.__file__).parent / "tasks" / "mmmu"
    with loopback.start(hub=str(tmp_path / "hub"), dialect="vllm", answers=data.ANSWERS, keep_bodies=True) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.root)
        words = ["--tasks", "mmmu_val_accounting", "--apply_chat_template"]
        done = run(OURS, place, f"model=m,base_url={server.url}/chat/completions,no_cache=True", *words, include=tasks)
        assert done.returncode == 0, done.stderr
        bodies = [json.loads(one["body"]) for one in server.requests() if one["path"].endswith("/chat/completions")]
    assert len(bodies) == 4
    kinds = [[part["type"] for part in body["messages"][-1]["content"]] for body in bodies]
    assert kinds.count(["text", "image_url", "text", "image_url", "text"]) == 3
    assert kinds.count(["text", "image_url", "text"]) == 1


@pytest.mark.parametrize(
    ("args", "words", "said"),
    [
        ("model=m,base_url=URL,api_key=sk-1", [], "api_key would be printed and written"),
        ('{"model": "m", "auth_token": "sk-1"}', [], "auth_token would be printed and written"),
        ("model=m,base_ur=URL", [], "takes no base_ur; did you mean base_url?"),
        ("base_url=URL", [], "needs the model's name"),
        ("model=m,base_url=URL", ["--apply_chat_template"], "our_choice asks for log-likelihoods"),
    ],
)
def test_what_is_refused(place: Path, args: str, words: list[str], said: str) -> None:
    url = "http://127.0.0.1:9/v1"
    done = run(OURS, place, args.replace("URL", url), "--tasks", "our_choice", "--limit", "1", *words)
    assert done.returncode == 2, done.stderr
    assert "ares-lm-eval: " in done.stderr
    assert said in done.stderr
    assert "sk-1" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_our_tasks_run_in_stock_lm_eval(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lm_eval --include_path tasks --tasks ares_gsm8k --model local-chat-completions`: our prompts and verdicts."""
    pytest.importorskip("tenacity", reason="lm-eval's API models need it: pip install 'lm-eval[api]'")
    data.hub(tmp_path / "hub")
    with loopback.start(
        hub=str(tmp_path / "hub"), answers=data.ANSWERS, wrong=0.4, tokens=20, keep_bodies=True
    ) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.root)
        words = ["--tasks", "ares_gsm8k", "--model", "local-chat-completions", "--apply_chat_template"]
        args = f"model=m,base_url={server.url}/chat/completions,num_concurrent=2"
        done = run(STOCK, place, args, *words, include=resources.folder("tasks"))
        assert done.returncode == 0, done.stderr
        theirs = results(place)["ares_gsm8k"]
        sent = [json.loads(one["body"])["messages"] for one in server.requests() if one["path"].endswith("completions")]
        ours = ["--model-name", "m", "--openai-base-url", server.url, "--datasets", "gsm8k", "--system-prompt", ""]
        ours += ["--no-cache", "--output-dir", str(place / "runs"), "--quiet", "--json", "--limit", str(len(sent))]
        ours += ["--seed", "1234"]  # lm-eval's own, which the server's wrong answers depend on
        # The Hub of this test is in the environment of children only: our reader gets the file itself.
        native = place / "data" / "gsm8k" / "grade_school_math" / "data"
        native.mkdir(parents=True)
        (native / "test.jsonl").write_text((tmp_path / "hub" / "openai" / "gsm8k" / "main" / "test.jsonl").read_text())
        assert cli.main([*ours, "--dataset-dir", str(place / "data")]) == 0
        bodies = [json.loads(one["body"]) for one in server.requests() if one["path"].endswith("/chat/completions")]
    key = lambda messages: json.dumps(messages, sort_keys=True)  # noqa: E731
    assert len(sent) == 6
    assert sorted(map(key, sent)) == sorted(key(body["messages"]) for body in bodies[len(sent) :])
    task = json.loads(capsys.readouterr().out)["tasks"]["gsm8k"]
    assert theirs["acc,ares"] == task["metrics"]["accuracy"]
    assert 0 < theirs["acc,ares"] < 1
