"""A question's text and pictures, in the order of the source.

`<image1>`, `<image 1>` and the unnumbered `<image>` are replaced by their picture where they first stand; where a
picture is named again the mark stays as text. A picture that no mark names comes before the text, as the official
protocols put it. Where the text has more marks than there are pictures (MathVision's `<image1>` to `<image5>` with a
single file), they number panels within the picture: it comes first, and all marks stay as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ares_eval.types import Message, Picture, PicturePart, TextPart

_PLACEHOLDER = re.compile(r"<image\s?(\d{0,3})>")


def interleave(text: str, pictures: Sequence[Picture]) -> tuple[TextPart | PicturePart, ...]:
    """Texts and pictures in order; the n-th picture belongs to ``<imagen>``, or to the n-th ``<image>``."""
    marks: list[tuple[int, re.Match[str]]] = []
    unnumbered = 0
    for mark in _PLACEHOLDER.finditer(text):
        if not mark[1]:
            unnumbered += 1
        marks.append((int(mark[1]) if mark[1] else unnumbered, mark))
    if any(not 1 <= number <= len(pictures) for number, _ in marks):
        marks = []
    placed: set[int] = set()
    parts: list[TextPart | PicturePart] = []
    start = 0
    for number, mark in marks:
        if number in placed:
            continue
        placed.add(number)
        _add_text(parts, text[start : mark.start()])
        parts.append(PicturePart(pictures[number - 1]))
        start = mark.end()
    _add_text(parts, text[start:])
    first = [PicturePart(picture) for number, picture in enumerate(pictures, 1) if number not in placed]
    return (*first, *parts)


def user_turn(text: str, pictures: Sequence[Picture]) -> tuple[Message, ...]:
    """The one user turn of a question."""
    return (Message("user", interleave(text, pictures)),)


def flatten(cells: Iterable[Any]) -> list[Picture]:
    """The pictures of cells that hold a picture, a list of pictures, or nothing. Raises ValueError for other cells."""
    pictures: list[Picture] = []
    for cell in cells:
        if cell is None:
            continue
        if isinstance(cell, Picture):
            pictures.append(cell)
        elif isinstance(cell, (list, tuple)):
            pictures.extend(flatten(cell))
        else:
            raise ValueError(f"not a picture: {cell!r:.80}")
    return pictures


def _add_text(parts: list[TextPart | PicturePart], text: str) -> None:
    if text.strip():
        parts.append(TextPart(text))
