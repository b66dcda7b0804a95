"""From a candidate (a clause, a line, a box) to the answer proper: the number or formula that it states.

Boxes and tags hold nothing but the answer. A clause after a cue phrase states it first and explains afterwards; a
closing line leads up to it, so there the emphasised, the last formula, the last number count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ares_eval.verify.algebra.nodes import TooLong, Unreadable
from ares_eval.verify.algebra.parser import parse
from ares_eval.verify.extract import Candidate, bold, clause_end, neighbouring_boxes, refuses
from ares_eval.verify.normalise import trimmed
from ares_eval.verify.prose import is_prose
from ares_eval.verify.quantity import parse_quantity, quantities_in
from ares_eval.verify.sentences import counted, stated_numbers

_MATHS = re.compile(
    r"\$\$(.{1,2000}?)\$\$|\\\[(.{1,2000}?)\\\]|\\\((.{1,2000}?)\\\)|(?<!\\)\$((?:[^$\\]|\\.){1,2000}?)\$", re.S
)
MAX_SEARCHED = 20_000
"""Characters of a candidate in which delimited formulas are looked for, from its end."""
_LEADING_TEXT = re.compile(r"^\s*\\(?:text|mathrm|textbf)\s*\{[^{}]*?(?:is|are|=|:|be|to)\s*\}\s*")
_TRAILING_CLAUSE = re.compile(
    r"(?:[,;.]\s+|\s+)(?:since|because|as|so|which|where|when|not|but|giving|and not|rather)\b.*$"
    r"|\s*\((?:not|i\.e\.|or about|approximately)[^)]*\)\s*$",
    re.S,
)
_LEAD = re.compile(
    r"^(?:indeed|therefore|thus|clearly|simply|just|exactly|approximately|about|around|roughly|"
    r"equal to|given by|then|that|either)\s+",
    re.I,
)
_EQUALS = re.compile(r"(?<![<>!:])=(?!=)|\\approx|≈")
MAX_ANSWER = 200_000


def maths_segments(text: str) -> list[tuple[str, int]]:
    """Delimited formulas of a text with their positions."""
    first = max(0, len(text) - MAX_SEARCHED)
    return [(m[m.lastindex or 1], m.start(m.lastindex or 1)) for m in _MATHS.finditer(text, first)]


def _at(candidate: Candidate, text: str) -> Candidate:
    offset = candidate.text.find(text)
    return Candidate(text, candidate.start + max(offset, 0), candidate.rule, candidate.exact)


_HEDGE = re.compile(
    r"^\W{0,3}(?:either\s+)?\$?-?\d[\d.,/]*\$?\s+or\s+(?:maybe\s+|perhaps\s+|possibly\s+)?\$?-?\d[\d.,/]*", re.I
)


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
    if last:
        candidate = _decisive_sentence(candidate)
        text = candidate.text
    cleaned = trimmed(_TRAILING_CLAUSE.sub("", text)) if not last else trimmed(text)
    if refuses(text) and not candidate.exact:
        return
    if hedged := _HEDGE.match(text):
        yield _at(candidate, hedged[0])
        return
    if parse_quantity(cleaned) is not None:
        yield _at(candidate, cleaned)
        return
    if last and (count := counted(text)) is not None:
        yield _at(candidate, count)
        return
    for part in bold(text)[:: -1 if last else 1]:
        if (found := _first_number(part, last)) is not None:
            yield _at(candidate, found)
            return
    segments = maths_segments(text)
    for segment, _ in segments[:: -1 if last else 1]:
        side = _last_side(segment)
        if parse_quantity(side) is not None or _readable(side):
            leading = text[: text.find(segment)]
            if re.search(r"\bnot\W*$", leading):
                continue
            if not last and quantities_in(_LEAD.sub("", leading)):
                break
            yield _at(candidate, side)
            return
    if re.search(r"\d\s*[A-Za-z\\^(]", cleaned) and not re.search(r"[=,;]", cleaned) and _readable(cleaned):
        yield _at(candidate, cleaned)
    elif (found := _first_number(text, last)) is not None:
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
        numbers = [] if _FORMULA.search(side) else quantities_in(side)
        segments = maths_segments(side)
        if len(segments) == 1 and parse_quantity(segments[0][0]) is not None:
            yield _at(candidate, segments[0][0])
        elif len(set(numbers)) == 1:
            yield _at(candidate, numbers[0])
        else:
            yield candidate


_FORMULA = re.compile(r"\\(?!text|mathrm|\$|%|,|;|!|quad| )[a-zA-Z]+|[\^_{}]")


def _decisive_sentence(candidate: Candidate) -> Candidate:
    """The last sentence of a line that holds a number or a formula."""
    text, position, found = candidate.text, 0, (0, len(candidate.text))
    while position < len(text):
        stop = clause_end(text, position, len(text))
        if re.search(r"\d|\$|\\[a-z(\[]", text[position:stop]) and not _ASIDE.match(text[position:stop].strip()):
            found = (position, stop)
        position = stop + 1
    return Candidate(text[found[0] : found[1]], candidate.start + found[0], candidate.rule, False)


_ASIDE = re.compile(r"^[(\[]?(?:note|e\.g|i\.e|for example|source|image|hint)\b", re.I)


def _first_number(text: str, last: bool) -> str | None:
    if "=" in text:
        after = quantities_in(text.rsplit("=", 1)[1])
        if after:
            return after[0]
    numbers = stated_numbers(text) if last else quantities_in(text)
    return numbers[-1 if last else 0] if numbers else None


def _last_side(text: str) -> str:
    """``x = 3 + 4 = 7`` states 7; what an equals sign inside braces separates is left alone."""
    depth, cut = 0, 0
    for match in re.finditer(r"[{(\[]|[})\]]|(?<![<>!:\\])=(?!=)|\\approx(?![a-z])|≈", text):
        if match[0] in "{([":
            depth += 1
        elif match[0] in "})]":
            depth -= 1
        elif depth == 0 and text[match.end() :].strip(" $.\n") and (match[0] == "=" or cut == 0):
            cut = match.end()
    return text[cut:]


def _readable(text: str) -> bool:
    try:
        parse(text)
    except TooLong:
        return True
    except Unreadable:
        return False
    return not is_prose(text)


def formula_readings(candidate: Candidate, whole_response: str, several: bool) -> Iterator[Candidate]:
    """What formula, list or structure the candidate may state, most likely reading first."""
    text = candidate.text[:MAX_ANSWER]
    if candidate.exact:
        if several and candidate.rule == "box":
            joined = neighbouring_boxes(candidate, whole_response)
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
    if _readable(trimmed(text)) or (not segments and not bold(text) and not is_prose(text)):
        yield _at(candidate, trimmed(text))
    elif segments:
        yield _at(candidate, segments[-1][0])
    else:
        for part in bold(text)[::-1]:
            yield _at(candidate, part)
        yield _at(candidate, trimmed(text))
