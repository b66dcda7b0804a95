"""The options of a choice question: their letters, their texts in normal form, their values; and which a text names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ares_eval.verify.algebra.evaluation import Undefined
from ares_eval.verify.algebra.nodes import TooLarge, Unreadable
from ares_eval.verify.algebra.parser import parse
from ares_eval.verify.algebra.structures import same
from ares_eval.verify.normalise import string_key, trimmed, words_key
from ares_eval.verify.prose import is_prose
from ares_eval.verify.quantity import parse_quantity, quantities_in

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LABEL = re.compile(r"^\s*[(\[]?([A-Za-z])[)\].:]\s*$|^\s*([A-Za-z])\s*$")
_NEGATION = re.compile(
    r"\b(?:not|isn t|aren t|never|neither|nor|rather than|instead of|incorrect|wrong|"
    r"eliminat\w+|rule out)(?: \w+){0,2} $"
)


@dataclass(frozen=True, slots=True)
class Options:
    """Options in the order of their letters, and their ``keys`` (layout-free) and ``words`` (bare), in lower case."""

    texts: tuple[str, ...]
    keys: tuple[str, ...]
    words: tuple[str, ...]
    labels_only: bool

    @property
    def letters(self) -> str:
        """The letters that may be answered; A to J where the options are not known."""
        return LETTERS[: len(self.texts)] if self.texts else LETTERS[:10]


@lru_cache(maxsize=4096)
def options_of(choices: tuple[str, ...]) -> Options:
    """Options from their texts."""
    labels = all((m := _LABEL.match(c)) and (m[1] or m[2]).upper() == LETTERS[i] for i, c in enumerate(choices[:26]))
    return Options(
        choices,
        tuple(string_key(c).lower() for c in choices),
        tuple(re.sub(r"^(?:the|an?) ", "", words_key(c, articles=True)) for c in choices),
        bool(choices) and labels,
    )


def label(text: str) -> str | None:
    """The letter of ``B``, ``(B)``, ``B.``; None for anything else."""
    match = _LABEL.match(text)
    return (match[1] or match[2]).upper() if match else None


def named_verbatim(text: str, options: Options) -> frozenset[str]:
    """The option that a text repeats letter by letter; empty for bare letters, which are labels first."""
    bare = text.strip()
    if len(bare) < 2 or label(bare):
        return frozenset()
    found = [i for i, option in enumerate(options.texts) if option in (bare, bare.removesuffix("."))]
    return frozenset(LETTERS[found[0]]) if len(found) == 1 else frozenset()


def named_exactly(text: str, options: Options) -> frozenset[str]:
    """Options whose text or value is what the whole text says; empty where none is."""
    if options.labels_only or not options.texts:
        return frozenset()
    key = string_key(text).lower()
    if not key:
        return frozenset()
    found = [i for i, k in enumerate(options.keys) if k == key]
    if not found:
        words = re.sub(r"^(?:the|an?) ", "", words_key(text, articles=True))
        found = [i for i, k in enumerate(options.words) if k and k == words]
    if not found:
        found = _by_value(text, options)
    if not found and _MATHS.search(text):
        found = [i for i, option in enumerate(options.texts) if same_formula(text, option)]
    return frozenset(LETTERS[i] for i in found)


_MATHS = re.compile(r"[\\^_/]|\d\s*[+*-]|[√π]")


def same_formula(text: str, option: str) -> bool | None:
    """Whether two formulas are the same; None where they cannot be compared here."""
    try:
        return same(parse(text), parse(option))
    except (Unreadable, TooLarge, Undefined):
        return None


def excluded(text: str, options: Options) -> bool:
    """Whether a text is mathematics and certainly none of the options."""
    return (
        not is_prose(text)
        and bool(options.texts)
        and all(
            same_formula(text, option) is False or (parse_quantity(text) is not None and not _MATHS.search(option))
            for option in options.texts
        )
    )


def _by_value(text: str, options: Options) -> list[int]:
    stated = parse_quantity(trimmed(text))
    if stated is None:
        return []
    found = []
    for index, option in enumerate(options.texts):
        value = parse_quantity(option)
        if value is not None and value.value == stated.value and value.percent == stated.percent:
            if value.unit and stated.unit and value.unit.dimension != stated.unit.dimension:
                continue
            if value.unit and stated.unit and value.unit.factor != stated.unit.factor:
                continue
            found.append(index)
    return found


_PRONOUN = re.compile(
    r"\bI(?=['’](?:m|d|ve|ll)\b|\s+(?:am|was|have|had|do|did|don['’]t|didn['’]t|can|can['’]t|cannot|could|couldn['’]t|will|won['’]t|"
    r"would|should|must|may|might|think|believe|see|need|know|assume|find|found|choose|chose|hope|used|got|get|"
    r"understand|apologi[sz]e|conclude|just|also|now|still)\b)"
)


def without_pronoun(text: str) -> str:
    """The text without the pronoun I, which is neither a letter nor a Roman numeral."""
    return _PRONOUN.sub(" ", text) if "I" in text else text


def mentioned(text: str, options: Options) -> list[tuple[int, str]]:
    """(position, letter) of options whose words occur in a text and are not negated there; the longest text wins."""
    if options.labels_only or not options.texts:
        return []
    words = " " + words_key(without_pronoun(text), articles=True) + " "
    taken: list[tuple[int, int]] = []
    found: list[tuple[int, str]] = []
    for index in sorted(range(len(options.words)), key=lambda i: -len(options.words[i])):
        option = options.words[index]
        if not option:
            continue
        start = words.find(" " + option + " ")
        while start >= 0:
            end = start + len(option) + 1
            if not any(a < end and start < b for a, b in taken):
                taken.append((start, end))
                if not _NEGATION.search(words[max(0, start - 40) : start + 1]):
                    found.append((start, LETTERS[index]))
            start = words.find(" " + option + " ", start + 1)
    return sorted(found)


def valued(text: str, options: Options) -> list[str]:
    """Letters of the options whose value a number in the text has, in order of the numbers."""
    if options.labels_only:
        return []
    found = []
    for number in quantities_in(text):
        letters = _by_value(number, options)
        if len(letters) == 1:
            found.append(LETTERS[letters[0]])
    return found
