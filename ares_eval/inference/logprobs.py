"""Log-probs of all servers in one form, reduced to entropy bounds while the reply is decoded.

Servers differ: vLLM puts a sampled token from outside the top k first and drops the k-th; llama.cpp leaves it out of
the list; lmdeploy always leaves it out and sends raw vocabulary pieces; OpenAI marks what is unknown by -9999. Here
every position becomes the set of known probabilities (alternatives and sampled token, each once), the rest of the mass
is the tail, and the entropy H (nats) of the whole next-token distribution lies between two bounds:

- low: the tail r in as few tokens as possible, none more probable than the least of the top k (entropy is
  Schur-concave, so no split of the tail has less);
- high: the tail spread evenly over all other tokens of the vocabulary.

``estimator`` names this way of counting; numbers of different estimators are not comparable.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from ares_eval.types import TokenTrace

if TYPE_CHECKING:
    import numpy as np

EXACT = "exact"
"""Estimator of traces whose entropies the server computed from the whole distribution."""

MOST_ENTROPY = 30.0
"""Nats: no vocabulary has e^30 tokens; a server that says more says nothing."""

ESTIMATOR = "topk-bounds"

UNKNOWN_LOGPROB = -9999.0
"""OpenAI's (and vLLM's) number for "not among the top, or masked": a bound, not a value."""

LARGEST_VOCABULARY = 2**20
"""More tokens than any model has; stands in where the vocabulary's size is unknown."""

END_TOKEN = re.compile(r"<[|｜][^<>\s]{1,40}[|｜]>|</?(s|eos|bos|pad|end_of_turn|end_of_text|endoftext)>|\[(EOS|SEP)\]")
"""How end-of-text tokens are spelt where a server sends them as text."""


class MissingLogprobs(Exception):
    """Log-probs were asked for and the server gave none, or none of the alternatives."""


class Alternative(msgspec.Struct, gc=False):
    """An entry of ``top_logprobs``; its other fields are skipped unread."""

    token: str = ""
    logprob: float | None = None


class Token(msgspec.Struct, gc=False):
    """An entry of ``logprobs.content``."""

    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None
    top_logprobs: list[Alternative] | None = None
    entropy: float | None = None
    """Of the whole distribution, from servers that say it (`--serve hf`)."""


def token_trace(
    tokens: list[Token], *, text: str, finish_reason: str | None, asked: int, vocabulary: int | None
) -> TokenTrace:
    """The trace of a reply's tokens, all arrays of length T = len(tokens), float64, nats.

    ``text`` is the reply's content (or its reasoning, where it has no content), used to tell how the server spells
    tokens and whether the last one ends the text. ``asked``: alternatives per token; more are not used. Raises
    MissingLogprobs where no position has an alternative. Where the server says every token's entropy, both bounds are
    that and the estimator is ``exact``.
    """
    import numpy as np

    probabilities, cap, logprob, top = known_probabilities(tokens, asked)
    low, high, tail = entropy_bounds(probabilities, cap, vocabulary)
    texts, end = token_texts(tokens, text, finish_reason)
    estimator = ESTIMATOR
    said = [token.entropy for token in tokens]
    if all(entropy is not None and 0.0 <= entropy < MOST_ENTROPY for entropy in said):
        low = high = np.asarray(said, dtype=np.float64)
        estimator = EXACT
    return TokenTrace(
        tokens=tuple(texts),
        logprob=logprob,
        entropy_low=low,
        entropy_high=high,
        tail=tail,
        top=top,
        estimator=estimator,
        vocabulary=vocabulary,
        end=end,
    )


# ---------------------------------------------------------------- entropy


def entropy_bounds(
    probabilities: np.ndarray, cap: np.ndarray, vocabulary: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(low, high, tail): bounds of the entropy in nats and the mass that is not known, each of shape (T,).

    ``probabilities`` (T, K): of distinct tokens, NaN where a row has fewer. ``cap`` (T,): no other token is more
    probable (inf: not known). ``vocabulary``: number of tokens V; ``high`` is NaN without it.
    """
    import numpy as np

    known = ~np.isnan(probabilities)
    p = np.where(known, probabilities, 0.0)
    tail = np.clip(1.0 - p.sum(axis=1), 0.0, 1.0)
    given = _minus_p_log_p(p).sum(axis=1)
    rest = np.maximum((vocabulary or LARGEST_VOCABULARY) - known.sum(axis=1), 1)
    cap = np.clip(cap, 0.0, 1.0)
    # A cap under which the whole vocabulary could not hold the tail is none: masked tokens, or rounded numbers.
    holds = tail <= cap * rest * (1 + 1e-9)
    pieces = np.where(holds, np.floor(np.divide(tail, cap, out=np.zeros_like(tail), where=cap > 0)), 0.0)
    low = given + pieces * _minus_p_log_p(cap) + _minus_p_log_p(np.maximum(tail - pieces * cap, 0.0))
    if vocabulary is None:
        return low, np.full_like(low, np.nan), tail
    high = given + _minus_p_log_p(tail) + tail * np.log(rest)
    return low, np.maximum(high, low), tail


def _minus_p_log_p(p: np.ndarray) -> np.ndarray:
    import numpy as np

    product: np.ndarray = p * np.log(p, out=np.zeros_like(p), where=p > 0)
    return -product


def known_probabilities(tokens: list[Token], asked: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(probabilities, cap, logprob, top): each token that is known once a row, as ``entropy_bounds`` takes them.

    Shapes (T, K + 1), (T,), (T,); ``logprob`` of the sampled token is NaN where the server did not say; ``top`` is the
    largest number of alternatives known at a position, at most ``asked``. Raises MissingLogprobs where all lists are
    empty.
    """
    import numpy as np

    rows = [token.top_logprobs[:asked] if token.top_logprobs else [] for token in tokens]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    width = int(lengths.max(initial=0))
    if width == 0:
        raise MissingLogprobs("log-probs came without alternatives: the server ignores top_logprobs")
    logprobs = np.full((len(rows), width), np.nan)
    logprobs[np.arange(width) < lengths[:, None]] = np.array(
        [item.logprob for row in rows for item in row], dtype=np.float64
    )
    logprobs[logprobs <= UNKNOWN_LOGPROB] = np.nan
    logprobs = np.minimum(logprobs, 0.0)
    chosen = np.array([token.logprob for token in tokens], dtype=np.float64)
    chosen[chosen <= UNKNOWN_LOGPROB] = np.nan
    chosen = np.minimum(chosen, 0.0)

    repeated = _drop_repeats(logprobs, rows)
    place = _places(logprobs, chosen, tokens, rows)
    p = np.exp(logprobs)
    cap = np.fmin.reduce(p, axis=1)
    # vLLM puts a sampled token from outside the top k first and drops the k-th, so a first entry bounds nothing.
    behind = np.fmin.reduce(p[:, 1:], axis=1) if width > 1 else np.full(len(rows), np.nan)
    cap = np.where(place == 0, behind, cap)
    cap = np.where(np.isnan(cap) | repeated, np.inf, cap)
    added = np.where(place < 0, np.exp(chosen), np.nan)
    known = np.concatenate([p, added[:, None]], axis=1)
    most = int((~np.isnan(known)).sum(axis=1).max())
    return known, cap, chosen, min(most, asked)


def _places(logprobs: np.ndarray, chosen: np.ndarray, tokens: list[Token], rows: list[list[Alternative]]) -> np.ndarray:
    """Where the sampled token stands in its list, -1 where it does not: the same text, and where texts are unclear
    (pieces of a character are empty or replaced) the same log-prob too."""
    import numpy as np

    same = logprobs == chosen[:, None]
    place = np.where(same.any(axis=1), same.argmax(axis=1), -1)
    found = place.tolist()
    for i, (token, row, j) in enumerate(zip(tokens, rows, found, strict=True)):
        text = token.token
        if j >= 0 and row[j].token == text:
            continue
        if is_unclear(text):
            found[i] = next((k for k, item in enumerate(row) if item.token == text and same[i, k]), -1)
        else:
            found[i] = next((k for k, item in enumerate(row) if item.token == text), -1)
    return np.array(found, dtype=np.int64)


def _drop_repeats(logprobs: np.ndarray, rows: list[list[Alternative]]) -> np.ndarray:
    """Make the repeats of an alternative within its list NaN, in place; (T,) bool: which rows had one."""
    import numpy as np

    ordered = np.sort(logprobs, axis=1)
    suspects = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    repeated = np.zeros(len(rows), dtype=bool)
    for i in np.flatnonzero(suspects).tolist():
        seen: set[tuple[str, float | None]] = set()
        for j, item in enumerate(rows[i]):
            entry = (item.token, item.logprob)
            if entry in seen and not is_unclear(item.token):
                logprobs[i, j] = np.nan
                repeated[i] = True
            seen.add(entry)
    return repeated


def is_unclear(text: str) -> bool:
    """Whether a token's text does not tell it from others: nothing, or a replaced piece of a character."""
    return not text or "\ufffd" in text


# ---------------------------------------------------------------- texts


def token_texts(tokens: list[Token], text: str, finish_reason: str | None) -> tuple[list[str], bool]:
    """The tokens' texts, and whether the last is an end-of-text token that is no part of ``text``.

    Servers spell tokens in four ways: as text, as bytes (a character's pieces), as raw pieces of a byte-level
    vocabulary, as raw SentencePiece pieces. The first spelling whose joined texts hold ``text`` is taken, else the
    server's own. A character of several tokens stands at the token that completes it.
    """
    plain = [token.token for token in tokens]
    spellings: tuple[Callable[[], list[str] | None], ...] = (
        lambda: plain,
        lambda: _joined(None if token.bytes is None else _octets(token.bytes) for token in tokens),
        lambda: _joined(map(_byte_level, plain)),
        lambda: _joined(map(_sentence_piece, plain)),
    )
    for wanted in (text, text.strip()):  # reasoning parsers strip the content
        for spell in spellings:
            texts = spell()
            if texts is not None and wanted in "".join(texts):
                return texts, _ends(texts, text, finish_reason)
    return plain, _ends(plain, text, finish_reason)


def _ends(texts: list[str], text: str, finish_reason: str | None) -> bool:
    """An end token is sent as nothing (llama.cpp) or under its own name (vLLM), and only when the model stopped."""
    if finish_reason == "length" or not texts:
        return False
    last = texts[-1]
    if not last or END_TOKEN.fullmatch(last):
        return not last or not text.endswith(last)
    return "".join(texts[:-1]) == text


def _joined(pieces: Iterable[bytes | None]) -> list[str] | None:
    """Texts of tokens given as bytes, or None where a token has none or they are no UTF-8 (but for a cut end)."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    texts = []
    try:
        for piece in pieces:
            if piece is None:
                return None
            texts.append(decoder.decode(piece))
    except UnicodeDecodeError:
        return None
    return texts


def _octets(values: list[int]) -> bytes | None:
    try:
        return bytes(values)
    except ValueError:
        return None


@functools.cache
def _byte_of_character() -> dict[str, int]:
    """The byte of every character of a byte-level vocabulary, as GPT-2's encoder assigns them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(shifted)}


def _byte_level(piece: str) -> bytes:
    table = _byte_of_character()
    try:
        return bytes([table[character] for character in piece])
    except KeyError:  # an added token, stored as plain text
        return piece.encode("utf-8", "replace")


def _sentence_piece(piece: str) -> bytes:
    if re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode("utf-8", "replace")
