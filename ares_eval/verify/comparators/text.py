"""Free text: equal to the reference or an alias, stating it, or plainly something else; rules go no further.

A reference counts as stated where its words stand together in the answer, not negated, not copied from the question.
What a rule can not tell is ``needs_judge``. Policy ``closed`` (True): the reference is one of a fixed set of words, so
anything else is wrong.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ares_eval.verify.comparators.date import Date, compare_date, dates_in, whole_date
from ares_eval.verify.decision import Decision
from ares_eval.verify.extract import Candidate
from ares_eval.verify.normalise import string_key, words_key

LONG = 80
"""Words beyond which the mention of a reference is no evidence that it is the answer."""
SHORT = 4
"""Words up to which an answer is taken for a bare name."""
_NEGATED = re.compile(
    r"\b(?:not|never|nor|neither|than|instead of|rather than|isn t|wasn t|unlike|except|before|after)(?: \w+)?$"
)
_NUMBERS = dict(
    zip(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
        map(str, range(13)),
        strict=True,
    )
)
_FOOTNOTE = re.compile(r"(?<=[a-z]{3})\d{1,2}\b")
_STOP = frozenset(
    [
        "of",
        "the",
        "a",
        "an",
        "in",
        "on",
        "at",
        "to",
        "for",
        "and",
        "or",
        "de",
        "la",
        "le",
        "el",
        "by",
        "with",
        "from",
        "is",
        "was",
        "it",
        "they",
        "he",
        "she",
    ]
)


@dataclass(frozen=True, slots=True)
class TextAnswer:
    """The answer as words, and the place it was read from."""

    place: Candidate
    words: str

    @property
    def count(self) -> int:
        return len(self.words.split())


def compare_text(
    place: Candidate, references: tuple[str, ...], policy: Mapping[str, Any], question: str | None, whole: str
) -> Decision:
    """Decide whether the answer says what one of the references says. ``whole``: all of the response's answer part."""
    answer = TextAnswer(place, words_key(place.text))
    key = string_key(place.text)
    keys = [string_key(reference) for reference in references]
    shown = (answer.words[:200], " | ".join(references)[:200])
    if key and key in keys:
        return Decision(True, "text:equal", normalised=shown)
    if not any(character.isalnum() for reference in references for character in reference):
        return _symbols(key, keys, place, shown)
    wanted = [words for reference in references if (words := words_key(reference))]
    if answer.words and answer.words in wanted:
        return Decision(True, "text:words", normalised=shown)
    if not wanted or not answer.words:
        return _symbols(key, keys, place, shown)
    dates = compare_date(place.text, references, policy)
    if dates is not None:
        return dates
    if policy.get("closed"):
        return Decision(False, "text:closed", normalised=shown)
    if _stated(words_key(whole), wanted, question, references, whole) or _shorter_name(answer, wanted):
        return Decision(True, "text:stated", normalised=shown)
    if (
        _other_word(answer, wanted)
        or _other_number(answer, wanted)
        or _other_name(answer, references, wanted, question)
    ):
        return Decision(False, "text:other", normalised=shown)
    return Decision(None, "text", "needs_judge", shown)


def _symbols(key: str, keys: list[str], place: Candidate, shown: tuple[str, str]) -> Decision:
    """Answers without any word, such as brackets: they are equal or they are not, where their place is certain."""
    if any(keys) and not any(character.isalnum() for character in key) and place.rule != "whole":
        return Decision(False, "text:symbols", normalised=(key, keys[0]))
    if place.exact or place.rule == "cue":
        return Decision(False, "text:symbols", normalised=shown)
    return Decision(None, "text", "needs_judge", shown)


def _stated(said: str, wanted: list[str], question: str | None, references: tuple[str, ...], whole: str) -> bool:
    if len(said.split()) > LONG:
        return False
    asked = f" {words_key(question)} " if question else " "
    spoken = f" {said} "
    loose = f" {_loosened(said)} "
    full = [date for reference in references if (date := whole_date(reference)) is not None and date.day is not None]
    if full and any(not _matches(date, full) for date in dates_in(whole) if date.day is not None):
        return False
    for words in wanted:
        if f" {words} " in asked or (len(words) < 3 and not words.isdigit()):
            continue
        for text, reference in ((spoken, words), (loose, _loosened(words))):
            start = text.find(f" {reference} ")
            if start >= 0 and not _NEGATED.search(text[:start].rstrip()) and _alone(reference, text):
                return True
    return False


def _matches(date: Date, full: list[Date]) -> bool:
    return any(date.refines(reference) for reference in full)


def _loosened(words: str) -> str:
    """Number words as digits, footnote marks gone."""
    return " ".join(_NUMBERS.get(word, word) for word in _FOOTNOTE.sub("", words).split())


def _alone(reference: str, text: str) -> bool:
    """A bare number counts as stated only where it is the only number."""
    if not reference.isdigit() or len(reference) == 4:
        return True
    return len(set(re.findall(r"\d+(?:\.\d+)?", text))) == 1


def _shorter_name(answer: TextAnswer, wanted: list[str]) -> bool:
    """``Ann Lee`` for ``Ann Mary Lee``: two or more words, first and last of the reference's, in order."""
    tokens = answer.words.split()
    if not 2 <= len(tokens) <= SHORT or any(token in _STOP for token in tokens):
        return False
    for words in wanted:
        expected = words.split()
        if len(expected) <= 6 and tokens[-1] == expected[-1] and _subsequence(tokens, expected):
            return True
    return False


def _subsequence(tokens: list[str], expected: list[str]) -> bool:
    rest = iter(expected)
    return all(token in rest for token in tokens)


def _other_word(answer: TextAnswer, wanted: list[str]) -> bool:
    """One word is asked for, another is given at a place made for answers."""
    if not (answer.place.exact or answer.place.rule == "cue") or answer.count != 1:
        return False
    return all(" " not in words and not _alike(answer.words, words) for words in wanted)


def _alike(one: str, other: str) -> bool:
    """The same word in another form or spelling; opposites by prefix (valid, invalid) are not alike."""
    if one.endswith(other) or other.endswith(one):
        return False
    return difflib.SequenceMatcher(None, one, other).ratio() >= 0.75 or one[:4] == other[:4]


def _other_number(answer: TextAnswer, wanted: list[str]) -> bool:
    """Numbers are asked for, another number is given."""
    number = re.fullmatch(r"\d+(?:\.\d+)?", _loosened(answer.words))
    return number is not None and all(re.fullmatch(r"\d+(?:\.\d+)?", _loosened(words)) for words in wanted)


def _other_name(answer: TextAnswer, references: tuple[str, ...], wanted: list[str], question: str | None) -> bool:
    """A person is asked for and the short answer is a name that shares no word with the reference's."""
    if question is None or not re.search(r"\b(?:who|whose|whom|actor|actress|singer|surname)\b", question, re.I):
        return False
    tokens = [token for token in answer.words.split() if token not in _STOP]
    given = re.findall(r"[^\W\d_][\w'.-]*", answer.place.text)
    if not 2 <= len(tokens) <= SHORT or not all(word[0].isupper() for word in given if word.lower() not in _STOP):
        return False
    names = [
        reference
        for reference in references
        if re.fullmatch(r"(?:[^\W\d_][\w'.-]*\s+)+[^\W\d_][\w'.-]*", reference.strip())
    ]
    if not names:
        return False
    expected = {token for words in wanted for token in words.split() if token not in _STOP}
    return not any(_alike(token, word) or token == word for token in tokens for word in expected)
