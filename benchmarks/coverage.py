"""`python -m benchmarks.coverage [--data DIR]`: every benchmark end to end, and a table of what that showed.

Where DIR has rows of a benchmark (its authors' files, or the hub's form of them) those are run, else rows that the
tests make in the hub's columns, over the hub's protocol. The loopback model knows every reference and says it back in a
box, so a reference that our own scoring does not call right shows here. Questions of one text that only their pictures
tell apart are answered alike: they count as `alike`, not as faults. Pictures that DIR does not have (MathVista's and
CharXiv's) are blanks of their size.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ares_eval.tasks import catalog, load
from ares_eval.tasks.definition import read_definition
from ares_eval.types import Sample, TextPart
from benchmarks import measure
from benchmarks.__main__ import program
from benchmarks.recorded import DEFAULT_DATA
from tests import loopback
from tests.loopback.model import plain
from tests.tasks import hub_rows

FOLDERS = {
    "mathvista": "mathvista_no_images",
    "charxiv": "charxiv_no_images",
    "charxiv_descriptive": "charxiv_no_images",
    "geo3k": "geometry3k_examples",
    "minerva": "minerva_math",
    "mathvision_testmini": "mathvision",
}
"""Task -> folder of its rows, where the names differ."""

HUB_FOLDERS = {"mmmu_pro": "mmmu_pro_tool_sample", "mmmu_pro_standard": "mmmu_pro_tool_sample"}
"""Tasks of which DIR has a few rows in the hub's form only."""

BLANKS = {"mathvista": "testmini.json", "charxiv": "reasoning_val.json", "charxiv_descriptive": "descriptive_val.json"}
"""Tasks whose pictures are not in DIR, with the file that names them."""

RECORDED = {
    "gsm8k": "4 models", "math500": "8 draws of 60 questions", "mathvision": "6 models", "logicvista": "5 models",
    "mmlu_pro": "4 models", "mathvista": "5 models", "mmmu_pro": "GPT-4o in 4 settings",
    "mmmu": "2 models, no verdicts",
    "bbh": "Codex, with and without reasoning", "olympiadbench": "20 examples of the authors' scorer",
    "mathverse": "6 examples, no verdicts", "dynamath": "5 tables of 501 x 10 verdicts",
}  # fmt: skip
"""Task -> recorded outputs that `python -m benchmarks.recorded` sets beside the authors' verdicts."""


@dataclass(frozen=True)
class Line:
    """One benchmark of the table."""

    task: str
    rows: int
    right: int
    alike: int
    open: int
    source: str
    metric: str


def main() -> int:
    """Run both halves and print; 1 where a run did not complete."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with benchmarks/")
    parser.add_argument("--limit", type=int, help="first N questions of each")
    arguments = parser.parse_args()
    names = [definition.name for definition in catalog.definitions() if not definition.name.startswith("smoke")]
    with tempfile.TemporaryDirectory(prefix="ares-coverage-") as name:
        folder = Path(name)
        here = prepare(names, arguments.data / "benchmarks", folder / "data")
        lines, errors = real(here, folder, arguments.limit)
        more, further = invented([name for name in names if name not in here], folder, arguments.limit)
    print(f"{'benchmark':26} {'rows':>5} {'right':>5} {'alike':>5} {'open':>4}  {'metric':14} source; verified how")
    for line in sorted([*lines, *more], key=lambda each: each.task):
        recorded = RECORDED.get(line.task)
        how = "references said back" + (f"; recorded: {recorded}" if recorded else "")
        print(
            f"{line.task:26} {line.rows:>5} {line.right:>5} {line.alike:>5} {line.open:>4}  {line.metric:14} "
            f"{line.source}; {how}"
        )
    for error in filter(None, (errors, further)):
        print(error)
    return 1 if errors or further else 0


def prepare(names: list[str], data: Path, folder: Path) -> list[str]:
    """A `--dataset-dir` of links to the rows in ``data``; the tasks that have some."""
    folder.mkdir()
    here = []
    for name in names:
        source = data / FOLDERS.get(name, name)
        if name in HUB_FOLDERS and (data / HUB_FOLDERS[name]).is_dir():
            (folder / f"hub_{name}").symlink_to(data / HUB_FOLDERS[name] / f"hub_{HUB_FOLDERS[name]}")
        elif name in BLANKS and source.is_dir():
            (folder / name).mkdir()
            (folder / name / "data").symlink_to(source / "data")
            blanks(name, source / "data" / BLANKS[name], folder / name / "images")
        elif source.is_dir():
            (folder / name).symlink_to(source)
        else:
            continue
        here.append(name)
    return here


def blanks(task: str, file: Path, folder: Path) -> None:
    """A white picture for every row, of the row's own size where it is known."""
    from PIL import Image

    folder.mkdir()
    for key, row in json.loads(file.read_text("utf-8")).items():
        size = (640, 480)
        name = f"{key}.jpg"
        if task == "mathvista":
            size = (row["metadata"]["img_width"], row["metadata"]["img_height"])
            name = Path(row["image"]).name
        Image.new("L", size, 255).save(folder / name, "JPEG", quality=20)


def real(names: list[str], folder: Path, limit: int | None) -> tuple[list[Line], str]:
    """The rows that are here."""
    samples = {name: list(load(name, dataset_dir=folder / "data", limit=limit).samples()) for name in names}
    known: dict[str, str] = {}
    for found in samples.values():
        for sample in found:
            known.setdefault(question(sample), reference(sample))
    alike = {
        name: sum(known[question(sample)] != reference(sample) for sample in found) for name, found in samples.items()
    }
    with loopback.start(answers=known, tokens=16) as server:
        records, error = asked(server, names, folder / "real", ["--dataset-dir", folder / "data"], {}, limit)
    return lines_of(records, alike, "real rows", folder / "data"), error


def invented(names: list[str], folder: Path, limit: int | None) -> tuple[list[Line], str]:
    """The others, over the hub's protocol."""
    known = hub_rows.write(folder / "hub")
    with loopback.start(answers=known, hub=str(folder / "hub"), tokens=16) as server:
        environment = {"HF_ENDPOINT": server.root, "HF_HOME": str(folder / "hf")}
        records, error = asked(server, names, folder / "invented", [], environment, limit)
    return lines_of(records, {}, "invented rows, loopback hub", None), error


def question(sample: Sample) -> str:
    """The text by which the model knows it."""
    return plain("".join(part.text for part in sample.messages[-1].parts if isinstance(part, TextPart)))


def reference(sample: Sample) -> str:
    """The answer that is said back."""
    return sample.reference if isinstance(sample.reference, str) else sample.reference[0]


def asked(
    server: loopback.Server,
    names: list[str],
    folder: Path,
    words: list[Any],
    environment: Mapping[str, str],
    limit: int | None,
) -> tuple[dict[str, Any], str]:
    """results.json of a run over ``names``, and an error where it did not complete."""
    command = [
        *program(), "run", "--model-name", "m", "--openai-base-url", server.url, "--openai-api-key", "k", "--quiet",
        "--datasets", ",".join(names), "--samples", "1", "--eval-threads", "32", "--output-dir", folder / "runs",
        "--cache-dir", folder / "cache", *words, *(["--limit", limit] if limit else []),
    ]  # fmt: skip
    cost = measure.run(command, environment={**os.environ, **environment}, limit=1800)
    files = list((folder / "runs").rglob("results.json"))
    error = "" if cost.code == 0 else f"exit code {cost.code}: {cost.errors[-800:]}"
    return (json.loads(files[0].read_text()) if files else {"tasks": {}}), error


def lines_of(found: dict[str, Any], alike: Mapping[str, int], kind: str, data: Path | None) -> list[Line]:
    """The table's lines of one run."""
    lines = []
    for name, task in found["tasks"].items():
        source = kind
        if data is not None:
            source = f"real rows, {load(name, dataset_dir=data).data.layout}"
            source += ", blank pictures" if name in BLANKS else ""
        evidence = read_definition(catalog.find(name)).metadata.get("evidence", {})
        if "unverified" in str(evidence.get("columns", "")):
            source += ", hub's columns unverified"
        primary = task["metrics"]["primary"]
        lines.append(Line(name, task["n"], task["correct"], alike.get(name, 0), task["unverifiable"], source, primary))
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
