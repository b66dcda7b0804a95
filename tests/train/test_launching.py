"""verl's child processes: their environment, their output and exit code, and that none of them is left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ares_train import launching
from ares_train.launching import Device

CPU, GPUS = Device("cpu", 8), Device("cuda", 4)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def run(code: str, tmp_path: Path, **extra: str) -> tuple[launching.Ended, str, str]:
    shown, log = io.BytesIO(), tmp_path / "log"
    ended = launching.run(python(code), extra, log, show=shown)
    return ended, shown.getvalue().decode(), log.read_text()


def test_output_is_shown_and_kept_and_the_exit_code_is_the_childs(tmp_path):
    code = "import os, sys; print('one'); print(os.environ['HELLO'], file=sys.stderr, flush=True); sys.exit(7)"
    ended, shown, log = run(code, tmp_path, HELLO="two")
    assert ended.code == 7
    assert shown == log
    assert sorted(ended.tail.splitlines()) == ["one", "two"]


def test_a_child_that_a_signal_ended_has_128_and_the_signal(tmp_path):
    ended, _, _ = run("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert ended.code == 137


def test_the_log_of_a_second_run_follows_the_first(tmp_path):
    run("print('first')", tmp_path)
    _, shown, log = run("print('second')", tmp_path)
    assert shown == "second\n"
    assert log == "first\nsecond\n"


def test_a_long_output_is_whole_and_its_tail_is_its_end(tmp_path):
    ended, shown, _ = run("for n in range(30000): print(n)", tmp_path)
    assert shown.splitlines() == [str(n) for n in range(30000)]
    assert ended.tail.splitlines() == [str(n) for n in range(30000 - launching.TAIL_LINES, 30000)]


def test_a_process_in_a_session_of_its_own_does_not_outlive_the_child(tmp_path):
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        "start_new_session=True); print(p.pid)"
    )
    _, shown, _ = run(code, tmp_path)
    assert gone(int(shown))


LAUNCHER = """
import sys
from pathlib import Path
from ares_train import launching
launching.STOP_GRACE = float(sys.argv[2])
child = '''
import os, signal, subprocess, sys, time
{before}
far = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("pids", os.getpid(), far.pid, flush=True)
time.sleep(600)
'''
sys.exit(launching.run([sys.executable, "-c", child], {{}}, Path(sys.argv[1])).code)
"""


def gone(pid: int) -> bool:
    """Whether the process ends within 20 seconds (a zombie has ended)."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("number", "before", "grace", "code"),
    [
        (signal.SIGTERM, "", "20", 143),
        (signal.SIGINT, "", "20", 130),
        (signal.SIGTERM, "signal.signal(signal.SIGTERM, signal.SIG_IGN)", "0.5", 143),
        (signal.SIGKILL, "", "2", -9),
    ],
    ids=["SIGTERM", "Ctrl-C", "a child that ignores SIGTERM", "kill -9 of the launcher"],
)
def test_ending_the_launcher_ends_everything_that_it_started(number, before, grace, code, tmp_path):
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER.format(before=before), str(tmp_path / "log"), grace],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert launcher.stdout is not None
    line = next(line for line in launcher.stdout if line.startswith("pids"))
    child, far = (int(word) for word in line.split()[1:])
    launcher.send_signal(number)
    assert launcher.wait(60) == code
    assert gone(child)
    if number == signal.SIGKILL:
        # Nobody is left who knows of a process in another session: verl's own parents end theirs on SIGTERM.
        os.kill(far, signal.SIGKILL)
    assert gone(far)


def test_the_environment_of_a_cpu_run_names_platform_plugin_and_threads(monkeypatch):
    for name in ("VERL_USE_EXTERNAL_MODULES", "OMP_NUM_THREADS", "VERL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    ours = launching.environment(CPU, processes=2)
    assert ours["VERL_PLATFORM"] == "cpu"
    assert ours["VERL_USE_EXTERNAL_MODULES"] == "ares_train.plugin"
    assert ours["OMP_NUM_THREADS"] == "4"
    assert "HF_HUB_OFFLINE" not in ours
    assert launching.environment(CPU, offline=True)["HF_HUB_OFFLINE"] == "1"


def test_a_gpu_run_keeps_the_platform_that_verl_finds_and_the_users_modules(monkeypatch):
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "mine,ares_train.plugin")
    ours = launching.environment(GPUS)
    assert "VERL_PLATFORM" not in ours
    assert "CUDA_VISIBLE_DEVICES" not in ours
    assert ours["VERL_USE_EXTERNAL_MODULES"] == "mine,ares_train.plugin"


def test_no_secret_of_ours_is_in_what_is_added(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "very-secret")
    assert "very-secret" not in str(launching.environment(CPU))


def test_command_lines():
    assert launching.command("verl.x", ["a=1"]) == [sys.executable, "-m", "verl.x", "a=1"]
    words = launching.command("verl.x", ["a=1"], processes=3)
    assert "--nproc-per-node=3" in words
    assert words[-3:] == ["-m", "verl.x", "a=1"]


def test_the_device_says_what_it_is():
    assert str(CPU) == "CPU backend: for tests and laptops"
    assert str(GPUS) == "4 GPU(s)"
