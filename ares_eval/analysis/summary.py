"""``analyse(run)``: everything that an analysis tells, as one value that reports, viewers and gates read.

An Analysis is made of frozen dataclasses and can be written as JSON and read back (``write``, ``read``). A section that
a run does not allow is None, and ``not_recorded`` of the same object says why, by the section's name. ``overall`` pools
all draws of the run; its difficulty is that of each task, so pooled curves mix kinds where tasks do (``kind`` says so).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ares_eval.analysis import bootstrap
from ares_eval.analysis.adaptivity import Adaptivity, Regression, adaptivity, regression
from ares_eval.analysis.bootstrap import Estimated
from ares_eval.analysis.budgets import Budgets, budgets
from ares_eval.analysis.difficulty import TIERS, Difficulty, pooled
from ares_eval.analysis.lengths import Lengths, length_of, lengths
from ares_eval.analysis.observe import Observed, Options, observe
from ares_eval.analysis.thinking import Thinking, thinking
from ares_eval.analysis.tokens import TokenFigures
from ares_eval.analysis.window_study import WindowStudy
from ares_eval.records import Run, RunError
from ares_eval.types import Json

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
"""Version of analysis.json."""

FILE = "analysis.json"

OVERALL = "overall"
"""Name of the pooled draws of all tasks."""


@dataclass(frozen=True, slots=True)
class Entropy:
    """What the token entropies of a run are. ``estimator``: of the traces; ``estimate``: which of its values is used.
    ``tau``: the mean of the thresholds (one value unless ``per_question``), in nats; ``flagged``: share of tokens whose
    window reaches it; ``mean``: mean token entropy."""

    estimator: str
    estimate: str
    top: int
    vocabulary: int | None
    replies: int
    tokens: int
    tau: float
    mean: float
    flagged: float


@dataclass(frozen=True, slots=True)
class HweFigures:
    """HWE of some draws, per reply: N_HE, merged windows, those with a trigger word, place of the first position (of
    replies that have one) in tokens and ``any``, the share of such replies; density per token; by correctness; by part
    of the reply, where it has one for thinking; and the regression of length on N_HE."""

    count: Estimated
    windows: Estimated | None
    confirmed: Estimated | None
    first: Estimated | None
    any: Estimated | None
    density: Estimated | None
    entropy: Estimated | None
    right: Estimated | None
    wrong: Estimated | None
    think_density: Estimated | None
    answer_density: Estimated | None
    regression: Regression | None


@dataclass(frozen=True, slots=True)
class Ladder:
    """The difficulty that was used: ``kind`` (level, pass_rate, run:NAME, or mixed), its ``rungs`` from easy to hard,
    draws in each of the tiers easy, medium, hard, and draws without a difficulty."""

    kind: str
    rungs: tuple[str, ...]
    tiers: Mapping[str, int]
    unknown: int
    note: str


@dataclass(frozen=True, slots=True)
class TaskAnalysis:
    """All sections of one task (or of ``overall``)."""

    name: str
    draws: int
    questions: int
    accuracy: Estimated
    lengths: Lengths
    difficulty: Ladder | None
    adaptivity: Adaptivity | None
    hwe: HweFigures | None
    thinking: Thinking
    budgets: Budgets | None
    not_recorded: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Analysis:
    """A run's analysis. ``not_measured``: draws that have no reply and are left out everywhere."""

    format: int
    run: str
    model: str | None
    options: Options
    measured: int
    not_measured: int
    tasks: tuple[TaskAnalysis, ...]
    overall: TaskAnalysis
    entropy: Entropy | None
    window_study: WindowStudy | None
    not_recorded: Mapping[str, str]
    notes: tuple[str, ...]


def analyse(run: Run, options: Options | None = None, *, reference: Run | None = None) -> Analysis:
    """Everything about one run. RunError where nothing was measured, ValueError for an option that is none.

    ``reference``: the run that decides difficulty, for ``difficulty="run"``.
    """
    options = options or Options()
    return summed_up(run, observe(run, options, reference=reference), options)


def summed_up(run: Run, seen: Observed, options: Options) -> Analysis:
    """The analysis of a run that was observed with the same options."""
    import numpy as np

    draws = seen.draws
    everything = np.arange(len(draws))
    return Analysis(
        format=FORMAT,
        run=run.folder.name,
        model=run.manifest.get("model"),
        options=options,
        measured=len(draws),
        not_measured=sum(not record.measured for record in run.records()),
        tasks=tuple(_task(name, draws.of_task(name), seen, options) for name in draws.tasks),
        overall=_task(OVERALL, everything, seen, options),
        entropy=None if seen.tokens is None else _entropy(seen.tokens),
        window_study=seen.window_study,
        not_recorded={name: why for name, why in seen.not_recorded.items() if ":" not in name},
        notes=seen.notes,
    )


def remarks(analysis: Analysis) -> list[str]:
    """What is missing and why, and what a reader must know of the numbers, a line each."""
    lines = []
    entropy = analysis.entropy
    if entropy is not None:
        options = analysis.options.tokens
        source = "exact" if entropy.estimate == "exact" else f"{entropy.estimate} estimate, top {entropy.top}"
        tau = "given" if options.tau_value is not None else f"{options.tau}, percentile {options.percentile:g}"
        lines.append(
            f"HWE: window {options.window}, tau {entropy.tau:.4f} nats ({tau}), {source}; "
            f"{100 * entropy.flagged:.2f} % of {entropy.tokens:,} tokens flagged"
        )
    lines += analysis.notes
    lines += [f"not recorded: {name}: {why}" for name, why in analysis.not_recorded.items()]
    for task in analysis.tasks:
        if "difficulty" in task.not_recorded:
            lines.append(f"not recorded: difficulty of {task.name}: {task.not_recorded['difficulty']}")
        elif task.difficulty is not None and task.difficulty.note:
            lines.append(f"difficulty of {task.name}: {task.difficulty.note}")
    if analysis.not_measured:
        lines.append(f"{analysis.not_measured} draws were not measured and are left out")
    return lines


def write(analysis: Analysis, path: Path) -> None:
    """Write ``analysis`` as JSON, whole or not at all."""
    import msgspec

    data = msgspec.json.format(msgspec.json.encode(analysis, order="deterministic"), indent=1) + b"\n"
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def read(path: Path) -> Analysis:
    """An Analysis that was written; RunError where the file is none of this format."""
    import msgspec

    try:
        return msgspec.json.decode(path.read_bytes(), type=Analysis)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    except msgspec.MsgspecError as error:
        raise RunError(f"{path} is no analysis of this version: {error}") from None


def as_json(analysis: Analysis) -> Json:
    """The same as plain JSON values."""
    import msgspec

    return msgspec.to_builtins(analysis)


# ---------------------------------------------------------------- sections


def _entropy(figures: TokenFigures) -> Entropy:
    import numpy as np

    known = ~np.isnan(figures.tokens)
    tokens = figures.tokens[known]
    weights = tokens > 0
    total = float(tokens.sum())
    mean = float((figures.mean[known][weights] * tokens[weights]).sum() / total) if total else 0.0
    return Entropy(
        estimator=figures.estimator,
        estimate=figures.estimate,
        top=figures.top,
        vocabulary=figures.vocabulary,
        replies=int(known.sum()),
        tokens=int(total),
        tau=float(np.nanmean(figures.tau)) if np.isfinite(figures.tau).any() else 0.0,
        mean=mean,
        flagged=float(figures.hwe[known].sum() / total) if total else 0.0,
    )


def _task(name: str, rows: np.ndarray, seen: Observed, options: Options) -> TaskAnalysis:
    import numpy as np

    draws = seen.draws
    cluster, right = draws.cluster[rows], draws.right[rows]
    length, unit = length_of(draws, rows)
    missing: dict[str, str] = {}
    ladder = _ladder(name, rows, seen, missing)
    figures = None if seen.tokens is None else _hwe(seen.tokens, rows, right, length, cluster, options.resamples)
    if figures is None:
        missing["hwe"] = seen.not_recorded.get("entropy", "no reply of this task has a token trace")
    trails = None if seen.trails is None else [seen.trails[i] for i in rows.tolist()]
    if trails is None:
        missing["trails"] = seen.not_recorded["trails"]
    curve = None
    if ladder is not None:
        columns: dict[str, np.ndarray] = {}
        if figures is not None and seen.tokens is not None:
            tokens = seen.tokens
            columns = {"hwe": tokens.hwe[rows], "density": tokens.density[rows], "confirmed": tokens.confirmed[rows]}
        curve = adaptivity(
            ladder, length, right, cluster, draws.question[rows], unit=unit, resamples=options.resamples, **columns
        )
        if curve.target is None:
            missing["target"] = "AdaCS's L(p) needs pass rates with both 0 and 1 among them"
    accuracy = bootstrap.share(right, cluster)
    if accuracy is None:
        raise RunError(f"task {name} has no measured draw")
    return TaskAnalysis(
        name=name,
        draws=len(rows),
        questions=len(np.unique(draws.question[rows])),
        accuracy=accuracy,
        lengths=lengths(draws, rows, ladder, tokenizer=options.tokenizer, resamples=options.resamples),
        difficulty=None if ladder is None else _described(ladder),
        adaptivity=curve,
        hwe=figures,
        thinking=thinking(
            seen.texts.of(rows),
            length,
            right,
            draws.wrong[rows],
            draws.truncated[rows],
            None if ladder is None else ladder.tier,
            cluster,
            trails,
            unit=unit,
            resamples=options.resamples,
        ),
        budgets=budgets(length, right, cluster, trails, unit=unit),
        not_recorded=missing,
    )


def _ladder(name: str, rows: np.ndarray, seen: Observed, missing: dict[str, str]) -> Difficulty | None:
    """The difficulty of one task, or of all of them pooled."""
    found = seen.difficulty.get(name)
    if name == OVERALL:
        tasks = [(seen.draws.of_task(task), part) for task, part in seen.difficulty.items()]
        found = pooled(tasks, len(rows)) if tasks else None
    if found is None:
        reasons = {key.partition(":")[2]: why for key, why in seen.not_recorded.items() if key[:11] == "difficulty:"}
        missing["difficulty"] = reasons.get(name) or "; ".join(f"{task}: {why}" for task, why in reasons.items())
    return found


def _described(ladder: Difficulty) -> Ladder:
    tiers = {name: int((ladder.tier == i).sum()) for i, name in enumerate(TIERS)}
    return Ladder(ladder.kind, ladder.rungs, tiers, int((ladder.tier < 0).sum()), ladder.note)


def _hwe(
    tokens: TokenFigures, rows: np.ndarray, right: np.ndarray, length: np.ndarray, cluster: np.ndarray, resamples: int
) -> HweFigures | None:
    import numpy as np

    counts = tokens.hwe[rows]
    known = ~np.isnan(counts)

    def average(values: np.ndarray, kept: np.ndarray | None = None) -> Estimated | None:
        chosen = known if kept is None else known & kept
        return bootstrap.mean(values[chosen], cluster[chosen], resamples=resamples)

    def density(hits: np.ndarray, sizes: np.ndarray) -> Estimated | None:
        chosen = ~np.isnan(sizes)
        return bootstrap.ratio(hits[chosen], sizes[chosen], cluster[chosen], resamples=resamples)

    count = average(counts)
    if count is None:
        return None
    return HweFigures(
        count=count,
        windows=average(tokens.windows[rows]),
        confirmed=average(tokens.confirmed[rows]),
        first=average(tokens.first[rows]),
        any=bootstrap.share(counts[known] > 0, cluster[known]),
        density=density(counts, tokens.tokens[rows]),
        entropy=average(tokens.mean[rows]),
        right=average(counts, right),
        wrong=average(counts, ~right),
        think_density=density(tokens.think_hwe[rows], tokens.think_tokens[rows]),
        answer_density=density(tokens.answer_hwe[rows], tokens.answer_tokens[rows]),
        regression=regression(length, counts, cluster, resamples=resamples),
    )
