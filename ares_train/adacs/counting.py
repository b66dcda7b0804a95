"""Lengths under the named tokenizer: of whole responses, and of their thinking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ares_train.adacs.errors import AdacsError
from ares_train.adacs.response import CLOSE, OPEN


class TokenCounter:
    """Counts as ``tokenizer`` (a Hugging Face id or folder) has it, without special tokens."""

    def __init__(self, tokenizer: str, revision: str | None = None) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer, revision=revision)
        except (OSError, ValueError) as error:
            raise AdacsError(f"rate.tokenizer {tokenizer}: {str(error).strip().splitlines()[0][:200]}") from error
        # Responses may be longer than the model's context; nothing is fed to the model here.
        self._tokenizer.model_max_length = int(1e9)

    def count(self, responses: Sequence[str]) -> list[tuple[int, int]]:
        """(tokens of the whole, tokens that begin between the think tags) of each whole response."""
        if not responses:
            return []
        encoded = self._tokenizer(list(responses), add_special_tokens=False, return_attention_mask=False)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        if not self._tokenizer.is_fast:
            thoughts = [text[slice(*span)] if (span := thinking_span(text)) else "" for text in responses]
            inside = self._tokenizer(thoughts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
            return [(length, min(length, len(ids))) for length, ids in zip(lengths, inside, strict=True)]
        return [
            (length, _between(encoded, number, text, length))
            for number, (text, length) in enumerate(zip(responses, lengths, strict=True))
        ]


def thinking_span(response: str) -> tuple[int, int] | None:
    """Character range between the think tags of a whole response; to the end where thinking never ends."""
    opened = response.find(OPEN)
    if opened < 0:
        return None
    closed = response.rfind(CLOSE)
    start = opened + len(OPEN)
    return start, closed if closed >= start else len(response)


def _between(encoded: Any, number: int, text: str, length: int) -> int:
    span = thinking_span(text)
    if span is None:
        return 0
    first, last = (_first_from(encoded, number, place, text, length) for place in span)
    return max(0, last - first)


def _first_from(encoded: Any, number: int, place: int, text: str, length: int) -> int:
    """The first token that begins at character ``place`` or behind it."""
    for at in range(place, len(text)):
        token = encoded.char_to_token(number, at)
        if token is not None:
            # A token may reach over the place from before it.
            started = at > 0 and encoded.char_to_token(number, at - 1) == token
            return int(token) + started
    return length
