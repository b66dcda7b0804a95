"""Which number a sentence of prose states: counts, thresholds, ranges, and the sentence that answers the question.

"There are 3 boxes that weigh more than 20" states 3: what stands behind a comparison is the question's own number.
"Between 3 and 5" states no number at all.
"""

from __future__ import annotations

import re

from ares_eval.verify.normalise import words_key
from ares_eval.verify.quantity import NUMBER_WORDS, quantities_in

_NUMERAL = r"\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?"
_COUNT = re.compile(
    r"\bthere\s+(?:is|are|was|were|remains?|will\s+be|would\s+be|must\s+be)\s+"
    r"(?:(?:only|exactly|actually|in\s+total|a\s+total\s+of|just|still|now|therefore|thus|about|approximately)\s+)*"
    rf"[$\\(*]*\s*(?P<count>{_NUMERAL}|{NUMBER_WORDS})"
    r"(?![\d.]*\s*(?:%|/|:|°|\\|percent|and a |out of|or\b|to\s+\d|[-–]\s*\d|th\b|st\b|nd\b|rd\b))",
    re.I,
)
_GOES_ON = re.compile(
    r"\b(?:for (?:every|each)|per)\b"
    r"|(?:\b(?:so|thus|hence|therefore|making|giving|leaving|total\w*|of which)\b|=)[^.]{0,80}\d",
    re.I,
)
"""A ratio, or a further step of the reckoning: the count before it is not what the sentence states."""
_THRESHOLD = re.compile(
    r"(?:\b(?:less|fewer|more|greater|larger|lower|smaller|higher|bigger|older|younger|longer|shorter|taller|heavier|"
    r"lighter)\s+than|\b(?:below|above|exceed(?:s|ing)?|at\s+least|at\s+most))(?:\s+or\s+equal\s+to)?\s*[$€£\\(*]*\s*$",
    re.I,
)
_RANGE = re.compile(r"\bbetween\s+[$€£]?(?P<low>[\d.,]*\d)\s*%?\s+and\s+[$€£]?(?P<high>[\d.,]*\d)", re.I)
_LONE_WORD = re.compile(rf"(?<![\w-]){NUMBER_WORDS}(?![-\w])", re.I)

MAX_PROSE = 2000
"""Characters of a sentence that are read, from its end: the reply may be anything."""


def counted(sentence: str) -> str | None:
    """The last count of a sentence that says how many there are."""
    found, sentence = None, sentence[-MAX_PROSE:]
    for match in _COUNT.finditer(sentence):
        if not _GOES_ON.search(sentence, match.end()):
            found = match["count"]
    return found


def stated_numbers(sentence: str) -> list[str]:
    """Numbers that a sentence may state, in order: all but thresholds and the ends of ranges, unless it has no other.

    A sentence without digits states the one number word that it has ("one" aside, which is a pronoun too often).
    """
    sentence = sentence[-MAX_PROSE:]
    numbers = quantities_in(sentence)
    if not numbers:
        words = {match[0].lower() for match in _LONE_WORD.finditer(sentence)} - {"one"}
        return [words.pop()] if len(words) == 1 else []
    if len(numbers) == 1:
        return numbers
    ranges = list(_RANGE.finditer(sentence))
    ends = [match.span(end) for match in ranges for end in ("low", "high")]
    kept, position = [], 0
    for number in numbers:
        start = sentence.find(number, position)
        position = start + len(number)
        if not _THRESHOLD.search(sentence[max(0, start - 40) : start]) and not any(a <= start < b for a, b in ends):
            kept.append(number)
    return kept or ([ranges[-1][0]] if ranges else numbers)


MAX_SENTENCES = 40
MAX_SENTENCE = 400
COVERED = 0.75
"""Share of the question's content words that a sentence must repeat to be taken for its answer."""
_ASKED = re.compile(r"Question:\s*(.*?)(?:\n|Choices:|\Z)", re.S)
_SENTENCES = re.compile(r"[^.?!\n]*(?:\.(?=\w)[^.?!\n]*)*[.?!\n]?")
_EMPTY = frozenset(
    words_key(
        "is are was were be does do did the a an of in on to for and or that this it its there have has had with by as"
        " at from what which who when where how many much value number find",
        articles=True,
    ).split()
)


def answering_sentence(text: str, question: str | None) -> str | None:
    """The sentence with a number that repeats most of the question's words; the last of equals; None without one."""
    asked = _content(_question_of(question)) if question else frozenset[str]()
    if len(asked) < 2:
        return None
    best, answer = COVERED, None
    for match in list(_SENTENCES.finditer(text))[-MAX_SENTENCES:]:
        sentence = match[0].strip()
        if not sentence or len(sentence) > MAX_SENTENCE or sentence.endswith("?"):
            continue
        covered = len(asked & _content(sentence)) / len(asked)
        if covered >= best and stated_numbers(sentence):
            best, answer = covered, sentence
    return answer


def _question_of(prompt: str) -> str:
    found = _ASKED.findall(prompt)
    text = str(found[-1] if found else prompt)[-MAX_PROSE:]
    questions = re.findall(r"[^.?!\n]*\?", text)
    return str(questions[-1]) if questions else text


def _content(text: str) -> frozenset[str]:
    return frozenset(
        word[:-1] if len(word) > 3 and word.endswith("s") else word
        for word in words_key(text, articles=True).split()
        if word not in _EMPTY
    )
