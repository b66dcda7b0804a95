"""Draw the pictures of `smoke_pictures` and write its questions: `python tasks/smoke_pictures/draw.py`.

Everything is drawn from one seed, so the questions come out the same again; the pictures are kept in the repository
because another Pillow may encode the same pixels in other bytes. Formats and sizes are varied on purpose: small,
large, RGBA, palette, grey, JPEG, several pictures to a question, marks inside and outside the text.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
SEED = 20251009
COLOURS = {
    "red": (214, 39, 40),
    "blue": (31, 119, 180),
    "green": (44, 160, 44),
    "orange": (255, 127, 14),
    "purple": (148, 103, 189),
    "black": (20, 20, 20),
}
Ink = ImageDraw.ImageDraw


def canvas(width: int, height: int, ground: str | tuple[int, ...] = "white", mode: str = "RGB") -> tuple[Any, Ink]:
    """A new picture and its pen."""
    image = Image.new(mode, (width, height), ground)
    return image, ImageDraw.Draw(image)


def write(ink: Ink, at: tuple[float, float], text: str, size: int = 28, fill: Any = "black") -> None:
    """Text centred at a point, in Pillow's own font."""
    ink.text(at, text, fill=fill, font=ImageFont.load_default(size), anchor="mm")


def dots(count: int, colour: str, rng: random.Random, width: int = 640, height: int = 480) -> Any:
    """``count`` discs on a grid, so that none covers another."""
    image, ink = canvas(width, height)
    cells = [(x, y) for x in range(6) for y in range(4)]
    for x, y in rng.sample(cells, count):
        cx, cy = (x + 0.5) * width / 6, (y + 0.5) * height / 4
        radius = min(width, height) / 14
        ink.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=COLOURS[colour])
    return image


def polygon(sides: int, colour: str, size: int = 400) -> Any:
    """A regular polygon."""
    image, ink = canvas(size, size)
    points = [
        (
            size / 2 + 0.4 * size * math.sin(2 * math.pi * i / sides),
            size / 2 - 0.4 * size * math.cos(2 * math.pi * i / sides),
        )
        for i in range(sides)
    ]
    ink.polygon(points, fill=COLOURS[colour], outline="black")
    return image


def bars(values: dict[str, int], width: int = 800, height: int = 600) -> Any:
    """A bar chart with a number on each bar's foot and a scale of whole steps."""
    image, ink = canvas(width, height)
    top = max(values.values()) + 1
    foot, left = height - 60, 70
    for step in range(top + 1):
        y = foot - (foot - 30) * step / top
        ink.line((left, y, width - 20, y), fill=(210, 210, 210))
        write(ink, (left - 25, y), str(step), 18)
    slot = (width - left - 20) / len(values)
    for number, (name, value) in enumerate(values.items()):
        x = left + slot * number + slot * 0.2
        ink.rectangle((x, foot - (foot - 30) * value / top, x + slot * 0.6, foot), fill=(31, 119, 180), outline="black")
        write(ink, (x + slot * 0.3, foot + 25), name, 20)
    return image


def clock(hour: int, minute: int, size: int = 500) -> Any:
    """A clock's face with twelve numbers and two hands."""
    image, ink = canvas(size, size)
    c = size / 2
    ink.ellipse((10, 10, size - 10, size - 10), outline="black", width=5)
    for number in range(1, 13):
        angle = math.radians(30 * number)
        write(ink, (c + 0.4 * size * math.sin(angle), c - 0.4 * size * math.cos(angle)), str(number), 26)
    for angle, length, width in ((30 * hour + minute / 2, 0.22, 10), (6 * minute, 0.34, 5)):
        turned = math.radians(angle)
        end = (c + length * size * math.sin(turned), c - length * size * math.cos(turned))
        ink.line((c, c, *end), fill="black", width=width)
    return image


def grid_point(x: int, y: int, size: int = 520) -> Any:
    """A coordinate grid from -5 to 5 with one marked point."""
    image, ink = canvas(size, size)
    step, c = size / 12, size / 2
    for i in range(-5, 6):
        ink.line((c + i * step, c - 5 * step, c + i * step, c + 5 * step), fill=(220, 220, 220))
        ink.line((c - 5 * step, c + i * step, c + 5 * step, c + i * step), fill=(220, 220, 220))
        if i:
            write(ink, (c + i * step, c + 14), str(i), 14)
            write(ink, (c - 14, c - i * step), str(i), 14)
    ink.line((c - 5.4 * step, c, c + 5.4 * step, c), fill="black", width=2)
    ink.line((c, c - 5.4 * step, c, c + 5.4 * step), fill="black", width=2)
    px, py = c + x * step, c - y * step
    ink.ellipse((px - 8, py - 8, px + 8, py + 8), fill=COLOURS["red"])
    return image


def right_triangle(a: int, b: int) -> Any:
    """A right triangle with its two legs labelled and the third side marked with a question mark."""
    image, ink = canvas(640, 480)
    corner, right, up = (120, 400), (520, 400), (120, 100)
    ink.polygon([corner, right, up], outline="black", width=4)
    ink.rectangle((120, 375, 145, 400), outline="black", width=3)
    write(ink, (320, 430), str(b), 32)
    write(ink, (85, 250), str(a), 32)
    write(ink, (350, 220), "?", 36)
    return image


def words(text: str, width: int = 640, height: int = 160, mode: str = "RGB", size: int = 56) -> Any:
    """Text on a plain ground; with an alpha channel the ground is transparent."""
    image, ink = canvas(width, height, (0, 0, 0, 0) if mode == "RGBA" else "white", mode)
    write(ink, (width / 2, height / 2), text, size, (20, 20, 20, 255) if mode == "RGBA" else "black")
    return image


def calendar_page(month: str, year: int, day: int) -> Any:
    """A torn-off calendar page."""
    image, ink = canvas(360, 420)
    ink.rectangle((10, 10, 350, 110), fill=COLOURS["red"])
    write(ink, (180, 60), f"{month} {year}", 36, "white")
    ink.rectangle((10, 10, 350, 410), outline="black", width=4)
    write(ink, (180, 260), str(day), 160)
    return image


def questions() -> list[tuple[dict[str, Any], list[tuple[Any, str]]]]:
    """(row, [(picture, format)]) of every question."""
    rng = random.Random(SEED)
    made: list[tuple[dict[str, Any], list[tuple[Any, str]]]] = []

    def ask(
        level: str, type_: str, question: str, answer: Any, *pictures: Any, options: tuple[str, ...] = (), **policy: Any
    ) -> None:
        row = {"id": f"p{len(made) + 1:03d}", "level": level, "type": type_, "question": question}
        drawn = [picture if isinstance(picture, tuple) else (picture, "png") for picture in pictures]
        made.append((row | {"answer": answer, "options": list(options), "policy": policy}, drawn))

    for count, colour in ((3, "red"), (5, "blue"), (1, "green"), (7, "orange")):
        ask("easy", "number", f"<image>\nHow many {colour} discs are there?", str(count), dots(count, colour, rng))
    for colour in ("red", "green"):
        ask("easy", "text", "What colour is the shape? <image>", colour, polygon(4, colour))
    ask(
        "easy",
        "choice",
        "<image 1>\nWhich shape is this?",
        "A",
        polygon(3, "blue"),
        options=("triangle", "square", "circle"),
    )
    ask("easy", "choice", "Which number is in the picture?", "B", words("42", 200, 120), options=("24", "42", "44"))
    ask(
        "easy",
        "yesno",
        "Is there a disc in this picture? Answer yes or no.\n<image>",
        "yes",
        dots(2, "purple", rng, 120, 90),
    )
    ask("easy", "yesno", "<image>\nIs this shape a circle? Answer yes or no.", "no", polygon(5, "black"))
    ask("easy", "text", "Which word is written here? <image>", "apple", words("apple", mode="RGBA"))
    ask(
        "easy",
        "number",
        "Work out what is written in the picture. <image>",
        "7",
        (words("3 + 4", 320, 120).convert("L"), "png"),
    )
    ask(
        "easy",
        "date",
        "Which date does this calendar page show? <image>",
        "2024-03-15",
        calendar_page("March", 2024, 15),
    )

    values = {name: rng.randint(1, 9) for name in ("Ann", "Ben", "Cat", "Dan")}
    values["Cat"] = 9
    values["Ben"] = 2
    ask("medium", "choice", "<image1>\nWho has the tallest bar?", "C", bars(values), options=tuple(values))
    ask("medium", "number", "The chart shows apples. How many has Ben? <image1>", "2", bars(values))
    ask("medium", "number", "<image>\nHow much is Cat's value above Ben's?", "7", (bars(values), "jpeg"))
    ask(
        "medium", "list", "Which values do Ben and Cat have, in this order? <image>", "2, 9", bars(values), ordered=True
    )
    ask(
        "medium",
        "text",
        "What time does the clock show, as H:MM?\n<image>",
        ("3:00", "03:00", "3 o'clock"),
        clock(3, 0),
    )
    ask(
        "medium",
        "text",
        "<image>\nWhat time does the clock show, as H:MM?",
        ("9:30", "09:30"),
        (clock(9, 30).convert("P"), "png"),
    )
    ask("medium", "structured", "Give the coordinates (x, y) of the red point.\n<image>", "(2, -3)", grid_point(2, -3))
    ask(
        "medium",
        "structured",
        "<image>\nGive the coordinates (x, y) of the red point.",
        "(-4, 1)",
        (grid_point(-4, 1, 1200), "png"),
    )
    ask(
        "medium",
        "number",
        "How many more discs are in <image1> than in <image2>?",
        "4",
        dots(6, "red", rng),
        dots(2, "red", rng),
    )
    ask(
        "medium",
        "yesno",
        "Do <image 1> and <image 2> show the same word? Answer yes or no.",
        "no",
        words("form"),
        words("from"),
    )
    two = (polygon(6, "orange"), polygon(3, "green"))
    question = "Which of these colours are in the two pictures? Choose all that fit. <image1> <image2>"
    ask("medium", "choice", question, "A, C", *two, options=("orange", "blue", "green"), multi=True)

    ask("hard", "number", "<image>\nHow long is the side marked with a question mark?", "10", right_triangle(6, 8))
    ask("hard", "number", "How long is the side marked with a question mark? <image>", "13", right_triangle(5, 12))
    ask(
        "hard",
        "latex",
        "<image>\nHow long is the side marked with a question mark? Give it exactly.",
        "\\sqrt{2}",
        right_triangle(1, 1),
    )
    ask(
        "hard",
        "latex",
        "Give the value of the fraction in lowest terms. <image>",
        "\\frac{3}{4}",
        words("18/24", 300, 100),
    )
    ask("hard", "number", "What is the mean of the four values? Give it to two decimal places. <image>",
        f"{sum(values.values()) / 4:.2f}", bars(values, 2000, 1500), digits=2)  # fmt: skip
    ask("hard", "list", "List the names from the smallest to the largest value. <image>",
        ", ".join(sorted(RANKED, key=RANKED.__getitem__)), bars(RANKED), ordered=True)  # fmt: skip
    ask(
        "hard",
        "number",
        "What angle in degrees lies between the two hands, the smaller one? <image>",
        "120",
        clock(4, 0),
    )
    ask("hard", "multipart", "Give (a) the number of sides of <image1> and (b) the number of discs in <image2>.",
        "(a) 7; (b) 9", polygon(7, "blue"), dots(9, "black", rng))  # fmt: skip
    ask(
        "hard",
        "date",
        "Which date is 20 days after the one shown? <image>",
        "2023-03-10",
        calendar_page("February", 2023, 18),
    )
    ask("hard", "choice", "Which equation describes the point's place? <image>", "D", grid_point(3, 4),
        options=("x + y = 6", "y = 2x", "x - y = 1", "x^2 + y^2 = 25"))  # fmt: skip
    return made


RANKED = {"Eva": 5, "Fay": 3, "Gus": 8, "Hal": 1}


def main() -> None:
    """Write pictures and questions beside this file."""
    save: dict[str, Callable[[Any, Path], None]] = {
        "png": lambda image, path: image.save(path, optimize=True),
        "jpeg": lambda image, path: image.convert("RGB").save(path, quality=85),
    }
    rows = []
    for row, pictures in questions():
        for number, (image, kind) in enumerate(pictures, 1):
            name = f"{row['id']}_{number}.{'jpg' if kind == 'jpeg' else 'png'}"
            save[kind](image, HERE / name)
            row["image" if number == 1 else f"image_{number}"] = f"smoke_pictures/{name}"
        rows.append(row)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE.parent / "smoke_pictures.jsonl").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
