"""Task files: what is read, and that every mistake names its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ares_eval.tasks.definition import read_definition
from ares_eval.tasks.errors import BrokenTask
from ares_eval.tasks.samples import SampleMaker
from ares_eval.tasks.yaml_task import FunctionRef, read_yaml

GOOD = """\
task: ares_tiny
dataset_path: some/where
doc_to_text: question
doc_to_target: answer
metadata:
  answer: {type: number}
"""


def written(folder: Path, text: str, name: str = "tiny.yaml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("task: a\ndoc_to_text: [unclosed\n", 3, "expected"),
        ("task: a\n\tdoc_to_text: b\n", 2, "tab"),
        ("task: a\ntask: b\n", 2, "given twice"),
        ("- a\n- b\n", 1, "mapping"),
        ("task: a\ndoc_to_text: !function nodots\n", 2, "MODULE.FUNCTION"),
        ("task: a\ndoc_to_text: !!python/object:os.system x\n", 2, "could not determine a constructor"),
        (GOOD + "include: nothere.yaml\n", 7, "there is no"),
        (GOOD.replace("number", "numbr"), 6, "needs a type"),
        (GOOD + "num_fewshot: 5\n", 7, "few-shot"),
        (GOOD + "doc_to_choice: [a, b]\n", 7, "not run by this reader"),
        (GOOD + "output_type: multiple_choice\n", 7, "generate_until"),
        (GOOD + "repeats: 0\n", 7, "whole number"),
        (GOOD + "  metrix: [accuracy]\n", 7, "unknown key 'metrix'"),
        (GOOD + "  metrics: [acuracy]\n", 7, "not one of accuracy"),
        (GOOD + "  native: {files: {test: ../../etc/passwd}}\n", 7, "below the folder"),
        (GOOD.replace("{type: number}", "\n    - {type: text, when: a}"), 6, "last rule"),
        (GOOD.replace("doc_to_target: answer\n", ""), None, "doc_to_target"),
        (GOOD.split("metadata")[0], None, "metadata: is missing"),
    ],
)
def test_a_broken_file_is_an_error_with_file_and_line(tmp_path: Path, text: str, line: int | None, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BrokenTask, match=words) as caught:
        read_definition(path)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_broken_template_names_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("doc_to_text: question", 'doc_to_text: "{{ question"'))
    with pytest.raises(BrokenTask, match="doc_to_text") as caught:
        SampleMaker(read_definition(path))
    assert caught.value.line == 3


def test_bytes_that_are_no_utf8_and_files_too_long(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_bytes(b"task: a\nx: \xff\n")
    with pytest.raises(BrokenTask, match="UTF-8") as caught:
        read_yaml(path)
    assert caught.value.line == 2
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(BrokenTask, match="bytes long"):
        read_yaml(path)


def test_includes_merge_and_errors_name_the_included_file(tmp_path: Path) -> None:
    written(tmp_path, "repeats: 3\ndoc_to_text: base\nmetadata:\n  suites: [x]\n  version: 1\n", "_base")
    path = written(tmp_path, "include: _base\n" + GOOD)
    definition = read_definition(path)
    assert definition.repeats == 3
    assert definition.config["doc_to_text"] == "question"
    assert definition.suites == ("x",)
    written(tmp_path, "repeats: nope\n", "_base")
    with pytest.raises(BrokenTask) as caught:
        read_definition(path)
    assert (caught.value.file, caught.value.line) == (tmp_path / "_base", 1)


def test_an_include_of_itself_ends(tmp_path: Path) -> None:
    written(tmp_path, "include: a\n", "b")
    path = written(tmp_path, "include: b\n", "a")
    with pytest.raises(BrokenTask, match="includes itself"):
        read_yaml(path)


def test_functions_come_from_beside_the_file_and_from_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text("def ask(row):\n    return 'Q: ' + row['question']\n")
    path = written(tmp_path, GOOD.replace("doc_to_text: question", "doc_to_text: !function ours.ask"))
    reference = read_yaml(path).config["doc_to_text"]
    assert isinstance(reference, FunctionRef)
    assert reference.load()({"question": "why"}) == "Q: why"
    path = written(tmp_path, GOOD.replace("doc_to_text: question", "doc_to_text: !function os.system"))
    with pytest.raises(BrokenTask, match="beside"):
        SampleMaker(read_definition(path))


def test_the_fingerprint_follows_what_changes_a_question_and_nothing_else(tmp_path: Path) -> None:
    def fingerprint(text: str) -> str:
        return read_definition(written(tmp_path, text)).fingerprint

    first = fingerprint(GOOD)
    assert fingerprint("# a remark\n" + GOOD) == first
    assert fingerprint(GOOD + "  description: told better\n  suites: [more]\n") == first
    assert fingerprint(GOOD + "generation_kwargs: {until: []}\n") == first
    assert fingerprint(GOOD.replace("question", "query")) != first
    assert fingerprint(GOOD.replace("number", "latex")) != first
    (tmp_path / "ours.py").write_text("def ask(row):\n    return 'Q'\n")
    with_function = GOOD.replace("doc_to_text: question", "doc_to_text: !function ours.ask")
    one = fingerprint(with_function)
    (tmp_path / "ours.py").write_text("def ask(row):\n    return 'R'\n")
    assert fingerprint(with_function) != one
