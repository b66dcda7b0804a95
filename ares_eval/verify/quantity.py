"""Numbers as people write them: separators, currency, percent signs, units, fractions, scientific notation.

``parse_quantity`` reads a text that is one number with what belongs to it, exactly, as a Fraction. It never guesses
a number out of prose; that is ``quantities_in``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from ares_eval.verify.normalise import bare_maths, trimmed, unwrap
from ares_eval.verify.units import Unit, parse_unit

MAX_DIGITS = 20_000
MAX_EXPONENT = 5_000


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its decorations. ``value`` is as written: 50 for "50 %". ``decimals``: digits after the point."""

    value: Fraction
    percent: bool = False
    unit: Unit | None = None
    decimals: int | None = None
    currency: str | None = None
    exact: bool = True


_PLAIN = re.compile(r"[+-]?\d+(?:\.\d+)?")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<whole>{_DIGITS})?(?P<fraction>\.\d+)?|(?P<dotted>{_DIGITS})\.)"
    r"(?:[eE](?P<exponent>[+-]?\d{1,5})|\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?\s*(?P<power>[+-]?\s*\d{1,5})\s*\}?)?"
)
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d])")
_EUROPEAN = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d+)(?![\d,])")
_FRACTION = re.compile(
    r"(?P<sign>[+-]?)\s*(?P<whole>\d+)?\s*(?:\\frac\s*\{\s*(?P<inner>-?)\s*(?P<top>\d+(?:\.\d+)?)\s*\}\s*\{\s*(?P<bottom>\d+(?:\.\d+)?)\s*\}"
    r"|(?<![\d])(?P<a>\d+(?:\.\d+)?)\s*/\s*(?P<b>\d+(?:\.\d+)?))"
)
_CURRENCY = re.compile(r"^(?P<sign>-?)\s*(?P<symbol>US\$|C\$|A\$|\\\$|\$|€|£|¥|₹|USD|EUR|GBP|Rs\.?)\s*(?=[-\d.])")
_PERCENT = re.compile(r"\s*(?:\\?%|percent\b|per\s?cent\b|percentage points?\b)", re.I)
_MAGNITUDES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MAGNITUDE = re.compile(r"\s*(thousand|million|billion|trillion)\b", re.I)
_WORDS = {
    word: number
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100}

_ONE_WORD = rf"(?:{'|'.join(sorted([*_WORDS, *_MAGNITUDES], key=len, reverse=True))})(?![A-Za-z])"
NUMBER_WORDS = rf"(?:(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})(?![A-Za-z])(?:(?:[- ]|,? and ){_ONE_WORD})*)"
"""Pattern of a number in words, as long as it goes."""


def plain_integer(text: str) -> Fraction | None:
    """The commonest case, without any normalisation: digits with an optional sign and decimals."""
    return Fraction(text) if len(text) <= 400 and _PLAIN.fullmatch(text) else None


@lru_cache(maxsize=8192)
def parse_quantity(text: str) -> Quantity | None:
    """The quantity that the whole text states, or None."""
    text = text.strip()
    value = plain_integer(text)
    if value is not None:
        return Quantity(value, decimals=len(text.partition(".")[2]))
    if len(text) > 4000 and not text[:MAX_DIGITS].strip("+-").isdigit():
        return None
    currency = None
    head = trimmed(text).strip("$ ") if not text.startswith(("$", "\\$")) else trimmed(text)
    match = _CURRENCY.match(head.replace("\\$", "$"))
    cleaned = bare_maths(head.replace(r"\%", "%").replace(r"\$", "$")).replace("{,}", ",").strip()
    if match is not None and head.count("$") != 2:
        currency = match["symbol"]
        cleaned = match["sign"] + bare_maths(head.replace("\\$", "$")[match.end() :]).strip()
    cleaned = unwrap(cleaned).strip()
    while len(cleaned) > 2 and cleaned[0] == "{" and cleaned[-1] == "}":
        cleaned = cleaned[1:-1].strip()
    return _read(cleaned, currency)


def _read(text: str, currency: str | None) -> Quantity | None:
    text = re.sub(r"^(?:\\approx|~|about|approximately|approx\.?|around|roughly|=)\s*", "", text, flags=re.I)
    text = _EUROPEAN.sub(lambda m: m[1].replace(".", "") + "." + m[2], text)
    text = _SPACED.sub(lambda m: m[0].replace(" ", ""), text)
    minus = _MINUS.match(text)
    if minus is not None:
        text = text[minus.end() :]
    read = _fraction(text) or _decimal(text) or _word(text)
    if read is None:
        return None
    value, end, decimals = read
    part = _AND_PART.match(text, end)
    if part is not None and value.denominator == 1:
        value, end, decimals = value + _PARTS[part[1].lower()], part.end(), None
    if minus is not None:
        value = -value
    magnitude = _MAGNITUDE.match(text, end)
    if magnitude is not None:
        value, end = value * _MAGNITUDES[magnitude[1].lower()], magnitude.end()
    percent = _PERCENT.match(text, end)
    if percent is not None:
        end = percent.end()
    rest = text[end:].strip().rstrip(".")
    unit = None
    if rest:
        unit = parse_unit(rest)
        if unit is None:
            return None
    return Quantity(value, percent is not None, unit, decimals, currency)


def _decimal(text: str) -> tuple[Fraction, int, int] | None:
    match = _NUMBER.match(text)
    if match is None or not (match["whole"] or match["fraction"] or match["dotted"]):
        return None
    whole = (match["whole"] or match["dotted"] or "0").replace(",", "")
    fraction = match["fraction"] or ""
    exponent = int((match["exponent"] or match["power"] or "0").replace(" ", ""))
    if len(whole) + len(fraction) > MAX_DIGITS or abs(exponent) > MAX_EXPONENT:
        return None
    value = Fraction(_long(whole + fraction[1:]), 10 ** max(len(fraction) - 1, 0))
    value *= Fraction(10) ** exponent
    return (-value if match["sign"] == "-" else value), match.end(), max(len(fraction) - 1, 0)


def _long(digits: str) -> int:
    """An integer of any length in pieces: the interpreter limits the digits of one conversion."""
    value = 0
    for start in range(0, len(digits), 4000):
        piece = digits[start : start + 4000]
        value = value * 10 ** len(piece) + int(piece)
    return value


def _fraction(text: str) -> tuple[Fraction, int, int | None] | None:
    match = _FRACTION.match(text)
    if match is None:
        return None
    top, bottom = Fraction(match["top"] or match["a"]), Fraction(match["bottom"] or match["b"])
    if bottom == 0 or len(match[0]) > 400:
        return None
    value = top / bottom
    if match["inner"]:
        value = -value
    if match["whole"]:
        if value < 0 or value >= 1:
            return None
        value += int(match["whole"])
    return (-value if match["sign"] == "-" else value), match.end(), None


_SPELLED = re.compile(NUMBER_WORDS, re.I)
_MINUS = re.compile(r"(?:minus|negative)\s+(?=[\d.a-z])", re.I)
_AND_PART = re.compile(r"\s+and\s+(?:a|one)[- ](half|third|quarter)\b", re.I)
_PARTS = {"half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4)}


def _word(text: str) -> tuple[Fraction, int, int] | None:
    match = _SPELLED.match(text)
    if match is None:
        return None
    total = group = end = 0
    for word in re.finditer(r"[a-z]+", match[0], re.I):
        name = word[0].lower()
        if name == "and":
            if not end or group % 100 or not (group or total):
                break
            continue
        value = _WORDS.get(name)
        if value is None:
            total, group = total + max(group, 1) * _MAGNITUDES[name], 0
        elif value == 100:
            if group > 99:
                break
            group = max(group, 1) * 100
        elif end and not (group % 100 == 0 or (value < 10 and value and group % 10 == 0 and group % 100 >= 20)):
            break
        else:
            group += value
        end = word.end()
    return Fraction(total + group), end, 0


_IN_PROSE = re.compile(
    r"(?<![\w.,^_{])(?<!\d[:/-])(?<!\d-)(?P<text>[-−–]?(?:\\?\$|€|£)?\s?(?:\\[dt]?frac\s*\{-?\d+\}\s*\{\d+\}|"
    rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:\s*(?:\\times|×)\s*10\^\{{?-?\d+\}}?)?(?:/\d+(?![\d/]))?)(?:\s?\\?%)?)(?![\d:]|[-/]\d|\.\d|st\b|nd\b|rd\b|th\b|[A-Za-z](?![a-z]*\b))"
)


_NEGATED = re.compile(r"(?:\bnot|n't|\bnever|\binstead of|\brather than)\s+(?:be\s+)?[$\\(*]*\s*$", re.I)


def quantities_in(text: str) -> list[str]:
    """Numbers that stand on their own and are not negated, in order, as written; no dates, times, ordinals."""
    return [
        match["text"].strip()
        for match in _IN_PROSE.finditer(text)
        if not _NEGATED.search(text, max(0, match.start() - 24), match.start())
    ]
