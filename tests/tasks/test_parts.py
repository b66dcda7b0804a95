"""Benchmarks in several files or configs: patterns, lists inside objects, configs in turn and row by row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ares_eval.tasks import BrokenTask, DataUnavailable, load
from tests.tasks import hub_rows, tiny

FILES = """\
task: ares_tiny
doc_to_text: input
doc_to_target: target
metadata:
  id: part ~ '/' ~ file_row
  fields: [part, whole]
  answer: {type: number}
  native:
    files: {test: ["parts/*/task.json"]}
    rows: examples
    columns:
      part: file_folder.split('/')[-1]
      whole: row_number
"""

CONFIGS = """\
task: ares_tiny
dataset_path: org/tiny
doc_to_text: input
doc_to_target: target
metadata:
  id: config ~ '/' ~ file_row
  fields: {part: config, variant: variant}
  folders: [another_name]
  answer: {type: number}
  hub: {configs: [one, two, three], interleaved: false}
"""


def parts(folder: Path) -> None:
    for number, name in enumerate(("b", "a")):
        path = folder / "parts" / name / "task.json"
        path.parent.mkdir(parents=True)
        rows = [{"input": f"{name}{i}", "target": str(number)} for i in range(2 + number)]
        path.write_text(json.dumps({"canary": "x", "examples": rows}))


def test_files_by_pattern_in_the_order_of_their_names(tmp_path: Path) -> None:
    tiny.task_file(tmp_path / "tasks", FILES)
    parts(tmp_path / "tiny")
    task = load("tiny", dataset_dir=tmp_path, include_path=[tmp_path / "tasks"])
    samples = list(task.samples())
    assert [sample.id for sample in samples] == ["a/0", "a/1", "a/2", "b/0", "b/1"]
    assert [sample.fields["whole"] for sample in samples] == [0, 1, 2, 3, 4]
    assert task.size == 5
    first = load("tiny", dataset_dir=tmp_path, include_path=[tmp_path / "tasks"], limit=4)
    assert (first.size, len(list(first.samples()))) == (4, 4)
    before = task.dataset_digest
    (tmp_path / "tiny" / "parts" / "b" / "task.json").write_text(json.dumps({"examples": []}))
    changed = load("tiny", dataset_dir=tmp_path, include_path=[tmp_path / "tasks"])
    assert changed.dataset_digest != before
    assert changed.size == 3


def configs(folder: Path, *names: str) -> None:
    entries = []
    for name in names:
        rows = [{"input": f"{name} {i}", "target": str(i)} for i in range(3)]
        hub_rows.parquet(folder / name / "test.parquet", rows)
        entries.append(f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test.parquet")
    (folder / "README.md").write_text("---\nconfigs:\n" + "\n".join(entries) + "\n---\n")


@pytest.mark.parametrize("interleaved", [False, True])
def test_configs_in_turn_or_row_by_row(tmp_path: Path, interleaved: bool) -> None:
    tiny.task_file(tmp_path / "tasks", CONFIGS.replace("interleaved: false", f"interleaved: {interleaved}".lower()))
    configs(tmp_path / "hub_tiny", "one", "two", "three")
    task = load("tiny", dataset_dir=tmp_path, include_path=[tmp_path / "tasks"], limit=4)
    order = ["one/0", "two/0", "three/0", "one/1"] if interleaved else ["one/0", "one/1", "one/2", "two/0"]
    assert [sample.id for sample in task.samples()] == order
    assert task.size == 4
    assert load("tiny", dataset_dir=tmp_path, include_path=[tmp_path / "tasks"]).size == 9


def test_a_folder_with_some_of_the_configs_says_so(tmp_path: Path) -> None:
    tiny.task_file(tmp_path / "tasks", CONFIGS)
    configs(tmp_path / "another_name" / "hub_another_name", "one", "three")
    task = load("tiny", dataset_dir=tmp_path, include_path=[tmp_path / "tasks"])
    assert [sample.fields["part"] for sample in task.samples()] == ["one"] * 3 + ["three"] * 3
    assert "2 of 3 configs" in task.source


def test_a_config_that_the_hub_does_not_have_is_told(tmp_path: Path) -> None:
    tiny.task_file(tmp_path / "tasks", CONFIGS)
    with pytest.raises(DataUnavailable, match="org/tiny"):
        load("tiny", include_path=[tmp_path / "tasks"])


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("  official: {rule: nothere}", "rule is not one of"),
        ("  official: words", "must be a mapping"),
        ("  variant_of: [a]", "must name a task"),
        ("  metrics: [wemath]", "'wemath' is not one of"),
    ],
)
def test_what_a_task_cannot_say(tmp_path: Path, line: str, cause: str) -> None:
    path = tiny.task_file(tmp_path / "tasks", FILES + line + "\n")
    with pytest.raises(BrokenTask, match=cause) as caught:
        load("tiny", dataset_dir=tmp_path, include_path=[tmp_path / "tasks"])
    assert f"{path}:" in str(caught.value)
