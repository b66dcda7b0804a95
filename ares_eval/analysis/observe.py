"""``observe(run)``: a run's draws as columns with everything known of each, ready for analyses and comparisons.

Draws, their token figures, the difficulty of their questions, the answers inside them. Reads the run's folder only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ares_eval.analysis import bootstrap
from ares_eval.analysis.columns import Draws, draws_of, recounted
from ares_eval.analysis.difficulty import (
    Difficulty,
    NoDifficulty,
    from_levels,
    from_own_pass_rate,
    from_reference,
    pass_counts,
)
from ares_eval.analysis.lengths import length_of
from ares_eval.analysis.thinking import TextFigures, text_figures
from ares_eval.analysis.tokens import NotRecorded, TokenFigures, TokenOptions, TokenSource
from ares_eval.analysis.trail import Trail, TrailReader, whole_text
from ares_eval.analysis.window_study import WindowStudy, WindowStudyCounter
from ares_eval.analysis.words import DEFAULT_LIST, read_words
from ares_eval.records import Run, RunError


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is analysed. ``difficulty``: auto (level where the dataset has one, else own pass rate), level,
    pass_rate, or run:FOLDER (another run's pass rates). ``cross_fit``: see difficulty.CROSS_FITS. ``answers``: whether
    answers inside replies are verified (trail.py). ``trigger_words``: a file; the list in the package else."""

    tokens: TokenOptions = field(default_factory=TokenOptions)
    difficulty: str = "auto"
    cross_fit: str = "leave_one_out"
    tokenizer: str | None = None
    trigger_words: str | None = None
    answers: bool = True
    resamples: int = bootstrap.RESAMPLES


@dataclass(frozen=True, slots=True)
class Observed:
    """The columns of a run, one row a draw, N in all.

    ``tokens``: None where no log-probs are recorded. ``difficulty``: of each task that has one, aligned with
    ``draws.of_task(task)``. ``trails``: None where answers inside replies were not verified. ``not_recorded``: why
    something is missing, by ``entropy``, ``trails``, or ``difficulty:TASK``.
    """

    draws: Draws
    tokens: TokenFigures | None
    difficulty: Mapping[str, Difficulty]
    trails: tuple[Trail, ...] | None
    texts: TextFigures
    window_study: WindowStudy | None
    not_recorded: Mapping[str, str]
    notes: tuple[str, ...]


def observe(run: Run, options: Options | None = None, *, reference: Run | None = None, study: bool = True) -> Observed:
    """The columns of a run. RunError where nothing was measured, ValueError for an option that is none.

    ``reference``: the run that decides difficulty, for ``run`` (else it is read from the folder that the option names).
    ``study=False`` leaves the window study out.
    """
    options = options or Options()
    options.tokens.check()
    draws = draws_of(run.records())
    if not len(draws):
        raise RunError(f"{run.folder}: no draw was measured, so there is nothing to analyse")
    if options.tokenizer is not None:
        draws = recounted(draws, options.tokenizer)
    words = read_words(Path(options.trigger_words) if options.trigger_words else DEFAULT_LIST)
    missing: dict[str, str] = {}
    difficulty = _difficulties(draws, options, reference, missing)
    source = figures = found = None
    try:
        source = TokenSource(run, draws, options.tokens)
        counting = WindowStudyCounter() if study else None
        figures = source.figures(words, counting)
        found = counting.study(words) if counting is not None else None
    except NotRecorded as error:
        source = figures = None
        missing["entropy"] = str(error)
    trails = _trails(draws, source) if options.answers else None
    if trails is None:
        missing["trails"] = "answers inside replies were not verified (--no-answers)"
    texts = text_figures([whole_text(record, None) for record in draws.records])
    return Observed(draws, figures, difficulty, trails, texts, found, missing, figures.notes if figures else ())


def _difficulties(
    draws: Draws, options: Options, reference: Run | None, missing: dict[str, str]
) -> dict[str, Difficulty]:
    """Of each task that has one; ``missing`` takes the reasons of the others."""
    kind, _, folder = options.difficulty.partition(":")
    counts, name = None, ""
    if kind == "run":
        if reference is None:
            from ares_eval.records import load_run

            if not folder:
                raise ValueError("difficulty 'run' needs the folder of a run: run:FOLDER")
            reference = load_run(folder)
        counts, name = pass_counts(draws_of(reference.records())), reference.folder.name
    elif options.difficulty not in ("auto", "level", "pass_rate"):
        raise ValueError(f"no difficulty {options.difficulty!r}; there are auto, level, pass_rate, run:FOLDER")
    found = {}
    for task in draws.tasks:
        try:
            if counts is not None:
                found[task] = from_reference(draws, draws.of_task(task), counts, name)
            else:
                found[task] = _own_difficulty(draws, task, kind, options.cross_fit)
        except NoDifficulty as error:
            missing[f"difficulty:{task}"] = str(error)
    return found


def _own_difficulty(draws: Draws, task: str, kind: str, cross_fit: str) -> Difficulty:
    """By level, by pass rate, or by whichever of them there is."""
    import numpy as np

    rows = draws.of_task(task)
    records = [draws.records[i] for i in rows.tolist()]
    reasons = []
    if kind in ("auto", "level"):
        try:
            return from_levels([record.level for record in records])
        except NoDifficulty as error:
            reasons.append(str(error))
    if kind in ("auto", "pass_rate"):
        numbers = np.array([record.draw for record in records])
        try:
            return from_own_pass_rate(draws.question[rows], numbers, draws.right[rows], cross_fit)
        except NoDifficulty as error:
            reasons.append(str(error))
    raise NoDifficulty("; ".join(reasons))


def _trails(draws: Draws, source: TokenSource | None) -> tuple[Trail, ...]:
    """The verified answers inside every reply, in the order of ``draws``."""
    import numpy as np

    from ares_eval.verify import Verifier

    sizes, _ = length_of(draws, np.arange(len(draws)))
    with Verifier() as verifier:
        reader = TrailReader(verifier)
        waiting = []
        for i, (record, size) in enumerate(zip(draws.records, sizes.tolist(), strict=True)):
            waiting.append(reader.submit(record, None if source is None else source.texts(i), size))
        return tuple(collect() for collect in waiting)
