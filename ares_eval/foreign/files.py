"""Reading files that other programs wrote: bounded, and with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ares_eval.types import Json

LARGEST_JSON = 1 << 30
"""Bytes of one JSON document; Inspect logs with every message inside come to a few hundred megabytes."""

LARGEST_LINE = 1 << 28


class ForeignError(Exception):
    """A path that holds no run, or one that cannot be read; the message says which file and why."""


def read_json(path: Path, largest: int = LARGEST_JSON) -> Json:
    """The JSON document at ``path``; ForeignError where it is none or larger than ``largest`` bytes."""
    try:
        if path.stat().st_size > largest:
            raise ForeignError(f"{path} has more than {largest} bytes")
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise ForeignError(f"{path} cannot be read: {error.strerror or error}") from None


def decode(data: bytes, name: str) -> Json:
    """JSON, also with the NaN and Infinity that Python's json writes (as null); ForeignError where it is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    import json

    try:
        return json.loads(data, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise ForeignError(f"{name} is no JSON: {error}") from None


def score(value: Json) -> float | None:
    """A score in [0, 1]: a number, or a word by which harnesses say right and wrong; None for anything else."""
    if isinstance(value, str):
        return _WORDS.get(value.strip().casefold())
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    return None


def mapping(value: Json) -> dict[str, Json]:
    """``value`` where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


_WORDS = {"c": 1.0, "i": 0.0, "p": 0.5, "n": 0.0, "true": 1.0, "false": 0.0, "correct": 1.0, "incorrect": 0.0}
_WORDS |= {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "yes": 1.0, "no": 0.0}
