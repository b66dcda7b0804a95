"""kill -9 at random moments of lengths, select, write and report: the files of the run that ends are those of one that
was never killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.train import adacs_stages
from tests.train.adacs_pool import Draw, Planted, plant

KILLS = 6


def pool() -> list[Planted]:
    return [
        Planted(f"q{i:04}", [Draw(50 + 7 * k, int(k < i % 9), text=f"{i} {k} " * 40) for k in range(8)])
        for i in range(900)
    ]


def everything(work: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(work)): file.read_bytes()
        for file in sorted(work.rglob("*"))
        if file.is_file() and file.suffix in (".json", ".parquet", ".html", ".md")
    }


def test_killed_runs_leave_the_same_files(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        plant(tmp_path / name, pool(), parts=30, texts=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.train.adacs_stages"]
    subprocess.run([*command, tmp_path / "whole"], check=True, stdout=subprocess.DEVNULL)
    lasted = time.monotonic() - began
    chance = random.Random(0)
    died = 0
    # The earliest first: the more is done, the sooner a run ends by itself.
    for share in sorted(chance.uniform(0.1, 1.0) for _ in range(KILLS)):
        process = subprocess.Popen([*command, tmp_path / "killed"], stdout=subprocess.DEVNULL)
        try:
            process.wait(lasted * share)
        except subprocess.TimeoutExpired:
            process.kill()
        died += process.wait() == -signal.SIGKILL
    adacs_stages.run(tmp_path / "killed")
    assert everything(tmp_path / "killed") == everything(tmp_path / "whole")
    assert died, "no run was killed before its end"
