"""From a row to a question: order of texts and pictures, options, references, answer specs, groups, limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ares_eval.tasks import BadRow, load
from ares_eval.tasks.messages import interleave
from ares_eval.tasks.templates import TemplateError, expression, lettered, written_list
from ares_eval.types import Picture, PicturePart, TextPart
from tests.tasks import tiny

A, B, C = (Picture(name, name.encode) for name in "abc")


def shown(text: str, *pictures: Picture) -> list[str]:
    return [
        part.text if isinstance(part, TextPart) else f"<{part.picture.source}>" for part in interleave(text, pictures)
    ]


@pytest.mark.parametrize(
    ("text", "pictures", "expected"),
    [
        ("q", (), ["q"]),
        ("q", (A,), ["<a>", "q"]),
        ("q <image1>", (A,), ["q ", "<a>"]),
        ("<image 1> q", (A,), ["<a>", " q"]),
        ("x <image> y <image> z", (A, B), ["x ", "<a>", " y ", "<b>", " z"]),
        ("<image2> first, <image1> second", (A, B), ["<b>", " first, ", "<a>", " second"]),
        ("only <image 2>", (A, B, C), ["<a>", "<c>", "only ", "<b>"]),
        # MathVision: one picture holds all the panels that the text numbers.
        ("<image1> A: <image2> B: <image3>", (A,), ["<a>", "<image1> A: <image2> B: <image3>"]),
        ("<image1> again <image1>", (A,), ["<a>", " again <image1>"]),
        ("a < b <image> <b>", (A,), ["a < b ", "<a>", " <b>"]),
        ("<image0> <image99>", (A,), ["<a>", "<image0> <image99>"]),
        ("<image1>\n<image2>", (A, B), ["<a>", "<b>"]),
    ],
)
def test_pictures_stand_where_the_source_has_them(
    text: str, pictures: tuple[Picture, ...], expected: list[str]
) -> None:
    assert shown(text, *pictures) == expected


@given(st.text(alphabet="ab <>image123\n", max_size=60), st.integers(0, 4))
def test_every_picture_is_sent_once_and_no_word_is_lost(text: str, count: int) -> None:
    pictures = [Picture(str(i), bytes) for i in range(count)]
    parts = interleave(text, pictures)
    sent = [part.picture for part in parts if isinstance(part, PicturePart)]
    assert sorted(sent, key=lambda picture: picture.source) == pictures
    kept = "".join(part.text for part in parts if isinstance(part, TextPart))
    letters = sum(character not in "<>image123 \n" for character in text)
    assert sum(character not in "<>image123 \n" for character in kept) == letters


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Which? (A) one (B) two", ["one", "two"]),
        ("Which? choice: (A) A (B) B (C) C", ["A", "B", "C"]),
        ("Is f(A) = (B)?", []),
        ("Point (A) is red. Which? (A) x (B) y", ["x", "y"]),
        ("(A) x (C) y", []),
        ("no options", []),
    ],
)
def test_options_written_into_the_question(text: str, options: list[str]) -> None:
    assert lettered(text) == options


def test_written_lists_are_parsed_and_never_run() -> None:
    assert written_list("['a', \"b's\", 'c']") == ["a", "b's", "c"]
    assert written_list(["a"]) == ["a"]
    for text in ("__import__('os').system('true')", "'a'", "[" * 10_000, "[1" + ", 1" * 60_000 + "]", 7):
        with pytest.raises(TemplateError):
            written_list(text)


def test_templates_are_sandboxed_and_rows_are_never_templates() -> None:
    for hostile in ("''.__class__.__mro__[1].__subclasses__()", "doc.__class__", "doc.update({'a': 1})"):
        with pytest.raises(TemplateError):
            expression(hostile)({"doc": {"a": 0}})
    assert expression("question ~ ''")({"question": "{{ 7 * 7 }}"}) == "{{ 7 * 7 }}"


def made(tmp_path: Path, yaml: str, rows: list[dict[str, Any]], **options: Any) -> Any:
    tiny.task_file(tmp_path / "tasks", yaml)
    (tmp_path / "data" / "tiny").mkdir(parents=True, exist_ok=True)
    (tmp_path / "data" / "tiny" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load("tiny", dataset_dir=tmp_path / "data", include_path=[tmp_path / "tasks"], **options)


HEAD = (
    "task: t\ndataset_path: o/t\ndoc_to_text: q\ndoc_to_target: a\nmetadata:\n  native: {files: {test: rows.jsonl}}\n"
)


def test_answer_specs_follow_the_row(tmp_path: Path) -> None:
    yaml = HEAD + (
        "  answer:\n"
        "    - {when: kind == 'float', type: number, policy: {digits: {from: precision}, percent: true}}\n"
        "    - {when: options, type: choice, choices: options, policy: {multi: \"{from: ',' in a}\"}}\n"
        "    - {type: {from: kind}, policy: {from: more}}\n"
    ).replace("\"{from: ',' in a}\"", "{from: \"',' in a\"}")
    rows = [
        {"q": "1", "a": 2.5, "kind": "float", "precision": 2, "options": [], "more": {}},
        {"q": "2", "a": "A, B", "kind": "x", "options": "['p', 'q']", "more": {}},
        {"q": "3", "a": ["yes", "yeah"], "kind": "text", "options": None, "more": {"aliases": ["y"]}},
        {"q": "4", "a": 7, "kind": "nonsense", "options": [], "more": {}},
    ]
    samples = made(tmp_path, yaml, rows).samples()
    specs = [(one.answer.type, one.answer.policy, one.answer.choices, one.reference) for one in [next(samples)] * 1]
    specs += [
        (one.answer.type, one.answer.policy, one.answer.choices, one.reference)
        for one in (next(samples), next(samples))
    ]
    assert specs == [
        ("number", {"digits": 2, "percent": True}, (), "2.5"),
        ("choice", {"multi": True}, ("p", "q"), "A, B"),
        ("text", {"aliases": ["y"]}, (), ("yes", "yeah")),
    ]
    with pytest.raises(BadRow, match="nonsense"):
        next(samples)


def test_rows_that_are_left_out_are_not_counted(tmp_path: Path) -> None:
    rows = [{"q": str(i), "a": "" if i % 3 == 0 else "1"} for i in range(10)]
    task = made(tmp_path, HEAD + "  keep: a\n  answer: {type: number}\n", rows)
    assert task.size == 6 == len(list(task.samples()))
    assert [sample.id for sample in task.samples()] == ["1", "2", "4", "5", "7", "8"]
    cut = made(tmp_path, HEAD + "  keep: a\n  answer: {type: number}\n", rows, limit=4)
    assert cut.size == 4 == len(list(cut.samples()))


GROUPED = HEAD + "  metrics: [accuracy, worst_case]\n  id: row_number\n  group: g\n  answer: {type: number}\n"


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 9, None])
def test_a_limit_takes_whole_groups_where_the_metric_needs_them(tmp_path: Path, limit: int | None) -> None:
    rows = [{"q": "q", "a": "1", "g": group} for group in "abcabcabab"]
    samples = list(made(tmp_path, GROUPED, rows, limit=limit).samples())
    wanted = "abc" if limit is None else "abc"[:limit]
    assert [sample.group for sample in samples] == [group for group in "abcabcabab" if group in wanted]


def test_variants_are_read_side_by_side(tmp_path: Path) -> None:
    root = tmp_path / "data" / "tiny"
    root.mkdir(parents=True)
    for variant in (1, 2, 3):
        rows = {str(i): {"q": f"{i}.{variant}", "a": "1"} for i in range(4)}
        (root / f"v{variant}.json").write_text(json.dumps(rows))
    yaml = (
        "task: t\ndoc_to_text: q\ndoc_to_target: a\nmetadata:\n  metrics: [worst_case]\n  variants: [v1, v2, v3]\n"
        "  id: id ~ '/' ~ variant\n  group: id\n  answer: {type: number}\n"
        "  native: {key: id, files: {v1: v1.json, v2: v2.json, v3: v3.json}}\n"
    )
    tiny.task_file(tmp_path / "tasks", yaml)
    task = load("tiny", dataset_dir=tmp_path / "data", include_path=[tmp_path / "tasks"], limit=2)
    assert [sample.id for sample in task.samples()] == ["0/1", "0/2", "0/3", "1/1", "1/2", "1/3"]
    assert task.size == 6


@pytest.mark.parametrize(
    "content", ['[{"q": "x", "a": 1}]', '{"k": {"q": "x", "a": 1}}', '{"q": "x", "a": 1}\n{"q": "y", "a": 2}\n']
)
def test_json_files_in_their_three_forms(tmp_path: Path, content: str) -> None:
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    (tmp_path / "data" / "tiny" / "rows.json").write_text(content)
    yaml = HEAD.replace("rows.jsonl}", "rows.json}, key: key") + "  answer: {type: number}\n"
    tiny.task_file(tmp_path / "tasks", yaml)
    samples = list(load("tiny", dataset_dir=tmp_path / "data", include_path=[tmp_path / "tasks"]).samples())
    assert samples[0].messages[0].parts == (TextPart("x"),)
    assert samples[0].reference == "1"
