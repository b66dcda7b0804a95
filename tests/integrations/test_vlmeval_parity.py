"""Prompts and scores of ``vlm:DATASET`` against VLMEvalKit's own code on the same tables, replies and judge."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integrations import vlmeval_tables as tables

try:
    importlib.metadata.distribution("ms-vlmeval")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("VLMEvalKit is not installed (pip install --no-deps ms-vlmeval==0.0.20)", allow_module_level=True)

from ares_eval.integrations import vlmeval_data as data
from ares_eval.integrations.vlmeval import SOURCE
from ares_eval.integrations.vlmeval_task import evaluate
from ares_eval.tasks.scoring import JudgeModel
from ares_eval.types import PicturePart

STUB = JudgeModel("stub", lambda questions: [tables.stub_judge(prompt) for _, prompt in questions])


@dataclass
class Both:
    """Where our tables lie, and what VLMEvalKit's own code made of the same ones."""

    folder: Path
    theirs: dict[str, Any]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("vlmeval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARES_CACHE", str(folder / "cache"))
        patch.delenv("LMUData", raising=False)
        for name in tables.TABLES:
            tables.write(folder / "tables", name)
        script = Path(__file__).with_name("vlmeval_reference.py")
        done = subprocess.run(
            [sys.executable, str(script), str(folder / "theirs"), *tables.TABLES],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0", "HOME": str(folder)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        yield Both(folder / "tables", json.loads(done.stdout))


@pytest.mark.parametrize("name", tables.TABLES)
def test_prompts_equal(both: Both, name: str) -> None:
    """Texts, pictures (to the byte) and their order."""
    task = SOURCE.load(f"vlm:{name}", dataset_dir=both.folder)
    theirs = both.theirs[name]
    samples = list(task.samples())
    assert task.size == len(samples) == len(theirs["prompts"])
    for sample, prompt in zip(samples, theirs["prompts"], strict=True):
        (message,) = sample.messages
        ours = [["image", p.picture.source] if isinstance(p, PicturePart) else ["text", p.text] for p in message.parts]
        assert ours == prompt
        for part in message.parts:
            if isinstance(part, PicturePart):
                expected = bytes.fromhex(theirs["pictures"][part.picture.source])
                assert hashlib.sha256(part.picture.read()).digest() == hashlib.sha256(expected).digest()


ROWS = {
    "MathVista_MINI": [1, 0, 1, 0, 0],
    "MathVerse_MINI_Vision_Only": [1, 1],
    "DynaMath": [1, 1, 1],
    "LogicVista": [1, 0, 0, 1, 0],
    "MMMU_Pro_V_COT": [1, 0],
    "MMStar": [1, 1, 0],
    "CharXiv_reasoning_val": [1, 0, 0],
    "OlympiadBench": [1, 1, 0, 1, 1, 1, 1, 0, 1, 1],
    "POPE": [1, 0, 1],
    "ChartQA_TEST": [1, 1, 0],
    "MMBench_DEV_EN": [1, 1, 0, 0],
}
"""What the stub judge and each dataset's rules amount to, row by row, by hand."""


@pytest.mark.parametrize("name", tables.TABLES)
def test_scores_equal(both: Both, name: str) -> None:
    """Every number that VLMEvalKit reports, to the last digit; and row by row what these totals come from."""
    theirs = both.theirs[name]
    dataset = data.index().datasets[name]
    table = data.find(name, dataset, both.folder)
    (found,) = evaluate(name, dataset, table, [tables.predictions(name)], STUB)
    assert found.error is None
    assert not found.unanswered
    percentages = {key: float(text[:-1]) for key, text in theirs["percentages"].items()}
    assert {k: v for k, v in found.metrics.items() if k in theirs["metrics"] or k in percentages} == {
        **theirs["metrics"],
        **percentages,
    }
    assert found.primary is not None
    assert found.share is not None and 0.0 <= found.share <= 1.0
    if name in ROWS:
        assert [found.rows[index].score for index in tables.predictions(name)] == ROWS[name]
