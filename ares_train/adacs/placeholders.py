"""Where the pictures of a question stand in its text: one ``<image>`` for each, in order, and no other.

verl splits texts at ``<image>``, ``<video>`` and ``<audio>`` wherever they stand, so what only looks like one of them
is written apart (``< image>``). Pure: texts and counts in, texts and an order out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

IMAGE = "<image>"

Turn: TypeAlias = tuple[str, str]
"""(role, content)."""

_NUMBERED = re.compile(r"<image ?(\d{1,3})>")
_OTHER = re.compile(r"<(video|audio)>")


class Misplaced(ValueError):
    """Marks and pictures do not fit together."""


def place(turns: Sequence[Turn], pictures: int, *, literal: bool = False) -> tuple[list[Turn], list[int]]:
    """The turns with exactly ``pictures`` marks ``<image>``, and which picture (from 0) each of them stands for.

    Marks that fit are kept. ``<image1>`` ... name pictures: the first mark of each becomes its place. Pictures that no
    mark names come before the text of the last user turn. ``literal``: there can be no pictures, so marks are text and
    are written apart. Raises Misplaced where the number of marks is another one, or no turn is the user's.
    """
    turns = [(role, _OTHER.sub(r"< \1>", content)) for role, content in turns]
    marks = sum(content.count(IMAGE) for _, content in turns)
    if pictures == 0 and literal:
        return [(role, content.replace(IMAGE, "< image>")) for role, content in turns], []
    if marks:
        if marks != pictures:
            raise Misplaced(f"{marks} marks <image> for {pictures} pictures")
        return list(turns), list(range(pictures))
    if pictures == 0:
        return list(turns), []
    order: list[int] = []
    numbers = [int(number) for _, content in turns for number in _NUMBERED.findall(content)]
    # Marks beyond the pictures number panels within one: all of them are text then.
    if numbers and all(1 <= number <= pictures for number in numbers):
        turns = [(role, _first_marks(content, order)) for role, content in turns]
    unnamed = [number for number in range(pictures) if number not in order]
    last = max((at for at, (role, _) in enumerate(turns) if role == "user"), default=None)
    if last is None:
        raise Misplaced("no turn is the user's")
    before = sum(content.count(IMAGE) for _, content in turns[:last])
    turns[last] = ("user", IMAGE * len(unnamed) + turns[last][1])
    return turns, [*order[:before], *unnamed, *order[before:]]


def _first_marks(content: str, order: list[int]) -> str:
    """``content`` with the first mark of each picture as its place; ``order`` grows by the pictures found."""

    def found(mark: re.Match[str]) -> str:
        number = int(mark[1]) - 1
        if number in order:
            return mark[0]
        order.append(number)
        return IMAGE

    return _NUMBERED.sub(found, content)
