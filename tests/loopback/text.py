"""Seeded chance, tokens and filler prose: the loopback model's whole command of language.

A token is a piece of the text's UTF-8 bytes; the pieces joined are the text. Characters of three bytes or more are
split in two pieces, as byte-level vocabularies do, so that decoders meet half characters.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from functools import lru_cache

PIECES = re.compile(r" ?[A-Za-z]{1,12}| ?[0-9]{1,3}| ?[^\sA-Za-z0-9]|\s")

# Words of one token each; none of them is an answer, a number or a cue that an extractor looks for.
WORDS = (
    " we", " first", " look", " at", " what", " is", " given", " and", " then", " take", " each", " part", " in",
    " turn", " the", " next", " step", " follows", " from", " that", " so", " it", " must", " hold", " for", " this",
    " case",
    " too", " which", " leaves", " us", " with", " less", " to", " check", " before", " going", " on", " let", " me",
    " think", " about", " how", " these", " relate", " because", " both", " sides", " grow",
)  # fmt: skip
BLOCK = 64
BLOCKS = 16
"""Filler is made of few blocks, so that their log-probs are made only once."""


def digest(*parts: object) -> bytes:
    """Eight bytes that depend on all parts, the same in every process."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()


def unit(*parts: object) -> float:
    """A number in [0, 1) that depends on all parts."""
    return int.from_bytes(digest(*parts), "big") / 2**64


def tokenise(text: str) -> list[bytes]:
    """The text's tokens."""
    tokens = []
    for match in PIECES.finditer(text):
        piece = match.group().encode()
        if len(piece) > 2 and not piece.isascii():
            tokens += [piece[:2], piece[2:]]
        else:
            tokens.append(piece)
    return tokens


def joined(tokens: list[bytes]) -> str:
    """The tokens' text; half a character at the end is left out."""
    return b"".join(tokens).decode("utf-8", errors="ignore")


def count(text: str) -> int:
    """Length of a prompt in tokens, roughly and fast."""
    return max(1, len(text) // 4)


@lru_cache(maxsize=BLOCKS)
def block(number: int) -> tuple[bytes, ...]:
    """Prose of exactly BLOCK tokens."""
    chance = random.Random(number)
    tokens: list[bytes] = []
    while len(tokens) < BLOCK:
        tokens += [word.encode() for word in chance.choices(WORDS, k=chance.randint(6, 14))]
        tokens.append(b".")
    return tuple(tokens[:BLOCK])


@lru_cache(maxsize=256)
def filler(length: int, variant: int) -> tuple[bytes, ...]:
    """Prose of exactly ``length`` tokens, made of blocks."""
    blocks = (block((variant + number) % BLOCKS) for number in range(-(-length // BLOCK)))
    return tuple(itertools.chain.from_iterable(blocks))[:length]
