"""Texts as they are compared: a normal form for equality, and hashed n-grams of words and signs for likeness.

Batches are hashed in NumPy: words become 64-bit numbers (BLAKE2b, remembered), n-grams a polynomial over them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MARK = re.compile(r"<\s?image ?\d*>")
_EAST_ASIAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_EAST_ASIAN}]|[^\W_{_EAST_ASIAN}]+|[-+*/=<>^%]")
"""A word, one East Asian character (those scripts set no spaces), or a sign of arithmetic."""
_ASCII_WORDS = re.compile(r"[a-z0-9]+|[-+*/=<>^%]")

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MEMORY = 1 << 20
"""Words remembered; vocabularies of real sets stay below, hostile ones start anew."""


def normal(text: str) -> str:
    """The text for equality: no picture marks, one case, one width, single spaces, no dollar signs or backslashes."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = _unmarked(text).replace("$", " ").replace("\\", " ").casefold()
    return " ".join(text.split()).strip(" .,;:?!")


def words(text: str) -> list[str]:
    """The words and signs of a text, in order."""
    text = _unmarked(text)
    if text.isascii():
        return _ASCII_WORDS.findall(text.lower())
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())


def _unmarked(text: str) -> str:
    return _MARK.sub(" ", text) if "<" in text else text


def exact_key(text: str) -> int:
    """64-bit hash of the normal form; 0 for a text without any."""
    form = normal(text)
    return int.from_bytes(hashlib.blake2b(form.encode(), digest_size=8).digest(), "big") if form else 0


@dataclass(frozen=True, slots=True)
class Words:
    """The hashed words of Q texts. ``values`` uint64 [N]; text q is ``values[offsets[q]:offsets[q + 1]]``."""

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int64 [Q] words of each text."""
        return np.diff(self.offsets)


class WordHasher:
    """Hashes words, remembering them. Stable over processes and machines."""

    def __init__(self) -> None:
        self._known = _Known()

    def __call__(self, texts: Sequence[str]) -> Words:
        """The words of each text."""
        if len(self._known) > _MEMORY:
            self._known.clear()
        hashed = self._known.__getitem__
        values: list[int] = []
        offsets = [0]
        for text in texts:
            values.extend(map(hashed, words(text)))
            offsets.append(len(values))
        return Words(np.array(values, dtype=np.uint64), np.array(offsets, dtype=np.int64))


class _Known(dict[str, int]):
    """Word to its hash, made when it is first asked for."""

    def __missing__(self, word: str) -> int:
        value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        self[word] = value
        return value


def grams(batch: Words, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 [M] hashes, int64 [M] owners): every n-gram of each text, in order; shorter texts have none."""
    counts = np.maximum(batch.lengths - n + 1, 0)
    owners = np.repeat(np.arange(len(counts)), counts)
    starts = gram_starts(batch, n)
    found = np.zeros(len(starts), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for step in range(n):
            found = found * _MULTIPLIER + batch.values[starts + step]
        found ^= found >> np.uint64(31)
        found *= np.uint64(0xBF58476D1CE4E5B9)
        found ^= found >> np.uint64(29)
    return found, owners


def gram_starts(batch: Words, n: int) -> np.ndarray:
    """int64 [M] where in ``values`` each n-gram begins, in the order of ``grams``."""
    counts = np.maximum(batch.lengths - n + 1, 0)
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    starts: np.ndarray = np.repeat(batch.offsets[:-1], counts) + within
    return starts
