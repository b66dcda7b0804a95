"""Scoring by lm-eval's own code in a child process: one reply while the run goes on, all of them at its end.

A reply whose scoring takes longer than SCORE_SECONDS is ``unverifiable`` with the reason timeout; its process is killed
and another one goes on. In the summary such questions are left out and named: lm-eval's numbers are those of the rest.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import msgspec

from ares_eval.analysis.statistics import from_sums
from ares_eval.integrations.lm_eval_process import Child, ChildEnded
from ares_eval.tasks.scoring import Score, ScoringFailed, Summary
from ares_eval.types import Json, Record, Reply, Sample, Verdict, VerdictValue

SCORE_SECONDS = 60.0
"""For one reply: lm-eval's own scorers stop themselves after 5 s a comparison, and compare a few times."""
LOAD_SECONDS = 600.0
"""For loading a task anew, from what the loader left in the cache."""
AGGREGATE_SECONDS = 1800.0
SUMMING_UP: list[Json] = ["", -1]
"""What the child says it is at when every reply is scored."""
LOST = 5
"""Questions that may end the process in a summary before it is given up."""


class Leaf(msgspec.Struct, frozen=True):
    """What is known of one task of lm-eval."""

    size: int
    metric: str | None
    filters: list[str]
    higher: dict[str, bool | None] = {}
    aggregation: dict[str, str] = {}
    repeats: int = 1
    generation: dict[str, Any] = {}

    @property
    def primary(self) -> str | None:
        """The metric that stands for the task, as lm-eval names it in its results."""
        return None if self.metric is None else f"{self.metric},{self.filters[0]}"


Scores: TypeAlias = Mapping[str, Mapping[str, Json]]
"""Metrics by filter."""


@dataclass
class ScorerProcess:
    """The one scoring child of this process, shared by all tasks; one thread talks to it."""

    child: Child | None = None
    warm: set[str] = field(default_factory=set)
    """Tasks that the child has loaded, as far as we know."""
    _thread: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "lm-eval-scorer"))

    def submit(self, work: Any, *arguments: Any) -> Future[Any]:
        """Run ``work(self, *arguments)`` in the thread that owns the child."""
        return self._thread.submit(work, self, *arguments)

    def ready(self) -> Child:
        """The child, started where there is none."""
        if self.child is None or not self.child.alive:
            self.child = Child("scorer")
            self.warm.clear()
        return self.child

    def stop(self) -> None:
        """End the child."""
        self.submit(ScorerProcess._stop).result()

    def _stop(self) -> None:
        if self.child is not None:
            self.child.stop()
            self.child = None


class LmEvalScorer:
    """The scorer of one task or group (tasks/scoring.py)."""

    def __init__(
        self,
        name: str,
        asked: Mapping[str, Json],
        leaves: Mapping[str, Leaf],
        primary: tuple[str, str] | None,
        version: str,
        process: ScorerProcess,
    ) -> None:
        self._name, self._leaves, self._primary = name, leaves, primary
        self._task = {"key": name, **asked}
        self._version = f"lm-eval {version}"
        self._process = process
        self._broken: str | None = None
        """Why the task cannot be loaded for scoring, once that was tried."""

    def submit(self, sample: Sample, draw: int, reply: Reply) -> Future[Score]:  # noqa: ARG002 - as Scorer has it
        """See Scorer."""
        return self._process.submit(self._score, dict(sample.fields), reply.text)

    def close(self) -> None:
        """See Scorer."""
        self._process.stop()

    def _score(self, process: ScorerProcess, fields: Mapping[str, Json], text: str) -> Score:
        leaf = fields["lm_task"]
        question = {"op": "score", **self._task, "leaf": leaf, "doc": fields["doc_id"], "hash": fields["doc_hash"]}
        try:
            child = self._opened(process)
            told = child.ask({**question, "text": text}, SCORE_SECONDS)
        except ChildEnded as error:
            return Score(self._unverifiable("timeout" if error.timeout else "over_budget", str(error)))
        except ScoringFailed as error:
            return Score(self._unverifiable("unparsed", str(error)))
        if "error" in told:
            return Score(self._unverifiable("unparsed", f"{told['type']}: {told['error']}"))
        verdict = self._verdict(self._leaves[leaf], told["scores"], told["answer"])
        return Score(verdict, {"lm_eval": _plain(told["scores"])})

    def _opened(self, process: ScorerProcess) -> Child:
        """The child with this task loaded. Raises ChildEnded, and ScoringFailed, at once where it failed before."""
        if self._broken is not None:
            raise ScoringFailed(self._broken)
        child = process.ready()
        if self._name not in process.warm:
            told = child.ask({"op": "open", **self._task}, LOAD_SECONDS)
            if "error" in told:
                self._broken = f"{self._name}: its scorer cannot be loaded: {told['type']}: {told['error']}"
                raise ScoringFailed(self._broken)
            process.warm.add(self._name)
        return child

    def _verdict(self, leaf: Leaf, scores: Scores, answered: str | None) -> Verdict:
        """Right or wrong where the first metric of the first filter is 1 or 0; any other number is only a number."""
        name, metrics = next(iter(scores.items()), ("none", {}))
        metric = leaf.metric if leaf.metric in metrics else next(iter(metrics), None)
        value = metrics.get(metric) if metric is not None else None
        method = f"{metric},{name}"
        right: VerdictValue = "correct" if value == 1 else "incorrect"
        reason = None
        if value not in (0, 1) or leaf.higher.get(metric or "", True) is False:
            right, reason = "unverifiable", "graded"
        return Verdict(right, method, reason, extracted=answered, type="lm-eval", version=self._version)

    def _unverifiable(self, reason: str, why: str) -> Verdict:
        return Verdict("unverifiable", why[:300], reason=reason, type="lm-eval", version=self._version)

    # ------------------------------------------------------------ all replies

    def summarise(self, records: Iterable[Record], *, questions: int, draws: int) -> Summary:
        """See Scorer. Questions without a measured reply for every draw are left out."""
        texts: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
        hashes: dict[tuple[str, int], str] = {}
        stuck: list[list[Json]] = []
        for record in records:
            if not record.measured or record.text is None:
                continue
            at = (str(record.fields["lm_task"]), int(record.fields["doc_id"]))
            texts[at][record.draw] = record.text
            hashes[at] = str(record.fields["doc_hash"])
            if record.verdict is not None and record.verdict.reason in ("timeout", "over_budget"):
                stuck.append([*at, f"its scoring ended with {record.verdict.reason}"])
        own = draws == max(leaf.repeats for leaf in self._leaves.values())
        needed = {name: leaf.repeats if own else draws for name, leaf in self._leaves.items()}
        whole = {
            at: [one[draw] for draw in range(needed[at[0]])]
            for at, one in sorted(texts.items())
            if all(draw in one for draw in range(needed[at[0]]))
        }
        found = self._process.submit(self._sum, whole, hashes, needed, stuck).result()
        return Summary(self._metrics(found, questions))

    def _sum(
        self,
        process: ScorerProcess,
        texts: Mapping[tuple[str, int], list[str]],
        hashes: Mapping[tuple[str, int], str],
        draws: Mapping[str, int],
        stuck: list[list[Json]],
    ) -> dict[str, Any]:
        for _ in range(LOST + 1):
            left_out = {(leaf, doc) for leaf, doc, _ in stuck}
            asked = {at: one for at, one in texts.items() if at not in left_out}
            if not asked:
                return {"results": {}, "groups": {}, "values": {}, "failed": stuck}
            at: list[Json] | None = None
            try:
                child = self._opened(process)
                for (leaf, doc), one in asked.items():
                    child.send({"op": "replies", "key": self._name, "leaf": leaf, "doc": doc, "texts": one})
                named = [[*key, hashes[key]] for key in asked]
                child.send({"op": "sum", **self._task, "hashes": named, "draws": draws})
                told = child.receive(LOAD_SECONDS)  # every document is looked up first
                while "at" in told:
                    at = told["at"]
                    told = child.receive(AGGREGATE_SECONDS if at == SUMMING_UP else SCORE_SECONDS)
            except ChildEnded as error:
                if at is None or at == SUMMING_UP:
                    raise ScoringFailed(f"{self._name}: lm-eval's scoring process ended: {error}") from None
                stuck = [*stuck, [*at, str(error)]]
                continue
            if "error" in told:
                raise ScoringFailed(f"{self._name}: lm-eval cannot sum up: {told['type']}: {told['error']}")
            found: dict[str, Any] = told["results"]
            found["failed"] += stuck
            return found
        raise ScoringFailed(
            f"{self._name}: scoring ended the process at {LOST + 1} questions, the last: {stuck[-1][:2]}"
        )

    def _metrics(self, found: Mapping[str, Any], questions: int) -> dict[str, Json]:
        rows = {**found["results"], **found["groups"]}
        metrics: dict[str, Json] = {}
        if self._primary is not None:
            row, name = self._primary
            metrics = _estimate(name, rows.get(row, {}), found["values"].get(row, {}).get(name), questions)
        scored = sum(one.get("sample_len", 0) for one in found["results"].values())
        metrics["lm_eval"] = {
            "results": found["results"],
            "groups": found["groups"],
            "questions": questions,
            "scored": scored,
            "not_scored": found["failed"][:100],
        }
        return metrics


def _estimate(name: str, row: Mapping[str, Json], values: list[Any] | None, questions: int) -> dict[str, Json]:
    """The primary metric with its error, and the bounds that what was not scored leaves it, where it is a mean of
    fractions."""
    metric, _, filtered = name.partition(",")
    value, stderr = row.get(name), row.get(f"{metric}_stderr,{filtered}")
    known: dict[str, Json] = {name: value, f"{name}_stderr": stderr}
    known |= dict.fromkeys((f"{name}_ci95", f"{name}_worst", f"{name}_best"))
    fractions = [float(one) for one in values or [] if isinstance(one, int | float) and 0 <= one <= 1]
    if not fractions or len(fractions) != len(values or []) or value is None:
        return known
    mean = sum(fractions) / len(fractions)
    if abs(mean - float(value)) > 1e-9:
        return known
    missing = max(questions - len(fractions), 0)
    interval = from_sums([(one, 1) for one in fractions]).interval
    return known | {
        f"{name}_ci95": None if interval is None else list(interval),
        f"{name}_worst": sum(fractions) / (len(fractions) + missing),
        f"{name}_best": (sum(fractions) + missing) / (len(fractions) + missing),
    }


def _plain(scores: Scores) -> Json:
    """What is worth a line in a record: numbers and short texts, not the material of corpus metrics."""
    return {
        name: {
            metric: value
            for metric, value in metrics.items()
            if isinstance(value, int | float | str | None) and len(json.dumps(value)) < 200
        }
        for name, metrics in scores.items()
    }
