"""Tokens in high-entropy windows of two runs, by one threshold: run a's.

The threshold is the paper's tau_high over run a's replies (or what a saved baseline recorded), and both runs' tokens
are held against it; each by its own threshold would hide a change. Counts are comparable only where both traces come
from the same estimate, which its name (estimator and number of alternatives) tells; otherwise nothing is counted, and
a note says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from ares_eval import records
from ares_eval.analysis.scored_traces import key_of, read_index
from ares_eval.outcomes import Outcomes, WindowEntropy
from ares_eval.types import TraceRef

if TYPE_CHECKING:
    import numpy as np

Name: TypeAlias = tuple[str, str, int]
"""(task, sample, draw)"""

BATCH = 512
"""Replies whose tokens are in memory at once."""


def with_window_entropy(a: Outcomes, b: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Both runs with ``Outcome.hwe`` where both have comparable token traces, else as they are (b with a note)."""
    traces_a, traces_b = _traces(a), _traces(b)
    if not traces_b or not (traces_a or a.window_entropy):
        lacking = [run.label for run, has in ((a, traces_a or a.window_entropy), (b, traces_b)) if not has]
        note = f"high-entropy windows: not recorded in {' and '.join(lacking)} (--logprobs keeps token traces)"
        return a, replace(b, notes=(*b.notes, note))
    if a.window_entropy is None:
        measured = _measure(a, traces_a)
        if isinstance(measured, str):
            return a, replace(b, notes=(*b.notes, measured))
        a = _counted(a, traces_a, measured)
    rule = a.window_entropy
    assert rule is not None
    estimator = _estimator(b, traces_b)
    if estimator != rule.estimator:
        note = f"high-entropy windows are not comparable: {a.label} has {rule.estimator}, {b.label} {estimator}"
        return a, replace(b, notes=(*b.notes, note))
    return a, _counted(b, traces_b, rule)


def measured(run: Outcomes) -> Outcomes:
    """``run`` with its own threshold and counts, for a baseline; as it is where it has no token traces."""
    traces = _traces(run)
    rule = _measure(run, traces) if traces else ""
    return run if isinstance(rule, str) else _counted(run, traces, rule)


def _traces(run: Outcomes) -> dict[Name, TraceRef]:
    """Where the trace of each measured draw lies: the exact one of `ares-eval entropy`, else the recorded one."""
    if run.harness != "ares":
        return {}
    scored = read_index(run.source)
    found: dict[Name, TraceRef] = {}
    for record in records.read_records(run.source / records.SAMPLES):
        if not record.measured:
            continue
        key, exact = scored.get(key_of(record), ("", None))
        if exact is not None and key == record.key:
            found[key_of(record)] = exact
        elif record.trace is not None:
            found[key_of(record)] = record.trace
    return found


def _measure(run: Outcomes, traces: Mapping[Name, TraceRef]) -> WindowEntropy | str:
    """The threshold over all replies of ``run``, or why there is none."""
    import numpy as np

    from ares_eval.analysis.entropy import PERCENTILE
    from ares_eval.analysis.hwe import DEFAULT_WINDOW
    from ares_eval.analysis.ragged import ragged, row_quantiles

    estimators: set[str] = set()
    quantiles = [
        row_quantiles(ragged([values for _, values, _ in batch]), PERCENTILE / 100)
        for batch in _batches(run, traces, estimators)
    ]
    if len(estimators) > 1:
        return f"high-entropy windows are not counted: {run.label} mixes {', '.join(sorted(estimators))}"
    known = np.concatenate(quantiles)
    known = known[~np.isnan(known)]
    if not len(known):
        return f"high-entropy windows are not counted: {run.label} has no token entropies"
    return WindowEntropy(float(known.mean()), DEFAULT_WINDOW, estimators.pop())


def _estimator(run: Outcomes, traces: Mapping[Name, TraceRef]) -> str:
    estimators: set[str] = set()
    for _ in _batches(run, traces, estimators):
        pass
    return ", ".join(sorted(estimators))


def _counted(run: Outcomes, traces: Mapping[Name, TraceRef], rule: WindowEntropy) -> Outcomes:
    import numpy as np

    from ares_eval.analysis.hwe import hwe
    from ares_eval.analysis.ragged import ragged

    counts: dict[Name, int] = {}
    for batch in _batches(run, traces, set()):
        found = hwe(ragged([values for _, values, _ in batch]), np.full(len(batch), rule.threshold), w=rule.window)
        counts |= {name: int(count) for (name, _, _), count in zip(batch, found.positions, strict=True)}
    tasks = {
        task: replace(
            outcomes,
            draws={key: outcome._replace(hwe=counts.get((task, *key))) for key, outcome in outcomes.draws.items()},
        )
        for task, outcomes in run.tasks.items()
    }
    return replace(run, tasks=tasks, window_entropy=rule)


def _batches(
    run: Outcomes, traces: Mapping[Name, TraceRef], estimators: set[str]
) -> Iterator[list[tuple[Name, np.ndarray, str]]]:
    """Entropies (lower bounds, nats) of the replies, some at a time; the estimates' names go into ``estimators``."""
    from ares_eval.analysis.entropy import estimate

    rest = iter(traces.items())
    while chosen := list(islice(rest, BATCH)):
        batch = []
        for name, ref in chosen:
            trace = records.read_trace(run.source, ref)
            kind = f"{trace.estimator}, top {trace.top}"
            estimators.add(kind)
            values = estimate(trace, "low")
            batch.append((name, values[:-1] if trace.end and len(values) else values, kind))
        yield batch
