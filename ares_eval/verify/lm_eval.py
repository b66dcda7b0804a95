"""Scores for lm-eval task files: ``process_results: !function ares_eval.verify.lm_eval.process_results``.

Reads the reference from the document's ``answer`` (or ``reference``, ``target``) and the answer spec from its
``answer_spec`` mapping, where it has one; tasks with a spec of their own call ``scores`` with it. Needs no lm_eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ares_eval.types import AnswerSpec
from ares_eval.verify.reward import spec_from
from ares_eval.verify.verifier import shared_verifier


def process_results(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
    """Means over the draws of one document: ``acc``, and ``unverifiable`` (never counted as right)."""
    for name in ("reference", "target", "answer"):
        if doc.get(name) is not None:
            value = doc[name]
            break
    else:
        raise KeyError("the document has no reference, target or answer")
    reference = tuple(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    question = doc.get("question") or doc.get("problem")
    spec = spec_from({"answer": doc["answer_spec"]}) if isinstance(doc.get("answer_spec"), Mapping) else AnswerSpec()
    return scores(results, reference, spec, question=str(question) if question else None)


def scores(
    results: Sequence[Any], reference: str | Sequence[str], spec: AnswerSpec, *, question: str | None = None
) -> dict[str, float]:
    """``acc`` and ``unverifiable`` over responses; a list in place of the first is all draws of the question."""
    draws = results[0] if results and isinstance(results[0], list) else list(results)
    verifier = shared_verifier()
    futures = [verifier.submit(str(response), reference, spec, question=question) for response in draws]
    values = [future.result().value for future in futures]
    return {
        "acc": sum(value == "correct" for value in values) / len(values),
        "unverifiable": sum(value == "unverifiable" for value in values) / len(values),
    }
