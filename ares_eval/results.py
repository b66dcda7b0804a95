"""Records -> results.json: what a run measured, how sure it is, and what it could not measure.

The measured rule. A draw whose reply failed (server, network, filter, ...) or never came is *not measured*: it is
never a wrong answer, it is counted by cause, and accuracy is correct / measured. An unverifiable draw was measured: it
is in the denominator and not counted as right. What both could have changed is shown by the bounds: ``accuracy_worst``
takes every unmeasured and unverifiable draw as wrong, ``accuracy_best`` as right, over all n draws that were asked for.

Only the facts that metrics need are kept of a record (see Draw), so the replies of a long run are never in memory at
once. The result depends on the set of records only, not on their order, on retries, on the cache or on time: an
interrupted and resumed run gives the same bytes as an unbroken one. Where a (task, sample, draw) was recorded twice, a
measured record replaces one that is not, and otherwise the later the earlier.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ares_eval import metrics
from ares_eval.analysis.statistics import from_sums, interval_of_mean
from ares_eval.task_metrics import METRICS, Draw, TaskMeta, estimated
from ares_eval.types import Json, Record

__all__ = ["METRICS", "MISSING", "Draw", "TaskMeta", "asked_and_measured", "summarise"]

MISSING = "missing"
"""The cause of draws that were asked for and have no record: the run ended before them."""


def summarise(records: Iterable[Record], tasks: Mapping[str, TaskMeta]) -> dict[str, Json]:
    """All results of a run: ``{"tasks": {NAME: {...}}, "suites": {NAME: {...}}}``, see docs/results.md for every key.

    Every task of ``tasks`` appears, with or without records. Raises ValueError for a record of a task that is not in
    ``tasks``, for more records than draws asked for, and for a metric that does not exist.
    """
    kept: dict[str, dict[tuple[str, int], Draw]] = {name: {} for name in tasks}
    for record in records:
        draws = kept.get(record.task)
        if draws is None:
            raise ValueError(f"a record of task {record.task!r}, which is no task of this run ({', '.join(tasks)})")
        key = (record.sample, record.draw)
        if record.cause is None or key not in draws or draws[key].cause is not None:
            draws[key] = _draw(record)
    results = {name: _task([kept[name][key] for key in sorted(kept[name])], tasks[name]) for name in sorted(tasks)}
    suites: dict[str, list[str]] = defaultdict(list)
    for name in sorted(tasks):
        for suite in tasks[name].suites:
            suites[suite].append(name)
    return {
        "tasks": results,
        "suites": {suite: _suite(suites[suite], results, tasks) for suite in sorted(suites)},
    }


def asked_and_measured(results: Mapping[str, Json]) -> tuple[int, int]:
    """Draws asked for and draws measured, over all tasks of ``results``."""
    tasks = results["tasks"].values()
    asked = sum(task["n"] for task in tasks)
    return asked, asked - sum(sum(task["not_measured"].values()) for task in tasks)


def _draw(record: Record) -> Draw:
    verdict, value, answer = record.verdict, None, None
    if record.cause is None:
        value = "unverifiable" if verdict is None else verdict.value
        if verdict is not None:
            answer = verdict.extracted if verdict.normalised is None else verdict.normalised[0]
    return Draw(
        record.sample,
        record.draw,
        record.group,
        record.level,
        record.fields,
        record.cause,
        value,
        answer,
        record.usage,
        record.truncated,
    )


# ---------------------------------------------------------------- one task


def _task(draws: Sequence[Draw], meta: TaskMeta) -> dict[str, Json]:
    n = len(draws) if meta.questions is None else meta.questions * meta.draws
    if len(draws) > n:
        raise ValueError(f"task {meta.name}: {len(draws)} draws are recorded, but only {n} were asked for")
    causes: Counter[str] = Counter(draw.cause for draw in draws if draw.cause is not None)
    causes[MISSING] += n - len(draws)
    measured = [draw for draw in draws if draw.cause is None]
    verdicts = Counter(draw.verdict for draw in measured)
    return {
        "n": n,
        "correct": verdicts["correct"],
        "incorrect": verdicts["incorrect"],
        "unverifiable": verdicts["unverifiable"],
        "not_measured": {cause: causes[cause] for cause in sorted(causes) if causes[cause]},
        "truncated": sum(draw.truncated for draw in measured),
        "scoring": meta.scoring,
        "judge_is_official": meta.judged,
        "metrics": _metrics(draws, measured, n, verdicts, meta),
    }


def _metrics(
    draws: Sequence[Draw], measured: Sequence[Draw], n: int, verdicts: Counter[str | None], meta: TaskMeta
) -> dict[str, Json]:
    groups: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for draw in measured:
        group = groups[draw.group]
        group[0] += draw.right
        group[1] += 1
    accuracy = from_sums([(right, count) for right, count in groups.values()]) if groups else None
    known_wrong = verdicts["incorrect"]
    values: dict[str, Json] = {
        "primary": meta.primary,
        **estimated("accuracy", accuracy),
        "accuracy_ci95_method": accuracy.method if accuracy else None,
        "accuracy_worst": verdicts["correct"] / n if n else None,
        "accuracy_best": (n - known_wrong) / n if n else None,
        **_tokens(measured),
    }
    if meta.draws > 1:
        values |= _over_draws(measured, meta.draws)
    for name in meta.metrics:
        if name == "accuracy" or name in meta.own:
            continue
        if name not in METRICS:
            raise ValueError(f"task {meta.name}: no metric {name!r}; there are accuracy, {', '.join(sorted(METRICS))}")
        more = METRICS[name](draws, meta)
        if name not in more or more.keys() & values.keys():
            raise ValueError(f"metric {name!r} must return its own name and no key that exists: {sorted(more)}")
        values |= more
    if meta.own.keys() & values.keys():
        raise ValueError(f"task {meta.name}: metrics of its own have names of ours: {sorted(meta.own)}")
    values |= meta.own
    return values


def _tokens(measured: Sequence[Draw]) -> dict[str, Json]:
    completion = sorted(d.usage.completion for d in measured if d.usage.completion is not None)
    reasoning = sorted(d.usage.reasoning for d in measured if d.usage.reasoning is not None)
    prompt = [d.usage.prompt for d in measured if d.usage.prompt is not None]
    return {
        "completion_tokens_mean": _mean(completion),
        "completion_tokens_median": _median(completion),
        "completion_tokens_total": sum(completion),
        "reasoning_tokens_mean": _mean(reasoning),
        "reasoning_tokens_median": _median(reasoning),
        "prompt_tokens_mean": _mean(prompt),
        "prompt_tokens_total": sum(prompt),
        "tokens_estimated": sum(d.usage.estimated for d in measured),
        "tokens_unknown": len(measured) - len(completion),
    }


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _median(ordered: Sequence[int]) -> float | None:
    if not ordered:
        return None
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


# ---------------------------------------------------------------- several draws of a question


def _over_draws(measured: Sequence[Draw], draws: int) -> dict[str, Json]:
    """avg@k over the questions with a measured draw; pass@k and maj@k over those with at least k of them."""
    questions: dict[str, list[Draw]] = defaultdict(list)
    for draw in measured:
        questions[draw.sample].append(draw)
    right = {sample: [draw.right for draw in rows] for sample, rows in questions.items()}
    values: dict[str, Json] = {
        "draws": draws,
        "questions": len(questions),
        "questions_complete": sum(len(rows) >= draws for rows in questions.values()),
    }

    def add(name: str, needed: int, value: Callable[[str], float]) -> None:
        sums: dict[str, list[float]] = defaultdict(list)
        for sample, rows in questions.items():
            if len(rows) >= needed:
                sums[rows[0].group].append(value(sample))
        estimate = from_sums([(math.fsum(group), len(group)) for group in sums.values()]) if sums else None
        values.update(estimated(name, estimate))

    def chance(k: int) -> Callable[[str], float]:
        return lambda sample: metrics.pass_at_k(len(right[sample]), sum(right[sample]), k)

    add(f"avg@{draws}", 1, lambda sample: metrics.avg_at_k(right[sample]))
    for k in metrics.powers_of_two(draws):
        add(f"pass@{k}", k, chance(k))
    add(f"maj@{draws}", draws, lambda s: metrics.maj_at_k([draw.answer for draw in questions[s]], right[s]))
    return values


# ---------------------------------------------------------------- suites


def _suite(names: Sequence[str], results: Mapping[str, Json], tasks: Mapping[str, TaskMeta]) -> dict[str, Json]:
    """Pooled counts, and the plain mean over tasks of each one's primary metric.

    A task without a value leaves the mean without one (it is named in ``macro_missing``; the bounds still hold), since
    a mean over the rest would be another suite's.
    """
    members = [results[name] for name in names]
    causes: Counter[str] = Counter()
    for member in members:
        causes.update(member["not_measured"])
    pooled: dict[str, Json] = {"tasks": list(names)}
    pooled |= {key: sum(m[key] for m in members) for key in ("n", "correct", "incorrect", "unverifiable")}
    pooled["not_measured"] = {cause: causes[cause] for cause in sorted(causes)}
    pooled["truncated"] = sum(member["truncated"] for member in members)
    columns = {
        key: [results[name]["metrics"].get(tasks[name].primary + key) for name in names]
        for key in ("", "_stderr", "_ci95", "_worst", "_best")
    }
    errors, intervals = columns["_stderr"], columns["_ci95"]
    parts = [(value, tuple(interval)) for value, interval in zip(columns[""], intervals, strict=True) if interval]
    pooled["metrics"] = {
        "macro": _macro(columns[""]),
        "macro_stderr": None if None in errors else math.sqrt(math.fsum(e * e for e in errors)) / len(errors),
        "macro_ci95": list(interval_of_mean(parts)) if len(parts) == len(names) else None,
        "macro_worst": _macro(columns["_worst"]),
        "macro_best": _macro(columns["_best"]),
        "macro_missing": [name for name, value in zip(names, columns[""], strict=True) if value is None],
        "completion_tokens_mean": _macro([member["metrics"]["completion_tokens_mean"] for member in members]),
    }
    return pooled


def _macro(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(values) if len(known) == len(values) else None
