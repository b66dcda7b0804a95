"""What a hostile reply can do in the process that runs VLMEvalKit's scorers: nothing but spoil scores."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ares_eval.integrations import vlmeval_process as process
from ares_eval.integrations.vlmeval_stand_ins import literal

LINUX = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")

ATTEMPTS = """
    import os, signal, socket, subprocess, urllib.request
    def attempt(name, act):
        try:
            act()
            print(name, "done")
        except BaseException as error:
            print(name, type(error).__name__)
    parent = os.getppid()
    attempt("socket", lambda: socket.socket())
    attempt("fetch", lambda: urllib.request.urlopen("http://127.0.0.1:1"))
    attempt("run", lambda: subprocess.run(["/bin/true"]))
    attempt("shell", lambda: 1 / (os.system("true") == 0))
    attempt("write", lambda: open(outside, "w"))
    attempt("append", lambda: open(victim, "a"))
    attempt("delete", lambda: os.remove(victim))
    attempt("rename", lambda: os.rename(victim, victim + "2"))
    attempt("link", lambda: os.symlink("/", victim + "3"))
    attempt("signal", lambda: os.kill(parent, 0))
    attempt("session", lambda: os.setsid())
    attempt("read", lambda: open(secret).read())
    attempt("environment", lambda: open(f"/proc/{parent}/environ").read())
    attempt("memory", lambda: bytearray(3 << 30))
    attempt("own", lambda: open(own + "/file", "w").write("x"))
"""


def locked(folder: Path, program: str, before: str = "") -> str:
    """What a locked program prints."""
    own = folder / "own"
    own.mkdir()
    (folder / "victim").write_text("x")
    (folder / "secret").write_text("x")
    head = f"""
        import sys
        from pathlib import Path
        from ares_eval.integrations import vlmeval_locks as locks
        {before}
        own, outside, victim, secret = {[str(folder / name) for name in ("own", "outside", "victim", "secret")]}
        roots = [Path(sys.prefix), Path(sys.base_prefix), Path("/usr"), Path("/lib"), Path("/lib64")]
        print(locks.lock(Path(own), roots, memory_bytes=2 << 30, cpu_seconds=60))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not LINUX, reason="locks are Linux's")
@pytest.mark.parametrize("landlock", [True, False])
def test_nothing_leaves_the_own_folder(tmp_path: Path, landlock: bool) -> None:
    before = "" if landlock else "locks._landlock = lambda *_: 0"
    said = locked(tmp_path, ATTEMPTS, before)
    lines = dict(line.split() for line in said.splitlines()[1:])
    assert "seccomp" in said.splitlines()[0]
    assert lines.pop("own") == "done"
    assert "done" not in lines.values(), lines
    assert len(lines) == 14
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "secret", "victim"]


def test_the_child_gets_no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_API_KEY", "JUDGE_API_KEY", "HF_TOKEN", "https_proxy", "LOCAL_LLM"):
        monkeypatch.setenv(name, "secret-0123456789")
    assert "secret-0123456789" not in json.dumps(process._environment(tmp_path))
    assert set(process._environment(tmp_path)).isdisjoint({"PATH", "PYTHONPATH", "OPENAI_API_KEY"})


# ---------------------------------------------------------------- expressions


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("['a', 'b']", ["a", "b"]),
        ("  (1, 2.5)", (1, 2.5)),
        ("-3*(2+4)/2**2 % 5", -3 * (2 + 4) / 2**2 % 5),
        ("{'a': [1], 'b': {2}}", {"a": [1], "b": {2}}),
        ("'x' + 'y'", "xy"),
        ("None", None),
    ],
)
def test_literals_and_arithmetic_are_evaluated(source: str, value: object) -> None:
    assert literal(source) == value


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("__import__('os').system('true')", NameError),
        ("a", NameError),
        ("[x for x in (1,)]", NameError),
        ("(lambda: 0)()", NameError),
        ("'a'.__class__", NameError),
        ("f'{1}'", NameError),
        ("**", SyntaxError),
        ("the answer", SyntaxError),
        ("9**9**9**9", OverflowError),
        ("10**100000", OverflowError),
        ("'a' * 10**9", TypeError),
        ("1/0", ZeroDivisionError),
        ("(" * 500 + ")" * 500, SyntaxError),
        ("-" * 50_000 + "1", NameError),
        ("1" + "+1" * 90_000, NameError),
    ],
)
def test_anything_else_is_refused(source: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        literal(source)


# ---------------------------------------------------------------- with VLMEvalKit


@pytest.fixture
def vlmevalkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    try:
        importlib.metadata.distribution("ms-vlmeval")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("VLMEvalKit is not installed (pip install --no-deps ms-vlmeval==0.0.20)")
    monkeypatch.setenv("ARES_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_hostile_replies_are_wrong_answers_and_nothing_else(vlmevalkit: Path) -> None:
    """VLMEvalKit evaluates replies as Python: `is_equal` of MathVision runs what stands in them."""
    from ares_eval.integrations import vlmeval_data as data
    from ares_eval.integrations.vlmeval_task import evaluate
    from tests.integrations import vlmeval_tables as tables

    touched = vlmevalkit / "touched"
    hostile = f"__import__('os').system('touch {touched}')"
    name = "MathVision_MINI"
    tables.write(vlmevalkit / "tables", name)
    dataset = data.index().datasets[name]
    table = data.find(name, dataset, vlmevalkit / "tables")
    replies = {"1": hostile, "2": "9**9**9**9", "3": "Answer: B", "4": "line"}
    (found,) = evaluate(name, dataset, table, [replies], None)
    assert not touched.exists()
    assert {index: row.score for index, row in found.rows.items()} == {"1": 0.0, "2": 0.0, "3": 1.0, "4": 0.0}
    assert found.share == 0.25


def children() -> set[int]:
    """This process's children, ended and not reaped ones included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def test_a_child_that_says_nothing_or_too_much_is_ended(vlmevalkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    for number, (program, kind) in enumerate(
        [
            ("import time; time.sleep(60)", "timeout"),
            ("raise SystemExit(3)", "ended"),
            ("print('no answer', flush=True)", "malformed"),
            ("print('[1]', flush=True)", "malformed"),
        ]
    ):
        monkeypatch.setattr(process, "_PROGRAM", program)
        own = vlmevalkit / f"own{number}"
        own.mkdir()
        with pytest.raises(process.ChildFailed) as failed:
            process.run("index", own, seconds=1.5)
        assert failed.value.kind == kind
        assert children() <= before


def test_what_a_reply_says_is_read_back_as_it_was(vlmevalkit: Path) -> None:
    """A table read by pandas alone turns "007" into 7.0 and "NA" into NaN; a reply of 40,000 characters stays whole."""
    from ares_eval.integrations import vlmeval_data as data
    from ares_eval.integrations.vlmeval_process import Question
    from ares_eval.integrations.vlmeval_task import evaluate
    from ares_eval.tasks.scoring import JudgeModel
    from tests.integrations import vlmeval_tables as tables

    name = "CharXiv_reasoning_val"
    tables.write(vlmevalkit / "tables", name)
    dataset = data.index().datasets[name]
    table = data.find(name, dataset, vlmevalkit / "tables")
    seen: list[str] = []

    def complete(questions: list[tuple[str | None, str]]) -> list[str | None]:
        seen.extend(prompt.rpartition("Response: ")[2] for _, prompt in questions)
        return [json.dumps({"extract_answer": "", "score": 0})] * len(questions)

    long = "word " * 8000 + "\\boxed{5}"
    evaluate(name, dataset, table, [{"1": "007", "2": "NA", "3": long}], JudgeModel("j", complete))
    assert sorted(seen) == sorted(["007", "NA", long])
    assert Question("p").row == {}
