"""Tiny datasets and tasks that tests make for themselves, in every local layout."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ares_eval.types import PicturePart, Sample, TextPart

YAML = """\
task: ares_tiny
dataset_path: org/tiny
doc_to_text: question
doc_to_target: answer
doc_to_image: [image, image_2]
metadata:
  modality: image+text
  id: id
  answer:
    - {when: options, type: choice, choices: options | written_list}
    - {type: number}
  native:
    files: {test: rows.jsonl}
    pictures:
      image: picture
      image_2: doc.get('picture_2')
  tsv:
    name: Tiny
    columns: {id: index, options: "[A, B] | select | list"}
    pictures: {image: image, image_2: image_2}
"""


def png(width: int, height: int, colour: Any = "red", mode: str = "RGB", kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (width, height), colour).save(out, format=kind)
    return out.getvalue()


ROWS: list[dict[str, Any]] = [
    {"id": "1", "question": "one <image1> two", "answer": "4", "options": [], "pictures": [png(20, 30)]},
    {"id": "2", "question": "none", "answer": "B", "options": ["x", "y"], "pictures": []},
    {
        "id": "3",
        "question": 'a "quoted"\tline\nand <image 2> then <image 1>',
        "answer": "5",
        "options": [],
        "pictures": [png(5, 5, "blue"), png(6, 6, "green")],
    },
]


def task_file(folder: Path, text: str = YAML, name: str = "tiny") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text, "utf-8")
    return path


def native(folder: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    """DIR/tiny/rows.jsonl and the pictures beside it."""
    root = folder / "tiny"
    root.mkdir(parents=True)
    lines = []
    for row in rows:
        line = {key: value for key, value in row.items() if key != "pictures"}
        for number, data in enumerate(row["pictures"]):
            name = f"p{row['id']}_{number}.png"
            (root / name).write_bytes(data)
            line["picture" if number == 0 else "picture_2"] = name
        line.setdefault("picture", None)
        lines.append(json.dumps(line))
    (root / "rows.jsonl").write_text("\n\n".join(lines) + "\n", "utf-8")
    return folder


def parquet(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS, group: int = 2) -> None:
    """Rows in the form of the Hub's Image feature."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = {"id": pa.string(), "question": pa.string(), "answer": pa.string(), "options": pa.list_(pa.string())}
    schema = pa.schema({**kinds, "image": picture, "image_2": picture})
    cells = []
    for row in rows:
        cell = {key: value for key, value in row.items() if key != "pictures"}
        for number, column in enumerate(("image", "image_2")):
            data = row["pictures"][number] if number < len(row["pictures"]) else None
            cell[column] = None if data is None else {"bytes": data, "path": "a.png"}
        cells.append(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(cells, schema), path, row_group_size=group)


def tsv(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> None:
    """VLMEvalKit's form."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "image_2", "question", "answer", "A", "B"])
        for row in rows:
            pictures = [base64.b64encode(data).decode() for data in row["pictures"]] + ["", ""]
            options = [*row["options"], "", ""]
            writer.writerow([row["id"], *pictures[:2], row["question"], row["answer"], *options[:2]])


def plain(sample: Sample) -> tuple[Any, ...]:
    """A sample as plain values, pictures as their bytes."""
    turns = [
        (message.role, [part.text if isinstance(part, TextPart) else part.picture.read() for part in message.parts])
        for message in sample.messages
    ]
    answer = (sample.answer.type, dict(sample.answer.policy), sample.answer.choices)
    return sample.id, sample.group, sample.level, dict(sample.fields), sample.reference, answer, turns


def pictures(sample: Sample) -> list[Any]:
    return [part.picture for message in sample.messages for part in message.parts if isinstance(part, PicturePart)]
