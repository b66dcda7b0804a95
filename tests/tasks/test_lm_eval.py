"""Stock lm-eval reads our task files and makes of them what our own reader makes. Runs where lm-eval is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ares_eval import resources
from ares_eval.tasks import Task, catalog, load, names
from ares_eval.tasks.definition import read_definition
from ares_eval.types import PicturePart, TextPart
from tests.tasks import hub_rows, tiny

pytest.importorskip("lm_eval")

DATA = Path(os.environ.get("ARES_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "benchmarks"
STAND_INS = {
    "openai/gsm8k": "gsm8k/hub_gsm8k",
    "HuggingFaceH4/MATH-500": "math500/hub_math500",
    "HuggingFaceH4/aime_2024": "aime24/hub_aime24",
    "math-ai/aime25": "aime25/hub_aime25_math-ai",
    "TIGER-Lab/MMLU-Pro": "mmlu_pro/hub_mmlu_pro",
    "MathLLMs/MathVision": "mathvision/hub_mathvision",
    "lscpku/LogicVista": "logicvista/hub_logicvista",
    "DynaMath/DynaMath_Sample": "dynamath/hub_dynamath",
}


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """lm-eval's task manager; the Hub's datasets are folders with the same config, split and column names."""
    import datasets
    from lm_eval.tasks import TaskManager

    real = datasets.load_dataset

    def local(path: str, *args: Any, **options: Any) -> Any:
        options.pop("revision", None)
        made = real(str(stand_in(tmp_path, path)), *args, **options, cache_dir=str(tmp_path / "cache"))
        if path == "MathLLMs/MathVision" and "test" not in made:
            made["test"] = made["testmini"]
        return made

    monkeypatch.setattr(datasets, "load_dataset", local)
    return TaskManager(include_path=str(resources.folder("tasks")), include_defaults=False)


def stand_in(folder: Path, path: str) -> Path:
    """The hub's dataset as a folder: real rows where they are here, else invented ones in the same columns."""
    made = folder / "hub" / path
    if not made.exists() and path in STAND_INS and DATA.is_dir():
        made.parent.mkdir(parents=True, exist_ok=True)
        # names of their own, for the cache that goes by the last one
        made.symlink_to(DATA / STAND_INS[path])
    elif not made.exists():
        hub_rows.write(folder / "hub", path)
    return made


def ours(name: str, folder: Path) -> Task:
    """Our reader's task over the same rows."""
    if name.startswith("smoke"):
        return load(name)
    hub = read_definition(catalog.find(name)).hub
    assert hub is not None
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / f"hub_{name}").symlink_to(stand_in(folder, hub.path))
    return load(name, dataset_dir=folder / "data")


def test_every_task_is_in_the_index(manager: Any) -> None:
    assert {f"ares_{name}" for name in names()} == set(manager.all_subtasks)


@pytest.mark.parametrize("name", names())
def test_both_readers_make_the_same_questions(manager: Any, name: str, tmp_path: Path) -> None:
    task = manager.load([f"ares_{name}"])["tasks"][f"ares_{name}"]
    mine = ours(name, tmp_path)
    samples = list(mine.samples())
    assert len(task.eval_docs) == len(samples)
    assert task.config.repeats == mine.repeats
    for doc, sample in list(zip(task.eval_docs, samples, strict=True))[:40]:
        text = task.doc_to_text(doc)
        said = "".join(part.text if isinstance(part, TextPart) else "" for part in sample.messages[0].parts)
        assert stripped(text) == stripped(said)
        target = task.doc_to_target(doc)
        if isinstance(sample.reference, str):
            assert str(target) == sample.reference
        else:
            assert (target if isinstance(target, str) else list(target)) in (
                sample.reference[0],
                list(sample.reference),
            )
        assert len(task.doc_to_image(doc) or [] if task.config.doc_to_image else []) == len(tiny.pictures(sample))


def stripped(text: str) -> str:
    """Without the marks of pictures and the space around them, which our reader replaces by the pictures."""
    import re

    return re.sub(r"\s|<image\s?\d*>", "", text)


def test_a_right_answer_scores_one_and_draws_are_averaged(manager: Any) -> None:
    task = manager.load(["ares_smoke_text"])["tasks"]["ares_smoke_text"]
    for doc in list(task.eval_docs)[:60:7]:
        answer = doc["accepted"][-1]
        scored = task.process_results(doc, [[f"\\boxed{{{answer}}}", "I do not know."]])
        assert scored["acc"] == 0.5


def test_pictures_are_the_same_bytes(manager: Any) -> None:
    task = manager.load(["ares_smoke_pictures"])["tasks"]["ares_smoke_pictures"]
    for doc, sample in zip(task.eval_docs, load("smoke_pictures").samples(), strict=True):
        sizes = [image.size for image in task.doc_to_image(doc)]
        parts = [part for part in sample.messages[0].parts if isinstance(part, PicturePart)]
        assert len(sizes) == len(parts)
