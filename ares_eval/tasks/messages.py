"""A question's text and pictures, in the order of the source.

`<image1>`, `<image 1>` and the unnumbered `<image>` are replaced by their picture where they first stand. Some
sources number panels that lie in one picture (MathVision's `<image2>` with a single file), or name a picture again:
such a placeholder stays as text. A picture that no placeholder names comes before the text, as the official
protocols put it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ares_eval.types import Message, Picture, PicturePart, TextPart

_PLACEHOLDER = re.compile(r"<image\s?(\d{0,3})>")


def interleave(text: str, pictures: Sequence[Picture]) -> tuple[TextPart | PicturePart, ...]:
    """Texts and pictures in order; the n-th picture belongs to ``<imagen>``, or to the n-th ``<image>``."""
    placed: set[int] = set()
    parts: list[TextPart | PicturePart] = []
    start = unnumbered = 0
    for mark in _PLACEHOLDER.finditer(text):
        if mark[1]:
            number = int(mark[1]) - 1
        else:
            number, unnumbered = unnumbered, unnumbered + 1
        if not 0 <= number < len(pictures) or number in placed:
            continue
        placed.add(number)
        _add_text(parts, text[start : mark.start()])
        parts.append(PicturePart(pictures[number]))
        start = mark.end()
    _add_text(parts, text[start:])
    first = [PicturePart(picture) for number, picture in enumerate(pictures) if number not in placed]
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
