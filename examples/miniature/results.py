"""From the runs' files to tables: means by true level with intervals, differences to GRPO paired by seed and question.

Intervals are 95 % percentile bootstrap over seeds x questions: each resample draws seeds and, within each level,
questions, both with replacement; in a difference the same draw serves both arms. With one seed they resample questions
alone. Five seeds are few: read the intervals as a lower bound of the uncertainty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from examples.miniature.arms import LONG, MAIN, SINGLE
from examples.miniature.task import LEVELS

RESAMPLES = 2000
Array = np.ndarray

EASY, HARD, ALL = (0, 1), (3,), (0, 1, 2, 3)


@dataclass(frozen=True)
class Arm:
    """An arm's scores: for each measure f64[seeds, questions], means over draws. ``logs``: the seeds' training logs."""

    seeds: tuple[int, ...]
    level: Array
    measures: dict[str, Array]
    entropy: float
    logs: tuple[list[dict[str, Any]], ...]
    coefficient: float | None


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def load(folder: Path, task: str, kinds: Sequence[str] = ("main", "single")) -> dict[str, Arm]:
    """Every arm that has results, in the order of arms.py, the starting checkpoint first as ``sft``.

    Raises ValueError where results were made with different settings of RL or of the evaluation.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    sft = folder / task / "sft.json"
    if sft.exists():
        found["sft"] = [json.loads(sft.read_text())]
    settings: list[Any] = []
    for kind in kinds:
        for arm in {"main": MAIN, "single": SINGLE, "long": LONG}[kind]:
            paths = sorted((folder / task / kind).glob(f"{arm}-s*.json"))
            if paths:
                found[arm] = [json.loads(path.read_text()) for path in paths]
                settings += [(path, {name: one["settings"][name] for name in ("sft", "rl", "evaluation")})
                             for path, one in zip(paths, found[arm], strict=True)]  # fmt: skip
    for path, used in settings:
        if used != settings[0][1]:
            raise ValueError(
                f"{path} was made with other settings than {settings[0][0]}; run the study again or remove it"
            )
    return {name: gathered(results) for name, results in found.items()}


def gathered(results: Sequence[dict[str, Any]]) -> Arm:
    scores = [result["scores"] for result in results]
    return Arm(
        tuple(result["run"]["seed"] for result in results),
        np.array(scores[0]["level"]),
        {name: np.array([each["sums"][name] for each in scores]) / scores[0]["draws"] for name in scores[0]["sums"]},
        float(np.mean([each["entropy"] for each in scores])),
        tuple(result.get("log", []) for result in results),
        results[0]["run"]["coefficient"],
    )


def common(arm: Arm, other: Arm) -> tuple[Arm, Arm]:
    """Both arms at the seeds that both have."""
    shared = [seed for seed in arm.seeds if seed in other.seeds]

    def at(one: Arm) -> Arm:
        rows = [one.seeds.index(seed) for seed in shared]
        measures = {name: values[rows] for name, values in one.measures.items()}
        return Arm(
            tuple(shared), one.level, measures, one.entropy, tuple(one.logs[row] for row in rows), one.coefficient
        )

    return at(arm), at(other)


def interval(
    values: Sequence[Array], level: Array, levels: Sequence[int], statistic: Callable[..., Array | float]
) -> Interval:
    """``statistic`` of the means of each of ``values`` f64[seeds, questions] over the questions of ``levels``.

    ``statistic`` takes the means as numbers and, of all resamples at once, as arrays.
    """
    strata = [np.flatnonzero(level == each) for each in levels]
    questions = np.concatenate(strata)
    by_seed, by_question = resamples(len(values[0]), tuple(map(len, strata)))
    drawn = statistic(*(((by_seed @ each[:, questions]) * by_question).sum(1) for each in values))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(statistic(*(each[:, questions].mean() for each in values))), float(low), float(high))


@lru_cache(maxsize=32)
def resamples(seeds: int, strata: tuple[int, ...]) -> tuple[Array, Array]:
    """Weights of seeds f64[RESAMPLES, seeds] and of questions f64[RESAMPLES, questions], each row's sum 1."""
    rng = np.random.default_rng(0)
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    drawn = [rng.multinomial(size, np.full(size, 1 / size), RESAMPLES) for size in strata]
    return by_seed, np.concatenate(drawn, axis=1) / sum(strata)


def mean(arm: Arm, measure: str, levels: Sequence[int]) -> Interval:
    return interval([arm.measures[measure]], arm.level, levels, lambda value: value)


def difference(arm: Arm, base: Arm, measure: str, levels: Sequence[int]) -> Interval:
    """Mean of ``arm`` minus mean of ``base``, paired."""
    arm, base = common(arm, base)
    return interval([arm.measures[measure], base.measures[measure]], arm.level, levels, lambda a, b: a - b)


def change(arm: Arm, base: Arm, measure: str, levels: Sequence[int]) -> Interval:
    """Relative change from ``base`` to ``arm``, paired: -0.25 is a quarter less."""
    arm, base = common(arm, base)
    return interval([arm.measures[measure], base.measures[measure]], arm.level, levels, lambda a, b: a / b - 1)


def percent(found: Interval) -> str:
    return f"{found.value:+.1%} [{found.low:+.1%}, {found.high:+.1%}]"


def signed(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def plain(found: Interval, digits: int) -> str:
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def label(name: str, arm: Arm) -> str:
    return f"{name} ({arm.coefficient:g})" if arm.coefficient is not None and name == "grpo_length" else name


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def level_table(arms: dict[str, Arm], measure: str, digits: int) -> str:
    """One row per arm, a column per level and one for all."""
    columns = [*((each,) for each in range(LEVELS)), ALL]
    rows = [
        [label(name, arm), str(len(arm.seeds)), *(plain(mean(arm, measure, levels), digits) for levels in columns)]
        for name, arm in arms.items()
    ]
    return table(["arm", "seeds", "L1", "L2", "L3", "L4", "all"], rows)


def paired_table(arms: dict[str, Arm], base: str) -> str:
    """Differences to ``base``: what the study is about."""
    rows = []
    for name, arm in arms.items():
        if name in (base, "sft") or not set(arm.seeds) & set(arms[base].seeds):
            continue
        rows.append(
            [
                label(name, arm),
                str(len(set(arm.seeds) & set(arms[base].seeds))),
                percent(change(arm, arms[base], "tokens", EASY)),
                percent(change(arm, arms[base], "tokens", HARD)),
                percent(change(arm, arms[base], "tokens", ALL)),
                signed(difference(arm, arms[base], "right", ALL)),
                signed(difference(arm, arms[base], "right", EASY)),
                signed(difference(arm, arms[base], "right", HARD)),
                signed(difference(arm, arms[base], "verified", EASY)),
                signed(difference(arm, arms[base], "rechecks", EASY)),
                percent(change(arm, arms[base], "useful", HARD)),
            ]
        )
    head = ["arm", "seeds", "tokens L1-2", "tokens L4", "tokens all", "accuracy", "accuracy L1-2", "accuracy L4"]
    return table([*head, "verified L1-2", "re-checks L1-2", "useful L4"], rows)


def seed_table(arms: dict[str, Arm], base: str) -> str:
    """Each seed's own paired differences: the spread that the intervals come from."""
    rows = []
    for name, arm in arms.items():
        if name == base or len(arm.seeds) < 2 or base not in arms:
            continue
        one, other = common(arm, arms[base])
        easy, hard = np.isin(one.level, EASY), np.isin(one.level, HARD)

        def each(measure: str, at: Array, one: Arm = one, other: Arm = other) -> list[str]:
            now, then = one.measures[measure][:, at].mean(1), other.measures[measure][:, at].mean(1)
            return [
                f"{a / b - 1:+.1%}" if measure == "tokens" else f"{a - b:+.3f}" for a, b in zip(now, then, strict=True)
            ]

        everything = np.full(len(easy), True)
        cells = [each("tokens", easy), each("tokens", hard), each("right", everything)]
        rows.append([label(name, arm), *(", ".join(cell) for cell in cells)])
    return table(["arm", "tokens L1-2 by seed", "tokens L4 by seed", "accuracy by seed"], rows)


def mechanism_table(arms: dict[str, Arm]) -> str:
    """How the shaping acted: means over all steps and seeds; bins and tau at the start and at the end."""
    rows = []
    for name, arm in arms.items():
        logs = [log for log in arm.logs if log]
        if not logs:
            continue

        def over(key: str, logs: list[Any] = logs) -> Array:
            return np.asarray(np.array([[record[key] for record in log] for log in logs]).mean(0))

        bins, tau, lambdas, flagged = over("bins"), over("tau"), over("lambda"), over("flagged")
        edge = max(1, len(tau) // 6)
        ends = ["/".join(f"{share:.2f}" for share in part.mean(0)) for part in (bins[:edge], bins[-edge:])]
        rows.append(
            [
                label(name, arm),
                f"{over('penalised_right').mean():.3f} / {over('penalised_wrong').mean():.3f}",
                " / ".join(f"{value:.3f}" for value in np.nanmean(lambdas, 0)),
                f"{over('flat_groups').mean():.2f}",
                " to ".join(ends),
                f"{tau[:edge].mean():.2f} to {tau[-edge:].mean():.2f}",
                f"{flagged[:edge].mean():.2f} to {flagged[-edge:].mean():.2f}",
                f"{over('kl')[-edge:].mean():.3f}",
                f"{arm.entropy:.2f}",
            ]
        )
    head = [
        "arm",
        "penalised right / wrong",
        "lambda easy / medium / hard",
        "flat groups",
        "easy/medium/hard, start to end",
    ]
    return table([*head, "tau", "flagged share", "KL at the end", "entropy, evaluation"], rows)


def ratio_table(arms: dict[str, Arm]) -> str:
    """Tokens of level 4 over those of level 1: how far thinking follows difficulty."""
    rows = []
    for name, arm in arms.items():
        tokens = [mean(arm, "tokens", (each,)).value for each in (0, 3)]
        rows.append([label(name, arm), str(len(arm.seeds)), f"{tokens[1] / tokens[0]:.2f}"])
    return table(["arm", "seeds", "L4 / L1 tokens"], rows)


def grid_table(folder: Path, task: str) -> str:
    """The window grid of the starting checkpoint."""
    rows = []
    for row in json.loads((folder / task / "sft.json").read_text())["window_grid"]:
        shown = [[f"{v:.2f}" if v is not None else "-" for v in row[key]] for key in ("hwe", "right", "wrong")]
        start = "-" if row["at_word"] is None else f"{row['at_word']:.2f}"
        cells = [str(row["w"]), str(row["q"]), f"{row['tau']:.2f}", f"{row['flagged']:.3f}", f"{row['none']:.2f}"]
        rows.append([*cells, *(" ".join(each) for each in shown), f"{start} ({row['words']:.2f})"])
    head = [
        "w",
        "q",
        "tau",
        "flagged",
        "answers with none",
        "N_HE L1-4",
        "of right",
        "of wrong",
        "starts at a word (base)",
    ]
    return table(head, rows)


MEASURE_TITLES = {
    "right": ("Accuracy", 3),
    "tokens": ("Tokens", 1),
    "rechecks": ("Useless re-checks", 2),
    "useful": ("Useful units of work (search: trials up to the first hit; chain: steps of the first pass)", 2),
    "verified": ("Verified answers (search: the answer was tried and hit; chain: some pass was slow)", 3),
    "hwe": ("HWE tokens (N_HE against the starting checkpoint's tau)", 2),
    "truncated": ("Truncated answers", 3),
}


def tables(folder: Path, task: str) -> str:
    """All tables of a task, as Markdown."""
    arms = load(folder, task)
    main = {name: arm for name, arm in arms.items() if name == "sft" or name in MAIN}
    parts = [f"## Task {task}"]
    if "grpo" in arms:
        parts += ["### Paired differences to GRPO", paired_table(arms, "grpo")]
    if {"grpo_length", "aepo_adaptive"} <= set(arms):
        parts += [
            "### aepo_adaptive against the tuned length penalty",
            paired_table({name: arms[name] for name in ("grpo_length", "aepo_adaptive")}, "grpo_length"),
        ]
    if "grpo" in arms:
        parts += ["### Seed by seed, against GRPO", seed_table(main, "grpo")]
    for measure, (title, digits) in MEASURE_TITLES.items():
        parts += [f"### {title}", level_table(arms, measure, digits)]
    parts += ["### Tokens of level 4 over level 1", ratio_table(arms)]
    longer = load(folder, task, ("long",))
    if "grpo" in longer:
        parts += ["### Trained longer: paired differences to GRPO", paired_table(longer, "grpo")]
        if {"grpo_length", "aepo_adaptive"} <= set(longer):
            both = {name: longer[name] for name in ("grpo_length", "aepo_adaptive")}
            parts += ["### Trained longer: aepo_adaptive against the length penalty", paired_table(both, "grpo_length")]
        for measure in ("right", "tokens", "rechecks", "verified", "truncated"):
            title, digits = MEASURE_TITLES[measure]
            parts += [f"### Trained longer: {title.lower()}", level_table(longer, measure, digits)]
    parts += ["### How the shaping acted", mechanism_table(arms)]
    parts += ["### Window and quantile on the starting checkpoint", grid_table(folder, task)]
    return "\n\n".join(parts)


def report(folder: Path) -> Path:
    """Write tables.md of every task that has results; its path."""
    found = [path.parent.name for path in sorted(folder.glob("*/sft.json"), reverse=True)]
    head = "# Tables\n\nMade by `python -m examples.miniature --report --output DIR` from the runs' files.\n"
    path = folder / "tables.md"
    path.write_text("\n".join([head, *(tables(folder, task) + "\n" for task in found)]))
    return path
