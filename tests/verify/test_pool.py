"""The workers: killable, bounded, replaced, never left behind; the same verdicts however they are used."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ares_eval.types import AnswerSpec
from ares_eval.verify import Verifier

HARD = r"\boxed{\int \sin(\cos(\tan(e^{x^x}))) dx}"
ALGEBRA = (r"\boxed{\int_0^1 3t^2\,dt}", "1", AnswerSpec("latex"))


def children() -> list[int]:
    out = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in out.stdout.splitlines() if "ares_eval.verify.worker" in line]


def test_a_timeout_is_its_own_verdict_and_others_go_on() -> None:
    with Verifier(workers=2, cpu_seconds=0.5) as verifier:
        assert verifier.verify(*ALGEBRA).value == "correct"
        slow = verifier.submit(HARD, "1", AnswerSpec("latex"))
        assert verifier.verify(r"\boxed{\int_0^1 4t^3\,dt}", "1", AnswerSpec("latex")).value == "correct"
        verdict = slow.result()
        assert (verdict.value, verdict.reason) == ("unverifiable", "timeout")
        assert verifier.verify(r"\boxed{\int_0^1 5t^4\,dt}", "1", AnswerSpec("latex")).value == "correct"


def test_close_leaves_no_child_and_fast_pairs_start_none() -> None:
    before = set(children())
    with Verifier(workers=2) as verifier:
        assert verifier.submit("The answer is 5.", "5", AnswerSpec("number")).done()
        assert set(children()) == before
        assert verifier.verify(*ALGEBRA).value == "correct"
        assert len(set(children()) - before) == 1
    assert set(children()) == before
    with pytest.raises(RuntimeError, match="closed"):
        verifier.verify(r"\boxed{\int_0^1 7t^6\,dt}", "1", AnswerSpec("latex"))


def test_a_killed_worker_is_replaced() -> None:
    with Verifier(workers=1) as verifier:
        assert verifier.verify(*ALGEBRA).value == "correct"
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        first = verifier.verify(r"\boxed{\int_0^1 6t^5\,dt}", "1", AnswerSpec("latex"))
        assert first.value in ("correct", "unverifiable")
        assert verifier.verify(r"\boxed{\int_0^1 8t^7\,dt}", "1", AnswerSpec("latex")).value == "correct"


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = f"""
import os, subprocess, time
from ares_eval.types import AnswerSpec
from ares_eval.verify import Verifier
verifier = Verifier(workers=1, cpu_seconds=60)
verifier.verify({ALGEBRA[0]!r}, "1", AnswerSpec("latex"))
verifier.submit({HARD!r}, "1", AnswerSpec("latex"))
time.sleep(0.3)
ps = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())]
out = subprocess.run(ps, capture_output=True, text=True).stdout
print([int(l.split()[0]) for l in out.splitlines() if "ares_eval.verify.worker" in l], flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout is not None
    pids = json.loads(parent.stdout.readline())
    assert len(pids) == 1
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pids[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pids[0]}").exists()


MIXED = [
    (r"\boxed{\frac{x^2-1}{x-1}}", "x+1", AnswerSpec("latex")),
    ("The answer is 12.", "12", AnswerSpec("number")),
    ("The answer is 13.", "12", AnswerSpec("number")),
    ("(B)", "B", AnswerSpec("choice", {}, ("u", "v"))),
    (r"\boxed{[1,2)}", r"1 \le x < 2", AnswerSpec("structured")),
    (r"\boxed{\sum_{k=1}^{5} k}", "15", AnswerSpec("latex")),
    (r"\boxed{\sum_{k=1}^{5} k}", "16", AnswerSpec("latex")),
    (r"\boxed{\lim_{h \to 0} \frac{\sin h}{h}}", "1", AnswerSpec("latex")),
]


def test_threads_and_orders_make_no_difference() -> None:
    with Verifier(workers=1) as one:
        expected = [(v.value, v.reason) for v in (one.verify(*pair) for pair in MIXED)]
    many = MIXED * 100
    with Verifier(workers=2) as verifier, ThreadPoolExecutor(16) as threads:
        verdicts = list(threads.map(lambda pair: verifier.verify(*pair), reversed(many)))
    assert [(v.value, v.reason) for v in reversed(verdicts)] == expected * 100


def test_asyncio_and_threads_without_a_main_module() -> None:
    async def all_verdicts(verifier: Verifier) -> list[str]:
        futures = [asyncio.wrap_future(verifier.submit(*pair)) for pair in MIXED]
        return [verdict.value for verdict in await asyncio.gather(*futures)]

    with Verifier(workers=1) as verifier:
        values = asyncio.run(all_verdicts(verifier))
        assert values == [verifier.verify(*pair).value for pair in MIXED]
    code = (
        "import threading\n"
        "from ares_eval.types import AnswerSpec\nfrom ares_eval.verify import verify\n"
        f"t = threading.Thread(target=lambda: print(verify({ALGEBRA[0]!r}, '1', AnswerSpec('latex')).value))\n"
        "t.start(); t.join()\n"
    )
    out = subprocess.run([sys.executable], input=code, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "correct"


def test_import_brings_no_algebra() -> None:
    code = (
        "import sys\nfrom ares_eval.types import AnswerSpec\nfrom ares_eval.verify import Verifier\n"
        "with Verifier() as v: v.verify('The answer is 5', '5', AnswerSpec('number'))\n"
        "print(sorted(m for m in ('sympy', 'math_verify', 'numpy', 'mpmath', 'antlr4') if m in sys.modules))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_hash_seed_makes_no_difference() -> None:
    code = (
        "from ares_eval.types import AnswerSpec\nfrom ares_eval.verify import Verifier\n"
        "pairs = [(r'\\boxed{\\{\\sqrt{2}, a+b, 3\\}}', r'\\{3, \\sqrt{2}, b+a\\}'),"
        " (r'\\boxed{p q r s}', 's r q p')]\n"
        "with Verifier() as v: print([v.verify(a, b, AnswerSpec('structured')) .value for a, b in pairs])\n"
    )
    outs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "12345")
    }  # fmt: skip
    assert outs == {"['correct', 'correct']\n"}


HOSTILE = [
    "__import__('os').system('touch {0}')",
    "\\boxed{{__import__('os').system('touch {0}')}}",
    "\\boxed{{exec(\"open('{0}','w')\")}}",
    "\\boxed{{\\input{{|touch {0}}}}}",
    "\\boxed{{lambda: open('{0}', 'w')}}",
    "<answer>$(touch {0})</answer>",
]


@pytest.mark.parametrize("kind", ["number", "latex", "structured", "list", "choice", "text"])
def test_text_is_never_executed(tmp_path: Path, kind: str) -> None:
    canary = tmp_path / "canary"
    with Verifier(workers=1) as verifier:
        for form in HOSTILE:
            spec = AnswerSpec(kind, {}, ("1", "2") if kind == "choice" else ())
            verdict = verifier.verify(form.format(canary), "A" if kind == "choice" else "1", spec)
            assert verdict.value != "correct"
    assert not canary.exists()


FLOODS = {
    "boxes": r"\boxed{" * 3000,
    "boxed ones": r"\boxed{2} " * 3000,
    "dollars": "$" * 9000,
    "cues": "the answer is " * 2000,
    "parentheses": "(" * 9000,
    "fractions": r"\boxed{" + r"\frac{1" * 400 + "}{2}" * 400 + "}",
    "tower": r"\boxed{5^{5^{5^{5^5}}}}",
    "factorials": r"\boxed{((10!)!)!}",
    "polynomial": r"\boxed{(1+\sqrt2+\sqrt3+\sqrt5+\sqrt7)^{40}}",
    "set": r"\boxed{\{" + ",".join(map(str, range(3000))) + r"\}}",
    "digits": r"\boxed{" + "9" * 40_000 + "}",
    "thinking": "<think>" * 3000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_end_with_a_verdict(name: str) -> None:
    with Verifier(workers=1) as verifier:
        for kind in ("number", "latex", "structured", "list", "choice", "text", "auto"):
            spec = AnswerSpec(kind, {}, ("u", "v") if kind == "choice" else ())
            assert verifier.verify(FLOODS[name], "B" if kind == "choice" else "1", spec).value != "correct"
