"""The questions of the benchmarks, made here in the native layouts of gsm8k and MATH-Vision; nothing is downloaded.

Each question ends in a sum that the loopback server works out, so every answer can be right. Pictures are drawn by
seed in the sizes that MATH-Vision has: more than half below 262,144 pixels, one in eight above 1,048,576.
"""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

NAMES = ("Ada", "Bo", "Chidi", "Dana", "Emil", "Fatou", "Goran", "Hana", "Ines", "Jun")
THINGS = ("apples", "marbles", "stamps", "tickets", "books", "coins", "shells", "pencils", "cards", "eggs")
DISTINCT_PICTURES = 300
# Share of pictures and their range of pixels, as counted on MATH-Vision's testmini.
PIXELS = ((0.56, 40_000, 262_000), (0.31, 263_000, 1_048_000), (0.13, 1_049_000, 2_200_000))


def story(number: int) -> tuple[str, int]:
    """A word problem of the length of gsm8k's, and its answer."""
    chance = random.Random(number)
    name, thing = chance.choice(NAMES), chance.choice(THINGS)
    have, more = chance.randint(10, 999), chance.randint(10, 999)
    text = (
        f"{name} keeps {thing} in a long row of boxes on shelf {number} of the storage room behind the shop. "
        f"On Monday there are {have} {thing} in the boxes. During the week a friend comes by and brings {more} further "
        f"{thing}, which go into the boxes too, and nothing is taken out. How many {thing} does {name} have then, that "
        f"is, what is {have} + {more}?"
    )
    return text, have + more


def text_questions(folder: Path, count: int) -> Path:
    """A folder for ``--dataset-dir`` with ``count`` questions for gsm8k; made once."""
    file = folder / f"text-{count}" / "gsm8k" / "grade_school_math" / "data" / "test.jsonl"
    if not file.exists():
        file.parent.mkdir(parents=True)
        with file.open("w", encoding="utf-8") as lines:
            for number in range(count):
                question, answer = story(number)
                solution = f"The boxes hold both shares, so the answer is {answer}.\n#### {answer}"
                lines.write(json.dumps({"question": question, "answer": solution}) + "\n")
    return folder / f"text-{count}"


def picture_questions(folder: Path, count: int) -> Path:
    """A folder for ``--dataset-dir`` with ``count`` questions for mathvision, each with a picture of its own."""
    root = folder / f"pictures-{count}"
    base = root / "mathvision"
    if base.exists():
        return root
    (base / "images").mkdir(parents=True)
    (base / "data").mkdir()
    drawn = pictures(folder, min(count, DISTINCT_PICTURES))
    with (base / "data" / "test.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(count):
            question, answer = story(number)
            name = f"images/{number + 1}.jpg"
            (base / name).write_bytes(signed(drawn[number % len(drawn)], number))
            row: dict[str, Any] = {
                "id": str(number + 1),
                "question": f"{question}\n<image1>",
                "options": [],
                "answer": str(answer),
                "solution": None,
                "level": number % 5 + 1,
                "subject": "arithmetic",
                "image": name,
            }
            lines.write(json.dumps(row) + "\n")
    return root


def pictures(folder: Path, count: int) -> list[bytes]:
    """JPEG files, drawn once and kept in the folder."""
    kept = folder / "drawn"
    kept.mkdir(exist_ok=True)
    made = []
    for number in range(count):
        file = kept / f"{number}.jpg"
        if not file.exists():
            file.write_bytes(draw(number))
        made.append(file.read_bytes())
    return made


def draw(number: int) -> bytes:
    """A line drawing on white with some scanner grain, as a JPEG file."""
    from PIL import Image, ImageDraw

    chance = random.Random(number)
    _, low, high = chance.choices(PIXELS, weights=[share for share, _, _ in PIXELS])[0]
    pixels, ratio = chance.uniform(low, high), chance.uniform(0.5, 2.0)
    width, height = int((pixels * ratio) ** 0.5), int((pixels / ratio) ** 0.5)
    picture = Image.new("RGB", (width, height), "white")
    # A ninth of the page is scanned with its grain, the rest is clean: so JPEG and PNG sizes come out as there.
    grain = Image.effect_noise((width // 3, height // 3), 3).point(lambda value: min(255, 110 + value))
    picture.paste(grain.convert("RGB"), (width // 3, height // 3))
    pen = ImageDraw.Draw(picture)
    for _ in range(7):
        points = [(chance.randrange(width), chance.randrange(height)) for _ in range(chance.randint(2, 5))]
        if chance.random() < 0.3:
            x, y = points[0]
            radius = chance.randint(5, 60)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline="black", width=2)
        else:
            pen.line(points, fill=chance.choice(("black", "navy", "darkred", "dimgray")), width=chance.randint(1, 4))
        pen.text(points[-1], chance.choice("ABCDEFXYZ"), fill="black")
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=70)
    return stream.getvalue()


def signed(jpeg: bytes, number: int) -> bytes:
    """The same picture in another file: a comment with the number, so that no digest occurs twice."""
    comment = str(number).encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def real_pictures(folder: Path, dataset_dir: Path, count: int) -> tuple[Path, Path]:
    """MATH-Vision itself where it is at hand: a dataset folder of its first rows, and their answers' table."""
    source = dataset_dir / "mathvision"
    root = folder / f"real-{count}"
    base = root / "mathvision"
    answers = root / "answers.jsonl"
    if not base.exists():
        (base / "data").mkdir(parents=True)
        (base / "images").symlink_to((source / "images").resolve())
        rows = [json.loads(line) for line in (source / "data" / "testmini.jsonl").open(encoding="utf-8")][:count]
        (base / "data" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        table = [{"question": row["question"], "answer": row["answer"]} for row in rows]
        answers.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return root, answers
