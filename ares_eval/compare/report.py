"""A comparison as plain text, as Markdown and as JSON: the same cells in each."""

from __future__ import annotations

from collections.abc import Callable

from ares_eval.compare.comparison import ALPHA, POWER, Comparison, Ratio, TaskComparison, Tier
from ares_eval.compare.pairing import Pair
from ares_eval.outcomes import Outcomes
from ares_eval.types import Json

FLIPS = 20
"""Flips of each direction and task that text and Markdown list; JSON has all."""

Rows = list[list[str]]


def text(comparison: Comparison, flips: int = FLIPS) -> str:
    """For a terminal."""
    return _render(comparison, _plain_table, "", flips)


def markdown(comparison: Comparison, flips: int = FLIPS) -> str:
    """For a pull request or a job's summary."""
    return _render(comparison, markdown_table, "### ", flips)


def _render(comparison: Comparison, table: Callable[[Rows], str], heading: str, flips: int) -> str:
    pairing = comparison.pairing
    parts = [f"A: {_who(pairing.a)}\nB: {_who(pairing.b)}" if not heading else _sides(comparison)]
    parts.append(table(_main(comparison)))
    if tiers := _tiers(comparison):
        parts.append(f"{heading}By difficulty (tiers from A)\n" + ("\n" if heading else "") + table(tiers))
    if lines := _flips(comparison, flips, bool(heading)):
        parts.append(f"{heading}Flips\n" + ("\n" if heading else "") + "\n".join(lines))
    if notes := _notes(comparison):
        parts.append(f"{heading}Notes\n" + ("\n" if heading else "") + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _sides(comparison: Comparison) -> str:
    return f"A: `{_who(comparison.pairing.a)}`  \nB: `{_who(comparison.pairing.b)}`"


def _who(run: Outcomes) -> str:
    return f"{run.label} ({run.source})"


# ---------------------------------------------------------------- cells


def _main(comparison: Comparison) -> Rows:
    level = f"{1 - ALPHA:.0%}".replace("%", " %")
    holm = len([task for task in comparison.tasks if task.p is not None]) > 1
    head = ["task", "pairs", "A %", "B %", f"B - A, points [{level}]", "p (Holm)" if holm else "p", "lost", "gained"]
    rows = [[*head, "A tokens", "B tokens", f"ratio [{level}]", "detectable"]]
    for task in comparison.tasks:
        rows.append(_task_row(task))
    if (whole := comparison.overall) is not None:
        low, high = whole.normal.interval()
        ratio = "" if whole.tokens is None else _exponent(whole.tokens.centre, whole.tokens.interval())
        interval = f"{100 * whole.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        detectable = _points(whole.normal.detectable(ALPHA, POWER))
        rows.append([f"mean of {whole.tasks}", "", "", "", interval, _p(whole.p), "", "", "", "", ratio, detectable])
    return rows


def _task_row(task: TaskComparison) -> list[str]:
    found = task.difference
    if found is None or task.accuracy_a is None or task.accuracy_b is None or task.p_holm is None:
        return [task.task, "0", *[""] * 10]
    low, high = found.interval()
    return [
        task.task,
        str(task.measured),
        f"{100 * task.accuracy_a:.1f}",
        f"{100 * task.accuracy_b:.1f}",
        f"{100 * found.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
        _p(task.p_holm),
        str(len(task.lost)),
        str(len(task.gained)),
        *_ratio(task.tokens),
        _points(found.normal.detectable(ALPHA, POWER)),
    ]


def _tiers(comparison: Comparison) -> Rows:
    rows: Rows = []
    windows = any(tier.hwe for task in comparison.tasks for tier in task.tiers)
    for task in comparison.tasks:
        rows += [_tier_row(task.task, tier, windows) for tier in task.tiers]
    if not rows:
        return []
    head = ["task", "tier", "pairs", "A %", "B %", "A tokens", "B tokens", "ratio [95 %]"]
    return [head + (["A HWE", "B HWE", "ratio [95 %]"] if windows else []), *rows]


def _tier_row(task: str, tier: Tier, windows: bool) -> list[str]:
    cells = [task, tier.name, str(tier.pairs), f"{100 * tier.accuracy_a:.1f}", f"{100 * tier.accuracy_b:.1f}"]
    return [*cells, *_ratio(tier.tokens), *(_ratio(tier.hwe) if windows else [])]


def _ratio(ratio: Ratio | None) -> list[str]:
    if ratio is None:
        return ["", "", ""]
    value, interval = ratio.value, ratio.interval()
    shown = "" if value is None else f"{value:.2f}"
    if interval is not None and shown:
        shown += f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    return [f"{ratio.a:,.1f}", f"{ratio.b:,.1f}", shown]


def _exponent(centre: float, interval: tuple[float, float]) -> str:
    from math import exp

    return f"{exp(centre):.2f} [{exp(interval[0]):.2f}, {exp(interval[1]):.2f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"


def _flips(comparison: Comparison, most: int, linked: bool) -> list[str]:
    lines = []
    for task in comparison.tasks:
        for word, flips in (("lost", task.lost), ("gained", task.gained)):
            if not flips or not most:
                continue
            lines.append(f"{'- ' if linked else ''}{task.task}: {len(flips)} {word}")
            lines += [f"  {'- ' if linked else ''}{_flip(pair, task, linked)}" for pair in flips[:most]]
            if len(flips) > most:
                lines.append(f"  {'- ' if linked else ''}... and {len(flips) - most} more")
    return lines


def _flip(pair: Pair, task: TaskComparison, linked: bool) -> str:
    name = pair.sample if not pair.draw else f"{pair.sample} draw {pair.draw}"
    places = [
        f"[{side}]({file}#L{outcome.line})" if linked else f"{side} {file}:{outcome.line}"
        for side, file, outcome in (("A", task.pairs.files[0], pair.a), ("B", task.pairs.files[1], pair.b))
        if file is not None and outcome.line is not None
    ]
    return "  ".join([name, *places])


def _notes(comparison: Comparison) -> list[str]:
    notes = list(comparison.pairing.notes)
    for task in comparison.tasks:
        if task.measured < len(task.pairs.pairs):
            notes.append(
                f"{task.task}: {len(task.pairs.pairs) - task.measured} of {len(task.pairs.pairs)} pairs do not count, "
                f"not measured in A {task.not_measured_a}, in B {task.not_measured_b}; they could move the difference "
                f"to anything from {100 * task.worst:+.1f} to {100 * task.best:+.1f} points"
            )
        if task.unverifiable_a or task.unverifiable_b:
            notes.append(
                f"{task.task}: unverifiable, not counted as right: A {task.unverifiable_a}, B {task.unverifiable_b}"
            )
        if task.truncated_a or task.truncated_b:
            notes.append(f"{task.task}: cut at the token limit: {task.truncated_a} in A, {task.truncated_b} in B")
    rule = comparison.pairing.a.window_entropy
    if rule is not None and comparison.pairing.b.window_entropy is not None:
        notes.append(
            f"HWE: positions whose {rule.window} tokens have mean entropy >= {rule.threshold:.3f} nats, "
            f"the threshold of A ({rule.estimator}, lower bounds)"
        )
    notes.append(f"detectable: true difference found with probability {POWER} at level {ALPHA} by a sample like this")
    return notes


# ---------------------------------------------------------------- tables


def _plain_table(rows: Rows) -> str:
    keep = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in keep]
    kept = list(zip(*keep, strict=True))
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in kept
    ]
    return "\n".join([lines[0], "-" * len(max(lines, key=len)), *lines[1:]])


def markdown_table(rows: Rows) -> str:
    """A GitHub table; columns that are empty in every row are left out, and | is escaped."""
    keep = [column for column in zip(*rows, strict=True) if any(column[1:])]
    kept = [[cell.replace("|", "\\|") for cell in row] for row in zip(*keep, strict=True)]
    rule = ["---", *["---:"] * (len(kept[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [kept[0], rule, *kept[1:]])


# ---------------------------------------------------------------- JSON


def as_json(comparison: Comparison) -> dict[str, Json]:
    """Everything, as values; flips in full."""
    pairing, whole = comparison.pairing, comparison.overall
    return {
        "a": {"label": pairing.a.label, "source": str(pairing.a.source), "harness": pairing.a.harness},
        "b": {"label": pairing.b.label, "source": str(pairing.b.source), "harness": pairing.b.harness},
        "notes": list(pairing.notes),
        "tasks": {task.task: _task_json(task) for task in comparison.tasks},
        "overall": None
        if whole is None
        else {
            "tasks": whole.tasks,
            "difference": whole.mean,
            "difference_ci95": list(whole.normal.interval()),
            "p": whole.p,
            "detectable": whole.normal.detectable(ALPHA, POWER),
            "tokens_log_ratio": None if whole.tokens is None else whole.tokens.centre,
            "tokens_log_ratio_ci95": None if whole.tokens is None else list(whole.tokens.interval()),
        },
    }


def _task_json(task: TaskComparison) -> dict[str, Json]:
    found = task.difference
    return {
        "pairs": len(task.pairs.pairs),
        "measured": task.measured,
        "only_a": task.pairs.only_a,
        "only_b": task.pairs.only_b,
        "not_measured": {"a": task.not_measured_a, "b": task.not_measured_b},
        "unverifiable": {"a": task.unverifiable_a, "b": task.unverifiable_b},
        "truncated": {"a": task.truncated_a, "b": task.truncated_b},
        "accuracy": {"a": task.accuracy_a, "b": task.accuracy_b},
        "difference": None if found is None else found.mean,
        "difference_ci95": None if found is None else list(found.interval()),
        "difference_worst": task.worst,
        "difference_best": task.best,
        "clusters": None if found is None else found.clusters,
        "p": task.p,
        "p_method": task.p_method,
        "p_holm": task.p_holm,
        "detectable": None if found is None else found.normal.detectable(ALPHA, POWER),
        "tokens": _ratio_json(task.tokens),
        "hwe": _ratio_json(task.hwe),
        "tiers": {
            tier.name: {
                "pairs": tier.pairs,
                "accuracy": {"a": tier.accuracy_a, "b": tier.accuracy_b},
                "tokens": _ratio_json(tier.tokens),
                "hwe": _ratio_json(tier.hwe),
            }
            for tier in task.tiers
        },
        "lost": [_pair_json(pair) for pair in task.lost],
        "gained": [_pair_json(pair) for pair in task.gained],
        "files": {"a": task.pairs.files[0], "b": task.pairs.files[1]},
    }


def _pair_json(pair: Pair) -> dict[str, Json]:
    return {"sample": pair.sample, "draw": pair.draw, "line_a": pair.a.line, "line_b": pair.b.line}


def _ratio_json(ratio: Ratio | None) -> Json:
    if ratio is None:
        return None
    interval = ratio.interval()
    return {
        "a": ratio.a,
        "b": ratio.b,
        "pairs": ratio.pairs,
        "ratio": ratio.value,
        "ratio_ci95": None if interval is None else list(interval),
    }
