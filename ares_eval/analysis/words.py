"""Trigger words: which tokens belong to a word that marks a turn of thought, and how often each word stands where.

Tokens are no words ("Altern" + "atively"), so the texts of a reply's tokens are joined and words are found in the text;
every token that shares a character with a found word is marked. The list is ``trigger_words.txt`` beside this file,
written for this project, and any other list can take its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ares_eval.analysis.ragged import Ragged

if TYPE_CHECKING:
    import numpy as np

DEFAULT_LIST = Path(__file__).with_name("trigger_words.txt")

LONGEST_PHRASE = 8
"""Words in a phrase of the list."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ASCII_WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")
"""The same in folded text of ASCII alone, where it is twice as fast."""
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Scripts that set no spaces between words: an entry in them is found anywhere in the text."""


@dataclass(frozen=True, slots=True)
class TriggerWords:
    """A list of words, ready to be looked for. ``name`` says which one it is in reports."""

    name: str
    phrases: dict[str, tuple[tuple[str, ...], ...]]
    unspaced: re.Pattern[str] | None
    size: int


@dataclass(frozen=True, slots=True)
class Found:
    """An occurrence: the entry of the list and its character range in the text."""

    entry: str
    start: int
    stop: int


def read_words(path: Path = DEFAULT_LIST) -> TriggerWords:
    """A list from a file: an entry a line, ``#`` begins a comment. ValueError for an empty or unusable list."""
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = [line.partition("#")[0].strip() for line in lines]
    return trigger_words([entry for entry in entries if entry], path.stem)


def trigger_words(entries: Iterable[str], name: str = "given") -> TriggerWords:
    """A list from its entries; ValueError where one holds no word or more than LONGEST_PHRASE."""
    phrases: dict[str, set[tuple[str, ...]]] = {}
    unspaced: set[str] = set()
    for entry in entries:
        folded = _fold(entry)
        words = tuple(_WORD.findall(folded))
        if not words or len(words) > LONGEST_PHRASE:
            raise ValueError(f"trigger word {entry!r} must have 1 to {LONGEST_PHRASE} words")
        if _UNSPACED.search(folded):
            unspaced.add(folded)
        else:
            phrases.setdefault(words[0], set()).add(words)
    if not phrases and not unspaced:
        raise ValueError("the list of trigger words is empty")
    longest_first = {first: tuple(sorted(rest, key=len, reverse=True)) for first, rest in phrases.items()}
    pattern = re.compile("|".join(map(re.escape, sorted(unspaced, key=len, reverse=True)))) if unspaced else None
    return TriggerWords(name, longest_first, pattern, sum(map(len, phrases.values())) + len(unspaced))


def find_words(text: str, words: TriggerWords) -> list[Found]:
    """Every occurrence in order; a phrase is preferred to its first word, and occurrences do not overlap."""
    folded = _fold(text)
    found: list[Found] = []
    free = 0
    for match in _WORD.finditer(folded):
        word = match[0]
        # "let's" may be an entry of its own; "that's" is looked up as "that".
        phrases = words.phrases.get(word) or ("'" in word and words.phrases.get(word.partition("'")[0])) or ()
        start = match.start()
        if not phrases or start < free:
            continue
        for phrase in phrases:
            stop = match.end() if len(phrase) == 1 else _phrase_end(folded, start, phrase)
            if stop:
                found.append(Found(" ".join(phrase), start, stop))
                free = stop
                break
    if words.unspaced is not None:
        found += [Found(m[0], m.start(), m.end()) for m in words.unspaced.finditer(folded)]
        found.sort(key=lambda item: item.start)
    return found


def count_words(text: str, words: TriggerWords) -> int:
    """The number of occurrences, as ``find_words`` finds them, in a third of its time."""
    folded = _fold(text)
    said = (_ASCII_WORD if folded.isascii() else _WORD).findall(folded)
    phrases = words.phrases
    count = free = 0
    for place, word in enumerate(said):
        if word in phrases:
            entries = phrases[word]
        elif "'" in word:
            entries = phrases.get(word.partition("'")[0], ())
        else:
            continue
        if place < free:
            continue
        for phrase in entries:
            if len(phrase) == 1 or tuple(said[place : place + len(phrase)]) == phrase:
                count += 1
                free = place + len(phrase)
                break
    return count if words.unspaced is None else count + len(words.unspaced.findall(folded))


def _phrase_end(text: str, start: int, phrase: tuple[str, ...]) -> int:
    """Place behind the phrase that begins at ``start``, 0 where other words stand there."""
    at = start
    for word in phrase:
        match = _WORD.search(text, at)
        if match is None or match[0] != word:
            return 0
        at = match.end()
    return at


def _fold(text: str) -> str:
    """Lower case, character by character, so that places stay what they were."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return lowered.replace("’", "'")


def token_ends(tokens: Sequence[str]) -> np.ndarray:
    """(T,) place behind each token's last character in the joined text."""
    import numpy as np

    return np.cumsum(np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens)))


def mark_tokens(tokens: Sequence[str], found: Sequence[Found]) -> np.ndarray:
    """(T,) bool: tokens that share a character with an occurrence in their joined text."""
    import numpy as np

    marks = np.zeros(len(tokens) + 1, dtype=np.int64)
    if found and tokens:
        ends = token_ends(tokens)
        starts = np.array([item.start for item in found])
        stops = np.array([item.stop for item in found])
        np.add.at(marks, np.searchsorted(ends, starts, side="right"), 1)
        np.add.at(marks, np.searchsorted(ends, stops - 1, side="right") + 1, -1)
    return np.cumsum(marks[:-1]) > 0


def trigger_tokens(replies: Sequence[Sequence[str]], words: TriggerWords) -> Ragged:
    """Marks of a batch of replies, given as their tokens' texts."""
    import numpy as np

    marks = [mark_tokens(tokens, find_words("".join(tokens), words)) for tokens in replies]
    offsets = np.zeros(len(marks) + 1, dtype=np.int64)
    np.cumsum([len(mark) for mark in marks], out=offsets[1:])
    return Ragged(np.concatenate(marks) if marks else np.zeros(0, dtype=np.bool_), offsets)


def word_of_tokens(tokens: Sequence[str]) -> list[str]:
    """The lower-case word that each token belongs to, "" where it belongs to none (numbers, signs, spaces)."""
    text = _fold("".join(tokens))
    words = [""] * len(tokens)
    if not tokens:
        return words
    import numpy as np

    ends = token_ends(tokens)
    matches = list(_WORD.finditer(text))
    if matches:
        first = np.searchsorted(ends, [m.start() for m in matches], side="right").tolist()
        last = np.searchsorted(ends, [m.end() - 1 for m in matches], side="right").tolist()
        for match, begin, end in zip(matches, first, last, strict=True):
            for at in range(begin, end + 1):
                words[at] = words[at] or match[0]
    return words


def frequencies(words: Iterable[str]) -> Counter[str]:
    """How often each word stands; "" is left out."""
    counted = Counter(words)
    counted.pop("", None)
    return counted
