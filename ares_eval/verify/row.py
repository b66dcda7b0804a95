"""A JSON row (id, type, response, reference, choices, precision, ...) as the verifier's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ares_eval.types import AnswerSpec


@dataclass(frozen=True, slots=True)
class Pair:
    """What ``Verifier.submit`` takes."""

    response: str
    references: tuple[str, ...]
    spec: AnswerSpec
    question: str | None


def pair_of(row: Mapping[str, Any]) -> Pair:
    """Read a row. Unknown fields are ignored; raises ValueError where response or reference is missing."""
    if "response" not in row or "reference" not in row:
        raise ValueError("a row needs 'response' and 'reference'")
    reference = row["reference"]
    references = tuple(map(str, reference)) if isinstance(reference, list) else (str(reference),)
    policy: dict[str, Any] = dict(row.get("policy") or {})
    kind = str(row.get("type") or "auto")
    if kind == "choice_multi":
        kind = "choice"
        policy["multi"] = True
    if row.get("precision") is not None:
        policy["digits"] = int(row["precision"])
    if row.get("unit"):
        policy["asked_unit"] = str(row["unit"])
    if row.get("form"):
        policy["form"] = str(row["form"])
    if kind == "choice" and row.get("answer_type") in ("text", "integer", "float"):
        policy["reference"] = "text"
    if kind == "number" and row.get("answer_type") == "integer":
        policy["percent"] = True  # whoever is asked for an integer means it as written, with or without the sign
    question = row.get("question")
    choices = tuple(map(str, row.get("choices") or ()))
    return Pair(str(row["response"]), references, AnswerSpec(kind, policy, choices), question and str(question))
