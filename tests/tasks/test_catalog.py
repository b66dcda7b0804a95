"""Names and suites, and that every task file we ship is sound."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from ares_eval import resources
from ares_eval.tasks import UnknownTask, catalog, load, resolve, suites
from ares_eval.tasks.definition import read_definition
from ares_eval.tasks.samples import SampleMaker
from ares_eval.tasks.yaml_task import FunctionRef
from tests.tasks import tiny

PAPER_PICTURES = {
    "mathverse", "mathvision", "mathvista", "dynamath", "wemath", "logicvista", "mmmu", "mmmu_pro", "charxiv", "mmstar",
}  # fmt: skip
PAPER_TEXT = {"aime24", "aime25", "math500", "mmlu_pro", "bbeh", "gpqa_diamond"}
OTHER_PICTURES = {"olympiadbench", "geo3k", "ares_hard"}
OTHER_TEXT = {"gsm8k", "bbh", "amc23", "minerva", "hmmt25", "olympiadbench_text"}
VARIANTS = {
    "mathverse_text_dominant", "mathverse_text_lite", "mathverse_vision_intensive", "mathverse_vision_dominant",
    "mathverse_text_only", "mathvision_testmini", "mmmu_pro_standard", "mmmu_pro_vision", "charxiv_descriptive",
}  # fmt: skip


def test_the_suites() -> None:
    members = suites()
    assert set(members["paper"]) == PAPER_PICTURES | PAPER_TEXT
    assert set(members["multimodal"]) == PAPER_PICTURES | OTHER_PICTURES
    assert set(members["text"]) == PAPER_TEXT | OTHER_TEXT
    assert set(members["all"]) == set(members["multimodal"]) | set(members["text"])
    assert set(members["easy"]) == {"gsm8k", "math500"}
    assert set(members["medium"]) == {"mathvista", "mathverse"}
    assert set(members["hard"]) == {"aime25", "olympiadbench"}
    assert set(members["smoke"]) == {"smoke_text", "smoke_pictures"}


def test_further_settings_are_run_by_name_only() -> None:
    known = {definition.name: definition for definition in catalog.definitions()}
    assert {name for name, definition in known.items() if definition.variant_of} == VARIANTS
    for name in VARIANTS:
        assert known[name].variant_of in suites()["all"]
        assert resolve(name) == (name,)


def test_resolving_names() -> None:
    assert resolve("gsm8k, aime25,gsm8k") == ("gsm8k", "aime25")
    assert resolve("aime25,text")[0] == "aime25"
    assert len(resolve("all,text,multimodal")) == len(suites()["all"])
    assert resolve(["smoke"]) == suites()["smoke"]


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("gsm8", "gsm8k"), ("math-vision", "mathvision"), ("MathVision", "mathvision"), ("txt", "text")],
)
def test_an_unknown_name_lists_the_nearest(asked: str, nearest: str) -> None:
    with pytest.raises(UnknownTask) as caught:
        resolve(f"gsm8k,{asked}")
    assert nearest in caught.value.nearest
    assert nearest in str(caught.value)


@pytest.mark.parametrize("asked", ["", " , ", []])
def test_nothing_is_no_selection(asked: str) -> None:
    with pytest.raises(UnknownTask):
        resolve(asked)


def test_an_unknown_prefix_says_what_is_installed() -> None:
    with pytest.raises(UnknownTask, match="no task source has the prefix 'nothere'"):
        resolve("nothere:gsm8k")
    with pytest.raises(UnknownTask):
        load("nothere:gsm8k")


def test_a_plugged_in_source_gets_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class Source:
        def load(self, name: str, **options: object) -> tuple[str, object]:
            return name, options["limit"]

    class Point:
        name = "mine"

        def load(self) -> Source:
            return Source()

    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [Point()] if group == catalog.ENTRY_POINTS else []
    )
    assert resolve("mine:a,gsm8k") == ("mine:a", "gsm8k")
    assert load("mine:a", limit=3) == ("mine:a", 3)


def test_more_folders_of_tasks(tmp_path: Path) -> None:
    tiny.task_file(tmp_path, tiny.YAML + "  suites: [own]\n")
    assert resolve("own", include_path=[tmp_path]) == ("tiny",)
    assert "tiny" not in suites([tmp_path])["all"]
    tiny.task_file(tmp_path, name="gsm8k")
    with pytest.raises(UnknownTask, match="has the name of"):
        resolve("own", include_path=[tmp_path])
    with pytest.raises(UnknownTask, match="no folder"):
        resolve("own", include_path=[tmp_path / "nowhere"])


@pytest.mark.parametrize("path", sorted(resources.folder("tasks").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_task_is_sound(path: Path) -> None:
    definition = read_definition(path)
    SampleMaker(definition)
    config, metadata = definition.config, definition.metadata
    assert config["task"] == f"ares_{path.stem}"
    assert config["generation_kwargs"]["until"] == []
    assert config["process_results"] == FunctionRef(path, config["process_results"].line, "hooks", f"score_{path.stem}")
    assert metadata["suites"]
    assert metadata["description"]
    assert definition.size
    assert definition.shipped or metadata["evidence"]
    assert definition.repeats == (16 if path.stem.startswith(("aime", "hmmt")) else 1)
    assert (definition.modality == "image+text") == bool(definition.images)


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ares_eval.tasks import catalog; catalog.definitions(); "
        "print([m for m in ('PIL', 'jinja2', 'datasets', 'pyarrow', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
