"""Recorded replies through lm-eval's own ``evaluate``. Runs in the worker only.

First every reply is scored, one question at a time, so that a scorer that hangs is known by its question and one that
fails costs its question and not the task. Then ``lm_eval.evaluate`` runs with a model that repeats the recorded replies
and with those scores: filters, aggregation, groups and standard errors are its own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ares_eval.integrations.lm_eval_tasks import Heartbeat, Leaf, Loaded, answer
from ares_eval.types import Json


class _Ids(list[int]):
    """Document numbers whose ``in`` does not walk the list: lm-eval asks it for every document."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__(ids)
        self._set = frozenset(ids)

    def __contains__(self, value: object) -> bool:
        return value in self._set


def evaluate(
    loaded: Loaded, replies: Mapping[tuple[str, int], list[str]], draws: Mapping[str, int], at: Heartbeat
) -> dict[str, Json]:
    """lm-eval's results over ``replies``: (task, document) to the texts of all draws, ``draws`` of them in each task.

    ``at`` is told what is scored next, and ("", -1) when only the summing up is left.
    """
    import lm_eval
    from lm_eval import evaluator_utils

    kept: dict[str, list[int]] = defaultdict(list)
    for one, doc in sorted(replies):
        kept[one].append(doc)
    scores: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    failed: list[Json] = []
    loaded.chance.set()
    for name, docs in kept.items():
        scores[name], wrong = _score(loaded.leaves[name], docs, replies, draws[name], at)
        failed += [[name, doc, why] for doc, why in wrong.items()]
        kept[name] = [doc for doc in docs if doc not in wrong]
    at("", -1)
    measured = {name: _Ids(docs) for name, docs in kept.items() if docs}
    if not measured:
        return {"results": {}, "groups": {}, "values": {}, "failed": failed}
    whole = len(measured) == len(loaded.leaves)
    for name, docs in measured.items():
        leaf = loaded.leaves[name]
        leaf.task.set_config(key="repeats", value=draws[name])
        leaf.task.fewshot_context = leaf.no_context
        leaf.task.process_results = _Known(scores[name], docs)
    original = evaluator_utils.stderr_for_metric
    evaluator_utils.stderr_for_metric = _closed_form(original)
    try:
        found = lm_eval.evaluate(
            lm=_replay(measured, replies),
            task_dict={
                "tasks": {name: loaded.tasks[name] for name in measured},
                "groups": dict(loaded.groups) if whole else {},
            },
            samples=measured,
            bootstrap_iters=1,
            log_samples=False,
        )
    finally:
        evaluator_utils.stderr_for_metric = original
        for name in measured:
            for replaced in ("fewshot_context", "process_results"):
                del loaded.tasks[name].__dict__[replaced]
    assert found is not None
    values = {
        name: {
            f"{m},{f}": [one.get(m) for one in by_doc.values()]
            for f, by_doc in scores[name].items()
            for m in _named(by_doc)
        }
        for name in measured
    }
    return {
        "results": {name: _scalars(one) for name, one in found["results"].items() if name in measured},
        "groups": {name: _scalars(one) for name, one in found.get("groups", {}).items()},
        "samples": found["n-samples"],
        "values": {
            name: {key: list(map(_number, column)) for key, column in one.items()} for name, one in values.items()
        },
        "failed": failed,
    }


def _named(by_doc: Mapping[int, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for one in by_doc.values() for name in one))


def _score(
    leaf: Leaf, docs: list[int], replies: Mapping[tuple[str, int], list[str]], draws: int, at: Heartbeat
) -> tuple[dict[str, dict[int, dict[str, Any]]], dict[int, str]]:
    """Metrics by filter and document, and what could not be scored with the reason."""
    documents = {doc: leaf.docs[doc] for doc in docs}
    asked = {}
    for doc, document in documents.items():
        asked[doc] = leaf.instances(document, doc, draws)
        answer(asked[doc], replies[leaf.name, doc])
    leaf.task._instances = [one for instances in asked.values() for one in instances]
    leaf.task.apply_filters()
    scores: dict[str, dict[int, dict[str, Any]]] = {}
    failed: dict[int, str] = {}
    for name in leaf.task._instances[0].filtered_resps:
        scores[name] = {}
        for doc, document in documents.items():
            at(leaf.name, doc)
            filtered = [one.filtered_resps[name] for one in asked[doc]]
            try:
                scores[name][doc] = dict(leaf.task.process_results(document, filtered))
            except Exception as error:  # noqa: BLE001 - a scorer that fails on a reply must not cost the others
                failed[doc] = f"{type(error).__name__}: {error}"[:300]
    leaf.task._instances = None
    return {name: {d: one for d, one in by_doc.items() if d not in failed} for name, by_doc in scores.items()}, failed


class _Known:
    """``process_results`` from the scores that are known; lm-eval asks filter by filter, documents in their order."""

    def __init__(self, scores: dict[str, dict[int, dict[str, Any]]], docs: list[int]) -> None:
        self._rows = [scores[name][doc] for name in scores for doc in docs]
        self._next = 0

    def __call__(self, _document: Any, _results: Any) -> dict[str, Any]:
        row = self._rows[self._next]
        self._next += 1
        return dict(row)


def _replay(measured: Mapping[str, list[int]], replies: Mapping[tuple[str, int], list[str]]) -> Any:
    """A model that says what was recorded."""
    from lm_eval.api.model import LM

    class Replay(LM):  # type: ignore[misc]
        MULTIMODAL = True

        def _draws(self, requests: list[Any]) -> Any:
            """(instance, text) for each request; the same instance again is its next draw."""
            seen: dict[int, int] = defaultdict(int)
            for one in requests:
                doc = measured[one.task_name][one.doc_id]
                yield one, replies[one.task_name, doc][seen[id(one)]]
                seen[id(one)] += 1

        def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
            return [text for _, text in self._draws(requests)]

        def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
            return [tuple(json.loads(text)[one.idx]) for one, text in self._draws(requests)]

        def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
            return [json.loads(text)[one.idx][0] for one, text in self._draws(requests)]

    return Replay()


def _closed_form(original: Any) -> Any:
    """lm-eval's choice of a standard error, where it needs no bootstrap."""
    from lm_eval.api import metrics

    without_bootstrap = (metrics.mean, metrics.acc_all)

    def choose(metric: Any, bootstrap_iters: int) -> Any:  # noqa: ARG001 - as lm-eval calls it
        return original(metric=metric, bootstrap_iters=1) if metric in without_bootstrap else None

    return choose


def _scalars(row: Mapping[str, Any]) -> dict[str, Json]:
    """A row of lm-eval's results without its names; "N/A" as None."""
    return {
        key: None if value == "N/A" else _number(value)
        for key, value in row.items()
        if key not in ("name", "alias", "sample_count")
    }


def _number(value: Any) -> Json:
    item = getattr(value, "item", None)
    value = item() if callable(item) else value
    return value if isinstance(value, int | float | str | None) else None
