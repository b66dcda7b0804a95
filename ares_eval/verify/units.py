"""Units of measurement: which are the same, which convert, which differ.

A unit is its dimension (exponents of base units) and its factor to them. Words that are no known unit ("apples") are
units of their own kind that match only themselves or nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Unit:
    """``dimension``: sorted (base, exponent) pairs; empty for a noun. ``factor`` to the base units."""

    text: str
    dimension: tuple[tuple[str, int], ...] = ()
    factor: Fraction = Fraction(1)

    @property
    def known(self) -> bool:
        """False for nouns such as "books"."""
        return bool(self.dimension)


_BASE: dict[str, tuple[str, Fraction, str]] = {}


def _define(base: str, entries: dict[str, str | int | Fraction]) -> None:
    for names, factor in entries.items():
        for name in names.split():
            _BASE[name] = (base, Fraction(factor), name)


_define("length", {
    "m meter meters metre metres": 1, "km kilometer kilometers kilometre kilometres": 1000,
    "cm centimeter centimeters centimetre centimetres": "1/100",
    "mm millimeter millimeters millimetre millimetres": "1/1000",
    "dm decimeter decimeters": "1/10", "nm nanometer nanometers": "1/1000000000",
    "um micrometer micrometers": "1/1000000",
    "inch inches": "254/10000", "ft foot feet": "3048/10000", "yd yard yards": "9144/10000",
    "mi mile miles": "1609344/1000",
})  # fmt: skip
_define("time", {
    "s sec secs second seconds": 1, "min mins minute minutes": 60, "h hr hrs hour hours": 3600, "day days": 86400,
    "week weeks": 604800, "ms millisecond milliseconds": "1/1000",
})  # fmt: skip
_define("month", {"month months": 1, "year years yr yrs": 12})
_define("mass", {
    "kg kilogram kilograms": 1000, "g gram grams gm": 1,
    "mg milligram milligrams": "1/1000", "ton tons tonne tonnes": 10**6,
    "lb lbs pound pounds": "45359237/100000", "oz ounce ounces": "45359237/1600000",
})  # fmt: skip
_define("volume", {"l liter liters litre litres": 1, "ml milliliter milliliters millilitre millilitres": "1/1000"})
_define("angle", {"degree degrees deg °": 1, "radian radians rad": "5729577951308232/100000000000000"})
_define("money", {"dollar dollars usd": 1, "cent cents": "1/100"})
_define("euro", {"euro euros": 1})
_define("yuan", {"yuan rmb": 1})
_define("temperature", {"celsius °c": 1})
_define("fahrenheit", {"fahrenheit °f": 1})
_define("current", {"a ampere amperes amp amps": 1, "ma": "1/1000"})
_define("force", {"n newton newtons": 1, "kn": 1000})
_define("energy", {"j joule joules": 1, "kj": 1000})
_define("power", {"w watt watts": 1, "kw": 1000})
_define("voltage", {"v volt volts": 1, "mv": "1/1000"})
_define("pressure", {"pa pascal pascals": 1, "kpa": 1000})
_define("amount", {"mol moles mole": 1})
_define("resistance", {"ohm ohms": 1})
_define("frequency", {"hz hertz": 1})
_COMPOUND = {"mph": "mi/h", "mpg": "mi/gallon", "kph": "km/h", "kmh": "km/h", "rpm": "revolution/min"}
_POWER_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_FACTOR = re.compile(r"(°[cf]?|[a-z]+)\.?\s*(?:\^?\s*\{?\s*(-?\d)\s*\}?)?")
_NOUN = re.compile(r"[a-z][a-z' -]{0,60}")
_MATHS = re.compile(r"[=<>+\\\d(){}|_]|^[xyzabck]$")


@lru_cache(maxsize=2048)
def parse_unit(text: str) -> Unit | None:
    """The unit that a text names; a noun's Unit has no dimension; None where it is no unit but mathematics."""
    lowered = (
        text.replace(r"^\circ", "°")
        .replace(r"^{\circ}", "°")
        .replace("\\circ", "°")
        .replace("\\", " ")
        .strip(" .,$*")
        .lower()
    )
    lowered = re.sub(r"°\s*(?=[cf]\b)", "°", lowered)
    if lowered.startswith("^{ °") or lowered.startswith("^{°"):
        lowered = "°"
    if not lowered or len(lowered) > 80:
        return None
    lowered = _COMPOUND.get(lowered, lowered)
    dimension, factor = _dimension(lowered)
    if dimension is not None:
        return Unit(lowered, dimension, factor)
    if _MATHS.search(lowered) or not _NOUN.fullmatch(lowered):
        return None
    return Unit(lowered)


def _dimension(text: str) -> tuple[tuple[tuple[str, int], ...] | None, Fraction]:
    exponents: dict[str, int] = {}
    factor = Fraction(1)
    sign, power = 1, 1
    text = re.sub(r"\bper\b", "/", text)
    for piece in re.split(r"([/*·\s])", text):
        piece = piece.strip()
        if not piece or piece in "*·":
            continue
        if piece == "/":
            sign = -1
        elif piece in _POWER_WORDS:
            if piece.endswith("ed") and exponents:
                last = list(exponents)[-1]
                exponents[last] *= _POWER_WORDS[piece]
            else:
                power = _POWER_WORDS[piece]
        else:
            match = _FACTOR.fullmatch(piece)
            if match is None or match[1] not in _BASE:
                return None, factor
            base, size, _ = _BASE[match[1]]
            exponent = sign * power * int(match[2] or 1)
            if not -6 <= exponent <= 6:
                return None, factor
            exponents[base] = exponents.get(base, 0) + exponent
            factor *= size**exponent
            power = 1
    if not exponents:
        return None, factor
    return tuple(sorted(exponents.items())), factor


def same_dimension(one: Unit, other: Unit) -> bool:
    """Whether values in these units can be compared at all."""
    if one.known and other.known:
        return one.dimension == other.dimension
    return not (one.known or other.known)
