"""Rewards for reinforcement learning: the verifier as verl's custom reward function, with evaluation's verdicts.

``reward.custom_reward_function.path=pkg://ares_eval.verify.reward`` and ``name=compute_score``. The answer spec of a
row travels in its ``extra_info`` (``answer``: a mapping with type, policy, choices; ``question``); without one the
type is guessed. ``policy`` may be JSON text, as parquet has no mappings of free form. An unverifiable answer earns
nothing and is told apart in the returned fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ares_eval.types import AnswerSpec, Verdict
from ares_eval.verify.verifier import shared_verifier


def spec_from(fields: Mapping[str, Any] | None) -> AnswerSpec:
    """The answer spec in a row's ``answer`` field; guessed (``auto``) where there is none."""
    answer = (fields or {}).get("answer")
    if not isinstance(answer, Mapping):
        return AnswerSpec()
    choices, policy = answer.get("choices"), answer.get("policy") or {}
    return AnswerSpec(
        str(answer.get("type") or "auto"),
        json.loads(policy) if isinstance(policy, str) else dict(policy),
        () if choices is None else tuple(str(choice) for choice in choices),
    )


def compute_score(
    data_source: str,  # noqa: ARG001 - verl's signature
    solution_str: str,
    ground_truth: str | Sequence[str],
    extra_info: Mapping[str, Any] | None = None,
    **_: Any,
) -> dict[str, float]:
    """``score`` and ``acc``: 1.0 for a correct answer, else 0.0; ``unverifiable`` and ``no_answer`` as 0.0 or 1.0."""
    question = (extra_info or {}).get("question")
    verdict = shared_verifier().verify(
        solution_str, _references(ground_truth), spec_from(extra_info), question=str(question) if question else None
    )
    return as_reward(verdict)


def as_reward(verdict: Verdict) -> dict[str, float]:
    """A verdict as the numbers that verl logs."""
    right = float(verdict.value == "correct")
    return {
        "score": right,
        "acc": right,
        "unverifiable": float(verdict.value == "unverifiable"),
        "no_answer": float(verdict.reason == "no_answer"),
    }


def _references(ground_truth: str | Sequence[str]) -> str | tuple[str, ...]:
    return ground_truth if isinstance(ground_truth, str) else tuple(str(reference) for reference in ground_truth)
