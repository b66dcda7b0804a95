"""From a candidate (a clause, a line, a box) to the answer proper: the number or formula that it states.

Boxes and tags hold nothing but the answer. A clause after a cue phrase states it first and explains afterwards; a
closing line leads up to it, so there the emphasised, the last formula, the last number count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ares_eval.verify.algebra.nodes import Unreadable
from ares_eval.verify.algebra.parser import parse
from ares_eval.verify.extract import Candidate, bold, boxes, clause_end
from ares_eval.verify.normalise import trimmed
from ares_eval.verify.quantity import parse_quantity, quantities_in

_MATHS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<!\\)\$((?:[^$\\]|\\.)+?)\$", re.S)
_LEADING_TEXT = re.compile(r"^\s*\\(?:text|mathrm|textbf)\s*\{[^{}]*?(?:is|are|=|:|be|to)\s*\}\s*")
_TRAILING_CLAUSE = re.compile(
    r"(?:[,;.]\s+|\s+)(?:since|because|as|so|which|where|when|not|but|giving|and not|rather)\b.*$|\s*\((?:not|i\.e\.|or about|approximately)[^)]*\)\s*$",
    re.S,
)
_LEAD = re.compile(
    r"^(?:indeed|therefore|thus|clearly|simply|just|exactly|approximately|about|around|roughly|equal to|given by|then|that|either)\s+",
    re.I,
)
_EQUALS = re.compile(r"(?<![<>!:])=(?!=)|\\approx|≈")
MAX_ANSWER = 4000


def maths_segments(text: str) -> list[tuple[str, int]]:
    """Delimited formulas of a text with their positions."""
    return [(m[m.lastindex or 1], m.start(m.lastindex or 1)) for m in _MATHS.finditer(text)]


def _at(candidate: Candidate, text: str) -> Candidate:
    offset = candidate.text.find(text)
    return Candidate(text, candidate.start + max(offset, 0), candidate.rule, candidate.exact)


def number_readings(candidate: Candidate) -> Iterator[Candidate]:
    """What number the candidate may state, most likely reading first."""
    text = candidate.text[:MAX_ANSWER]
    if parse_quantity(text) is not None:
        yield candidate
        return
    if candidate.exact:
        yield from _exact_number(candidate, text)
        return
    last = candidate.rule in ("last-line", "whole", "first-line")
    cleaned = trimmed(_TRAILING_CLAUSE.sub("", text)) if not last else trimmed(text)
    if parse_quantity(cleaned) is not None:
        yield _at(candidate, cleaned)
        return
    for part in [*bold(text)][:: -1 if last else 1]:
        if (found := _first_number(part, last)) is not None:
            yield _at(candidate, found)
            return
    segments = maths_segments(text)
    for segment, _ in segments[:: -1 if last else 1]:
        side = _last_side(segment)
        if parse_quantity(side) is not None or _readable(side):
            leading = text[: text.find(segment)]
            if not last and quantities_in(_LEAD.sub("", leading)):
                break
            yield _at(candidate, side)
            return
    if (found := _first_number(text, last)) is not None:
        yield _at(candidate, found)
    elif _readable(cleaned):
        yield _at(candidate, cleaned)


def _exact_number(candidate: Candidate, text: str) -> Iterator[Candidate]:
    stripped = _LEADING_TEXT.sub("", text)
    side = _last_side(stripped)
    if side.strip():
        if parse_quantity(side) is not None or _readable(side):
            yield _at(candidate, side)
            return
        numbers = quantities_in(side)
        segments = maths_segments(side)
        if len(segments) == 1 and parse_quantity(segments[0][0]) is not None:
            yield _at(candidate, segments[0][0])
        elif len(set(numbers)) == 1:
            yield _at(candidate, numbers[0])
        else:
            yield candidate


def _first_number(text: str, last: bool) -> str | None:
    if "=" in text:
        after = quantities_in(text.rsplit("=", 1)[1])
        if after:
            return after[0]
    if last:
        text = _with_numbers(text)
    numbers = quantities_in(text)
    return numbers[-1 if last else 0] if numbers else None


def _with_numbers(line: str) -> str:
    """The last sentence of a line that holds a number."""
    position, found = 0, line
    while position < len(line):
        stop = clause_end(line, position, len(line))
        if quantities_in(line[position:stop]):
            found = line[position:stop]
        position = stop + 1
    return found


def _last_side(text: str) -> str:
    """``x = 3 + 4 = 7`` states 7; what an equals sign inside braces separates is left alone."""
    depth, cut = 0, 0
    for match in re.finditer(r"[{(\[]|[})\]]|(?<![<>!:\\])=(?!=)|\\approx(?![a-z])|≈", text):
        if match[0] in "{([":
            depth += 1
        elif match[0] in "})]":
            depth -= 1
        elif depth == 0 and text[match.end() :].strip(" $.\n"):
            if match[0] == "=" or cut == 0:
                cut = match.end()
    return text[cut:]


def _readable(text: str) -> bool:
    try:
        parse(text)
    except Unreadable:
        return False
    return True


def formula_readings(candidate: Candidate, whole_response: str, several: bool) -> Iterator[Candidate]:
    """What formula, list or structure the candidate may state, most likely reading first."""
    text = candidate.text[:MAX_ANSWER]
    if candidate.exact:
        if several and candidate.rule == "box":
            joined = _neighbouring_boxes(candidate, whole_response)
            if joined is not None:
                yield joined
                return
        stripped = _LEADING_TEXT.sub("", text)
        yield _at(candidate, stripped) if stripped.strip() else candidate
        return
    cleaned = trimmed(_LEAD.sub("", _TRAILING_CLAUSE.sub("", text)))
    segments = maths_segments(text)
    if candidate.rule == "cue":
        if _readable(cleaned) or not segments:
            yield _at(candidate, cleaned)
        if segments:
            yield _at(candidate, segments[0][0])
        return
    if _readable(trimmed(text)):
        yield _at(candidate, trimmed(text))
    elif segments:
        yield _at(candidate, segments[-1][0])
    else:
        for part in bold(text)[::-1]:
            yield _at(candidate, part)
        yield _at(candidate, trimmed(text))


_BETWEEN = re.compile(r"[\s$.,;\\()\[\]*]*(?:and|or|,|;|\\text\{\s*(?:and|or)\s*\}|\\quad|\\qquad)?[\s$,;\\()\[\]*]*")


def _neighbouring_boxes(last: Candidate, response: str) -> Candidate | None:
    """Several boxes in one statement ("\\boxed{2} and \\boxed{3}") are one answer with several parts."""
    found = [box for box in boxes(response, 0, len(response)) if box.start <= last.start]
    group = [found[-1]] if found else []
    for box in reversed(found[:-1]):
        gap_start = box.span[1] + 1
        gap = response[gap_start : response.rfind("\\", gap_start, group[0].start)]
        if "\n" in gap.strip() or not _BETWEEN.fullmatch(gap):
            break
        group.insert(0, box)
    if len(group) < 2:
        return None
    return Candidate(", ".join(box.text for box in group), group[0].start, "boxes", True)
