"""VLMEvalKit's own code, run as it is: prompts and scores for tables and predictions, as JSON on standard output.

    python vlmeval_reference.py FOLDER NAME...

Nothing of ares_eval is imported. Their package's heavy start is left out (it needs torch) and the judge is the stub of
vlmeval_tables.py; everything else is theirs: reading and writing of tables, progress, time limits, evaluation.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import vlmeval_tables as tables

PLACES = {
    "MathVista": "image_vqa:MathVista",
    "MathVision": "image_vqa:MathVision",
    "MathVerse": "image_vqa:MathVerse",
    "DynaMath": "dynamath:Dynamath",
    "LogicVista": "image_vqa:LogicVista",
    "MMMU_DEV": "image_mcq:MMMUDataset",
    "MMMU_Pro": "image_mcq:MMMUProDataset",
    "MMStar": "image_mcq:ImageMCQDataset",
    "MMBench": "image_mcq:ImageMCQDataset",
    "WeMath": "image_mcq:WeMath",
    "OlympiadBench": "image_vqa:OlympiadBench",
    "CharXiv": "charxiv:CharXiv",
    "MM-Math": "mmmath:MMMath",
    "POPE": "image_yorn:ImageYORNDataset",
    "ChartQA": "image_vqa:ImageVQADataset",
}


class StubJudge:
    """The part of OpenAIWrapper that scorers use."""

    model = "stub"
    system_prompt = ""

    def working(self) -> bool:
        return True

    def generate(self, prompt: Any, **_: Any) -> str:
        return tables.stub_judge(prompt if isinstance(prompt, str) else prompt[0]["value"])


def light_import() -> None:
    root = Path(str(importlib.metadata.distribution("ms-vlmeval").locate_file("vlmeval")))
    for name, folder in (("vlmeval", root), ("vlmeval.dataset", root / "dataset")):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module


def one(name: str, folder: Path) -> dict[str, Any]:
    module, _, kind = next(place for start, place in PLACES.items() if name.startswith(start)).partition(":")
    cls = getattr(importlib.import_module(f"vlmeval.dataset.{module}"), kind)
    for loaded in list(sys.modules):
        if loaded.startswith("vlmeval.") and hasattr(sys.modules[loaded], "build_judge"):
            sys.modules[loaded].build_judge = lambda **_: StubJudge()  # type: ignore[attr-defined]
    tables.write(folder / "data", name)
    cls.DATASET_MD5 = {}
    dataset = cls(dataset=name)
    prompts = [dataset.build_prompt(dataset.data.iloc[i]) for i in range(len(dataset.data))]
    pictures = {m["value"] for prompt in prompts for m in prompt if m["type"] == "image"}
    data = dataset.data.copy()
    said = tables.predictions(name)
    data["prediction"] = [said[str(index)] for index in data["index"]]
    data.pop("image")
    smp = importlib.import_module("vlmeval.smp")
    work = folder / f"work-{name}"
    work.mkdir()
    file = str(work / f"stub_{name}.tsv")
    smp.dump(data, file)
    options: dict[str, Any] = {"nproc": 2} if name.startswith("CharXiv") else {"nproc": 2, "model": "stub"}
    outcome = dataset.evaluate(file, **options)
    status = importlib.import_module("vlmeval.smp.status_report")
    texts = {}
    if hasattr(outcome, "to_dict"):
        texts = {
            str(k): v
            for k, v in outcome.iloc[0].to_dict().items()
            if isinstance(v, str) and v.endswith("%") and v != "nan%"
        }
    return {
        "prompts": [
            [[m["type"], m["value"].rpartition("/")[2] if m["type"] == "image" else m["value"]] for m in p]
            for p in prompts
        ],
        "pictures": {p.rpartition("/")[2]: Path(p).read_bytes().hex() for p in sorted(pictures)},
        "metrics": {k: float(v) for k, v in status.flatten_summary_metrics(outcome).items()},
        "percentages": texts,
    }


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "data").mkdir(parents=True)
    os.environ |= {"LMUData": str(folder / "data"), "PRED_FORMAT": "tsv", "EVAL_FORMAT": "csv"}
    light_import()
    found = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for name in sys.argv[2:]:
            found[name] = one(name, folder)
    print(json.dumps(found))


main()
