"""Seeded log-probs, and how each server writes them.

A position's distribution is exact and simple: the best token has probability a, the i-th after it
(1 - a)(1 - r) r^(i-1). So probabilities add up to 1 over an endless vocabulary, any top k is sorted and sums to less
than 1, and the entropy has a closed form (`entropy`) that decoders' bounds can be checked against.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from tests.loopback.text import WORDS, digest

Entry: TypeAlias = dict[str, Any]

END = "<|im_end|>"
ROUNDING = 1e6
"""Log-probs have six decimals."""
# Alternatives: whole words, and pieces of characters as byte-level vocabularies have them.
HALVES = ("é".encode(), "∠".encode()[:2], "∠".encode()[2:], "😀".encode()[:2])
_ENTIRE = (*WORDS, *(word.strip() for word in WORDS), *(str(number) for number in range(200)), "\n", ".", ",")
VOCABULARY = (*(word.encode() for word in _ENTIRE), *HALVES)
# Rank of the sampled token and its share; the last lies outside any top 20.
RANKS = ((0, 0.85), (1, 0.10), (3, 0.03), (60, 0.02))


@dataclass(frozen=True, slots=True)
class Position:
    """One generated token and the distribution it was sampled from."""

    token: bytes
    rank: int
    best: float
    ratio: float
    start: int

    def logprob(self, rank: int) -> float:
        """Log-prob of the rank-th token, in nats, rounded down so that no sum of probabilities exceeds 1."""
        if rank == 0:
            value = math.log(self.best)
        else:
            value = math.log1p(-self.best) + math.log1p(-self.ratio) + (rank - 1) * math.log(self.ratio)
        return math.floor(value * ROUNDING) / ROUNDING

    @property
    def chosen(self) -> float:
        """Log-prob of the sampled token, in nats."""
        return self.logprob(self.rank)

    def top(self, k: int) -> list[tuple[bytes, float]]:
        """The k best tokens, best first, the sampled one at its rank."""
        made = []
        at = self.start
        for rank in range(k):
            if rank == self.rank:
                made.append((self.token, self.logprob(rank)))
                continue
            if VOCABULARY[at % len(VOCABULARY)] == self.token:
                at += 1
            made.append((VOCABULARY[at % len(VOCABULARY)], self.logprob(rank)))
            at += 1
        return made

    def entropy(self) -> float:
        """Of the whole distribution, in nats."""
        a, r = self.best, self.ratio
        rest = 1 - a
        return -a * math.log(a) - rest * (math.log(rest) + math.log(1 - r) + r / (1 - r) * math.log(r))


def positions(tokens: Sequence[bytes], key: str) -> list[Position]:
    """Distributions for a piece of text; ``key`` seeds them."""
    chance = random.Random(digest(key, b"".join(tokens).hex()))
    made = []
    for token in tokens:
        # A share of the positions is open, as at the forks of a chain of thought.
        best = 0.35 + 0.35 * chance.random() if chance.random() < 0.2 else 0.8 + 0.1999 * chance.random()
        draw = chance.random()
        rank = next((rank for rank, share in RANKS if (draw := draw - share) < 0), 0)
        made.append(Position(token, rank, best, 0.5 + 0.45 * chance.random(), chance.randrange(len(VOCABULARY))))
    return made


def shown(token: bytes) -> str:
    """A token as OpenAI writes it: text, or escaped bytes where it is no text."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in token)


def _gpt2_letters() -> dict[int, str]:
    """Byte -> letter of GPT-2's byte-level vocabularies (openai/gpt-2 encoder.py, bytes_to_unicode)."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = {byte: chr(byte) for byte in own}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(own))
    return letters


LETTERS = _gpt2_letters()


def raw_piece(token: bytes) -> str:
    """A token as it stands in a byte-level vocabulary: `Ġthe`."""
    return "".join(LETTERS[byte] for byte in token)


def token_id(token: bytes) -> int:
    """A number for the token."""
    return int.from_bytes(digest(token.hex())[:2], "big")


def render(made: Sequence[Position], dialect: str, k: int | None, ids: bool = False) -> bytes:
    """The entries of ``logprobs.content`` as JSON, without the brackets.

    ``k`` None: the request did not say how many. ``ids``: vLLM's return_tokens_as_token_ids.
    """
    write = {"openai": _openai, "vllm": _vllm, "llamacpp": _llamacpp, "lmdeploy": _lmdeploy}[dialect]
    return json.dumps(write(made, k, ids), separators=(",", ":"), ensure_ascii=False).encode()[1:-1]


@lru_cache(maxsize=512)
def content(tokens: tuple[bytes, ...], key: str, dialect: str, k: int | None, ids: bool = False) -> bytes:
    """`render` for a segment of text, made once."""
    return render(positions(tokens, key), dialect, k, ids)


def end_entry(dialect: str, k: int | None) -> bytes:
    """The entry of the end-of-text token on finish_reason stop, where the server sends one; else empty."""
    position = Position(END.encode(), 0, 0.97, 0.5, 0)
    match dialect:
        case "vllm":
            entry = _vllm([position], k, False)[0]
        case "llamacpp":
            entry = _llamacpp([position], k, False)[0] | {"token": "", "bytes": []}
            entry["top_logprobs"] = [each | ({"token": "", "bytes": []} if each["id"] == entry["id"] else {})
                                     for each in entry["top_logprobs"]]  # fmt: skip
        case "lmdeploy":
            entry = _lmdeploy([position], k, False)[0] | {"token": END, "bytes": list(END.encode())}
        case _:
            return b""
    return json.dumps(entry, separators=(",", ":")).encode()


def _openai(made: Sequence[Position], k: int | None, ids: bool) -> list[Entry]:
    return [
        {
            "token": shown(each.token),
            "logprob": each.chosen,
            "bytes": list(each.token),
            "top_logprobs": [
                {"token": shown(token), "logprob": logprob, "bytes": list(token)} for token, logprob in each.top(k or 0)
            ],
        }
        for each in made
    ]


def _vllm(made: Sequence[Position], k: int | None, ids: bool) -> list[Entry]:
    """The sampled token comes first; outside the top k it takes the k-th's place. Half characters have no text."""

    def entry(token: bytes, logprob: float) -> Entry:
        if ids:
            return {"token": f"token_id:{token_id(token)}", "logprob": logprob, "bytes": list(token)}
        try:
            return {"token": token.decode(), "logprob": logprob, "bytes": list(token)}
        except UnicodeDecodeError:
            return {"token": "", "logprob": logprob, "bytes": []}

    entries = []
    half = b""
    for each in made:
        # The piece that completes a character carries the bytes of the whole character.
        whole = half + each.token
        try:
            whole.decode()
            half = b""
        except UnicodeDecodeError:
            half = whole
        top = [entry(whole, each.chosen)]
        top += [entry(token, logprob) for token, logprob in each.top(k or 0) if token != each.token]
        entries.append(entry(whole, each.chosen) | {"top_logprobs": top[: k or 0]})
    return entries


def _llamacpp(made: Sequence[Position], k: int | None, ids: bool) -> list[Entry]:
    """Pieces of one character are one entry; the sampled token is listed only where it is in the top k."""

    def entry(token: bytes, logprob: float, whole: bytes) -> Entry:
        return {
            "id": token_id(token),
            "token": whole.decode(errors="replace"),
            "bytes": list(whole),
            "logprob": logprob,
        }

    entries = []
    half = b""
    for each in made:
        whole = half + each.token
        try:
            whole.decode()
        except UnicodeDecodeError:
            half = whole
            continue
        half = b""
        top = [entry(token, logprob, whole if token == each.token else token)
               for token, logprob in each.top(20 if k is None else k)]  # fmt: skip
        entries.append(entry(each.token, each.chosen, whole) | {"top_logprobs": top})
    return entries


def _lmdeploy(made: Sequence[Position], k: int | None, ids: bool) -> list[Entry]:
    """Raw vocabulary pieces, bytes of those pieces' letters; the sampled token is left out of the alternatives."""

    def entry(token: bytes, logprob: float) -> Entry:
        piece = raw_piece(token)
        return {"token": piece, "logprob": logprob, "bytes": list(piece.encode())}

    return [
        entry(each.token, each.chosen)
        | {"top_logprobs": [entry(token, logprob) for token, logprob in each.top(k or 0) if token != each.token]}
        for each in made
    ]
