"""`python -m benchmarks.adacs_scale`: AdaCS from rate to write at the paper's scale, with synthetic rows.

224,000 questions with 8 replies each, short texts with recorded verdicts and lengths, 1 % of the rows checked with the
template: every stage is run as `ares-train adacs STAGE`, start to exit, and its seconds and peak memory (resident sets
of its whole process tree) are printed beside the goals: 3 minutes and 2 GB in all, on two cores that do nothing else.
What grows with the length of replies is measured apart: verification and tokenising, in rows a second.

Run it in the training environment. ``--questions`` makes it smaller; ``--work-dir`` keeps the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ares_train.adacs import schemas, store
from ares_train.adacs.layout import Layout
from benchmarks import measure
from tests.models import tiny_tokenizer

DRAWS = 8
PART_ROWS = 1024
GOAL_SECONDS = 180.0
GOAL_BYTES = 2e9
STAGES = ("rate", "lengths", "select", "write")
FINGERPRINT = "synthetic"


def main() -> int:
    """Make the rows, run the stages, print the table; exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=224_000)
    parser.add_argument("--work-dir", type=Path, help="keep the work folder here")
    parser.add_argument(
        "--rate-rows", type=int, default=4_000, help="replies verified and counted for the rows a second"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    asked = parser.parse_args()
    with _folder(asked.work_dir) as work:
        started = time.perf_counter()
        config = make(work, asked.questions)
        print(f"{asked.questions:,} questions x {DRAWS} replies made in {time.perf_counter() - started:.0f} s")
        print(f"{'stage':10}  {'seconds':>8}  {'CPU s':>7}  {'peak MB':>8}  {'load':>5}", flush=True)
        rows = [_stage(name, config, work) for name in STAGES]
        total = {"seconds": sum(row["seconds"] for row in rows), "peak": max(row["peak"] for row in rows)}
        cpu = sum(row["cpu"] for row in rows)
        print(f"{'in all':10}  {total['seconds']:8.1f}  {cpu:7.1f}  {total['peak'] / 1e6:8.0f}")
        written = json.loads((work / "w" / "sft" / "report.json").read_text())
        print(", ".join(f"{name}: {one['rows']:,} rows" for name, one in written["files"].items()))
        speeds = throughput(work, asked.rate_rows)
        for name, value in speeds.items():
            print(f"{name}: {value:,.0f} rows/s on one core")
    missed = [
        text
        for text, bad in (
            (f"{total['seconds']:.0f} s > {GOAL_SECONDS:.0f}", total["seconds"] > GOAL_SECONDS),
            (f"{total['peak'] / 1e9:.2f} GB > {GOAL_BYTES / 1e9:.0f}", total["peak"] > GOAL_BYTES),
        )
        if bad
    ]
    print(f"missed: {'; '.join(missed)}" if missed else "goals met")
    if asked.json:
        asked.json.write_text(json.dumps({"stages": rows, **total, **speeds}, indent=1))
    return 1 if missed else 0


def _stage(name: str, config: Path, work: Path) -> dict[str, Any]:
    load = os.getloadavg()[0]
    command = [sys.executable, "-m", "ares_train.cli", "adacs", name, "--config", config, "--work", work / "w"]
    cost = measure.run(command, environment={"HF_HUB_OFFLINE": "1"}, limit=3600)
    if cost.code:
        raise SystemExit(f"{name} failed with {cost.code}:\n{cost.errors[-2000:]}")
    print(f"{name:10}  {cost.wall:8.1f}  {cost.cpu:7.1f}  {cost.memory / 1e6:8.0f}  {load:5.1f}", flush=True)
    return {"stage": name, "seconds": cost.wall, "cpu": cost.cpu, "peak": cost.memory, "load": load}


@contextlib.contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="ares-adacs-") as folder:
        yield Path(folder)


# ---------------------------------------------------------------- synthetic rows


def make(work: Path, questions: int) -> Path:
    """A work folder as sample leaves it, and a configuration for the later stages; its path is returned."""
    student = work / "student"
    tiny_tokenizer.build(32_768).save_pretrained(student)
    config = work / "adacs.yaml"
    settings = {
        "ingest": {"sources": [{"name": "synthetic", "path": "none.jsonl"}], "contamination": {"tasks": "none"}},
        "sample": {"estimator": {"draws": DRAWS, "traces": [{"path": "none.jsonl"}]}},
        "rate": {"tokenizer": str(student), "workers": 2},
        "select": {"size": questions, "zero": "allow_incorrect"},
        "write": {"check": 0.01, "val_share": 0.005},
    }
    # JSON is YAML too.
    config.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    layout = Layout(work / "w")
    for part, start in enumerate(range(0, questions, PART_ROWS)):
        _part(layout, part, range(start, min(start + PART_ROWS, questions)))
    store.write_artifact(layout.ingest_report, {"sources": {}}, FINGERPRINT)
    return config


def _part(layout: Layout, part: int, numbers: Sequence[int]) -> None:
    """Questions of every tier alike; a reply is longer the harder its question, by a skewed factor."""
    chance = np.random.default_rng([7, part])
    count = len(numbers)
    qids = [f"{number:032x}" for number in numbers]
    sources = [f"source-{number % 26:02}" for number in numbers]
    tier = chance.integers(0, DRAWS + 1, count)
    asked = [[{"role": "user", "content": f"What is {number} plus {number % 97}?"}] for number in numbers]
    table = {
        "qid": qids,
        "source": sources,
        "modality": ["text"] * count,
        "messages": asked,
        "images": [[]] * count,
        "references": [[str(number + number % 97)] for number in numbers],
        "answer_type": ["number"] * count,
        "answer_policy": ["{}"] * count,
        "choices": [[]] * count,
        "extra": ["{}"] * count,
    }
    stage = store.Stage(layout.questions, FINGERPRINT)
    stage.write(part, pa.table(table, schemas.QUESTIONS), schemas.QUESTIONS)
    correct = (np.arange(DRAWS)[None, :] < tier[:, None]).astype(np.int8)
    tokens = (np.exp(chance.normal(6.0, 0.5, (count, DRAWS))) * (1 + (DRAWS - tier[:, None]) / 2)).astype(np.int32)
    texts = [
        f"<think>{number} and {number % 97}, try {draw}. Wait, check.</think>\n\\boxed{{{number + number % 97}}}"
        for number in numbers
        for draw in range(DRAWS)
    ]
    rows = count * DRAWS
    replies = {
        "qid": [qid for qid in qids for _ in range(DRAWS)],
        "source": [source for source in sources for _ in range(DRAWS)],
        "draw": np.tile(np.arange(DRAWS, dtype=np.int16), count),
        "text": texts,
        "reasoning": [""] * rows,
        "finish_reason": np.where(chance.random(rows) < 0.02, "length", "stop"),
        "completion_tokens": tokens.reshape(-1),
        "cause": pa.nulls(rows, pa.string()),
        "seed": np.zeros(rows, dtype=np.int64),
        "key": [""] * rows,
        "entropy": pa.nulls(rows, pa.list_(pa.float32())),
        "correct": correct.reshape(-1),
        "tokens": tokens.reshape(-1),
        "think_tokens": tokens.reshape(-1) - 10,
    }
    stage = store.Stage(layout.samples("estimator"), FINGERPRINT)
    stage.write(part, pa.table(replies, schemas.SAMPLES), schemas.SAMPLES)


# ---------------------------------------------------------------- what grows with texts


def throughput(work: Path, rows: int) -> dict[str, float]:
    """Replies a second, verified and tokenised, each on one core; replies of about 600 tokens."""
    from ares_eval.types import AnswerSpec
    from ares_eval.verify import Verifier
    from ares_train.adacs.counting import TokenCounter

    line = "So {a} plus {b} makes {c}; let me see whether that can be right. "
    texts = [
        f"<think>{''.join(line.format(a=i, b=k, c=i + k) for k in range(40))}</think>\n\\boxed{{{i}}}"
        for i in range(rows)
    ]
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    counter = TokenCounter(str(work / "student"))
    began = time.perf_counter()
    for start in range(0, rows, 256):
        counter.count(texts[start : start + 256])
    counted = rows / (time.perf_counter() - began)
    with Verifier(workers=1) as verifier:
        spec = AnswerSpec("number")
        verifier.submit(texts[0], ("0",), spec).result()
        began = time.perf_counter()
        for start in range(0, rows, 256):
            chunk = range(start, min(start + 256, rows))
            for future in [verifier.submit(texts[i], (str(i),), spec) for i in chunk]:
                future.result()
        verified = rows / (time.perf_counter() - began)
    return {"verification": verified, "tokenising": counted}


if __name__ == "__main__":
    raise SystemExit(main())
