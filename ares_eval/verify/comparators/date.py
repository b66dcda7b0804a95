"""Dates and times of day: the same day whatever the format; a partial date agrees with a full one that refines it.

Numeric dates with slashes are read in the order written: 07/02/1999 and 02/07/1999 differ, since nobody says which
is the month.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ares_eval.verify.decision import Decision
from ares_eval.verify.normalise import ascii_maths, trimmed, unwrap

_MONTHS = {
    name: number
    for number, names in enumerate(
        [
            "january jan",
            "february feb",
            "march mar",
            "april apr",
            "may",
            "june jun",
            "july jul",
            "august aug",
            "september sep sept",
            "october oct",
            "november nov",
            "december dec",
        ],
        1,
    )
    for name in names.split()
}
_MONTH = "(" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\.?"
_PATTERNS = (
    (re.compile(r"\b(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})\b"), "ymd"),
    (re.compile(r"(\d{4})年\s*(\d{1,2})月(?:\s*(\d{1,2})日)?"), "ymd"),
    (re.compile(_MONTH + r"\s+(\d{1,2})(?:st|nd|rd|th)?\s*,?\s+(\d{4})\b", re.I), "mdy"),
    (re.compile(r"\b(\d{1,2})(?:st|nd|rd|th)?\s+(?:of\s+)?" + _MONTH + r"\s*,?\s+(\d{4})\b", re.I), "dmy"),
    (re.compile(r"\b" + _MONTH + r"\s*,?\s+(?:of\s+)?(\d{4})\b", re.I), "my"),
    (re.compile(r"\b" + _MONTH + r"\s+(\d{1,2})(?:st|nd|rd|th)?\b", re.I), "md"),
    (re.compile(r"\b(\d{1,2})(?:st|nd|rd|th)?\s+(?:of\s+)?" + _MONTH + r"(?![a-z])", re.I), "dm"),
)
_SLASHED = re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{2,4})\b")
_TIME = re.compile(r"^(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:([ap])\s*\.?\s*m?\.*)?$", re.I)
_CLOCK = re.compile(r"^(\d{1,2})\s*([ap])\s*\.?\s*m\.*$", re.I)


@dataclass(frozen=True, slots=True)
class Date:
    """Parts that a text states; None where it does not. ``slashed``: day and month could be either way round."""

    year: int | None
    month: int | None
    day: int | None
    slashed: bool = False

    def agrees(self, other: Date) -> bool:
        """No part that both state differs."""
        pairs = ((self.year, other.year), (self.month, other.month), (self.day, other.day))
        return all(a is None or b is None or a == b for a, b in pairs)

    def refines(self, other: Date) -> bool:
        """States everything that the other does, and agrees."""
        pairs = ((self.year, other.year), (self.month, other.month), (self.day, other.day))
        return all(b is None or a == b for a, b in pairs)


def dates_in(text: str) -> list[Date]:
    """Dates that a text states; each stretch is read once, the fullest reading first."""
    text = ascii_maths(text)
    found: list[tuple[int, Date]] = []
    taken: list[tuple[int, int]] = []
    for match in _SLASHED.finditer(text):
        taken.append(match.span())
        found.append((match.start(), Date(int(match[3]), int(match[1]), int(match[2]), True)))
    for pattern, order in _PATTERNS:
        for match in pattern.finditer(text):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            date = _read(match, order)
            if date is not None:
                taken.append(match.span())
                found.append((match.start(), date))
    return [date for _, date in sorted(found, key=lambda pair: pair[0])]


def _read(match: re.Match[str], order: str) -> Date | None:
    parts = dict(zip(order, match.groups(), strict=True))
    month = parts.get("m") or ""
    number = int(month) if month.isdigit() else _MONTHS.get(month.lower().rstrip("."))
    day = int(parts["d"]) if parts.get("d") else None
    if number is None or not 1 <= number <= 12 or (day is not None and not 1 <= day <= 31):
        return None
    return Date(int(parts["y"]) if parts.get("y") else None, number, day)


def whole_date(text: str) -> Date | None:
    """The date that a text consists of, but for a preposition; None for anything else."""
    dates = dates_in(text)
    if len(dates) != 1:
        return None
    rest = re.sub(
        r"\b(?:on|in|of|the|at|since|by|from)\b|[\d/.,\s-]|st\b|nd\b|rd\b|th\b|[年月日]", "", ascii_maths(text).lower()
    )
    return dates[0] if rest.strip(" ()") in {*_MONTHS, ""} else None


def time_of_day(text: str) -> tuple[int, int, int, str] | None:
    """(hour, minute, second, a/p/'') of a text that is a time of day."""
    bare = trimmed(unwrap(ascii_maths(text)).replace("$", " ")).replace("~", " ").strip()
    bare = re.sub(r"\s+", " ", bare).rstrip(".")
    match = _TIME.match(bare)
    if match is not None and int(match[1]) < 25 and int(match[2]) < 60:
        return int(match[1]), int(match[2]), int(match[3] or 0), (match[4] or "").lower()
    match = _CLOCK.match(bare)
    return (int(match[1]), 0, 0, match[2].lower()) if match is not None else None


def same_time(one: str, other: str) -> bool | None:
    """Whether two texts are the same time of day; None where one is no time. A missing a.m./p.m. is no difference."""
    first, second = time_of_day(one), time_of_day(other)
    if first is None or second is None or not (first[3] or second[3]):
        return None
    return first[:3] == second[:3] and (first[3] == second[3] or not (first[3] and second[3]))


def compare_date(answer: str, references: tuple[str, ...], policy: Mapping[str, Any]) -> Decision | None:
    """The decision where all references are dates and the answer states some; None where they are not.

    Policy ``partial`` (True): a less precise date that agrees is right.
    """
    wanted = [date for reference in references if (date := whole_date(reference)) is not None]
    if len(wanted) != len(references) or not wanted:
        return None
    stated = dates_in(answer)
    if not stated:
        return None
    shown = (str(stated[0]), str(wanted[0]))
    if any(s.refines(w) and s.slashed == w.slashed for s in stated for w in wanted):
        return (
            Decision(True, "date", normalised=shown) if len(stated) == 1 else Decision(None, "date", "ambiguous", shown)
        )
    if any(s.agrees(w) for s in stated for w in wanted):
        return (
            Decision(True, "date:partial", normalised=shown)
            if policy.get("partial")
            else Decision(None, "date", "ambiguous", shown)
        )
    return Decision(False, "date", normalised=shown)
