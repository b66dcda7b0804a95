"""Stage select: which response of which question is trained on, and the control set without the length rule.

A question may be chosen if it has a candidate: a response that is right, complete (not cut off) and well formed, of the
pool that is chosen from. Questions with p = 0 have no right response of the estimator's; ``select.zero`` says what
becomes of them: a right one of the teacher, further draws of the estimator (the tier stays 0), nothing, or, on demand
only, a wrong one. The questions are drawn uniformly over tiers (tiers.py), and of each the candidate whose length is
nearest to L_target(p) is taken (nearest.py); where its source has no length rule, any candidate.

The control set ``vanilla`` has the same questions, with any of the same candidates: the two differ by the length rule
alone. Only numbers are read, never texts. The same rated responses and seed give the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ares_eval.types import Json
from ares_train.adacs import lengths, nearest, rated_rows, schemas, store, tiers
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import POOLS, Layout
from ares_train.adacs.length_rule import Ends, LengthTable, targets
from ares_train.adacs.rated_rows import Rated, Rates
from ares_train.adacs.schemas import NOT_MEASURED, RIGHT, WRONG

ESTIMATOR, TEACHER = POOLS.index("estimator"), POOLS.index("teacher")
NOBODY = -1

NOT_DRAWN = "not_drawn"
"""The reason of questions that could have been chosen, but whose tier had more than its share."""

WHY: Mapping[str, str] = {
    "all_truncated": "every response of the estimator was cut off: neither pass rate nor length is known",
    "zero_dropped": "p = 0, and select.zero is drop",
    "zero_without_teacher": "p = 0, select.zero is teacher, and there is no teacher",
    "no_response": "the pool that is chosen from has no measured response",
    "none_right": "no response of that pool is right",
    "none_complete": "the right ones, or all that there are, were cut off",
    "none_well_formed": "the right ones are not well formed",
    NOT_DRAWN: "its tier had more questions than its share",
}
"""Reasons by which select drops questions; those of rate come besides."""


@dataclass(frozen=True, slots=True)
class Choice:
    """``reason`` int8 [Q] into the names of WHY, -1 for chosen questions; ``chosen``, ``control`` int [N] rows of
    Rated, in ascending order of questions; ``target`` float [Q] tokens."""

    reason: np.ndarray
    chosen: np.ndarray
    control: np.ndarray
    target: np.ndarray


def run(config: AdacsConfig, work: Path, note: Callable[[str], None]) -> None:
    """Write W/selected.parquet, W/vanilla.parquet, W/dropped.parquet and W/selection.json. Raises AdacsError."""
    layout = Layout(work)
    rated_as, measured = store.digest_or(layout.rates, "rate"), store.digest_or(layout.lengths, "lengths")
    parts = rated_rows.rated_parts(layout)
    settings = store.fingerprint(
        "select", config.select, lengths.pool_of(config), config.lengths.measure, config.sample.teacher is not None
    )
    inputs = [rated_as, measured, *(store.digest(path) for path in (layout.rate_drops, *parts))]
    files = [layout.selected, layout.dropped, layout.selection, *([layout.vanilla] if config.select.vanilla else [])]
    if all(store.artifact_done(file, settings, inputs) for file in files):
        note("select: done before")
        return
    # Nobody may read one file of this selection beside another of the one before.
    for file in (layout.selected, layout.vanilla, layout.dropped, layout.selection):
        store.begin_artifact(file)
    if not config.select.vanilla:
        layout.vanilla.unlink(missing_ok=True)
    rates = rated_rows.read_rates(layout)
    rated = rated_rows.read_rated(parts, rates)
    choice = choose(config, rates, rated, read_lengths(layout, rates))
    if not len(choice.chosen):
        raise AdacsError(f"nothing can be selected: {_reasons(choice)}")
    content = described(config, rates, choice)

    def keep(path: Path, table: pa.Table, schema: pa.Schema) -> None:
        store.write_artifact(path, table, settings, inputs, schema=schema)

    if config.select.vanilla:
        keep(layout.vanilla, _table(rates, rated, choice.control, choice.target, "vanilla"), schemas.SELECTED)
    keep(layout.dropped, _dropped(layout, rates, choice), schemas.DROPPED)
    store.write_artifact(layout.selection, content, settings, inputs)
    # Last: it says that all of the above is there.
    keep(layout.selected, _table(rates, rated, choice.chosen, choice.target, "adacs"), schemas.SELECTED)
    for line in content["shortfalls"]:
        note(f"select: {line}")
    note(f"select: {len(choice.chosen):,} of {len(rates):,} questions; {_reasons(choice) or 'none left out'}")


def read_lengths(layout: Layout, rates: Rates) -> LengthTable:
    """The ends that stage lengths found, in the order of ``rates.source.names``."""
    content = msgspec.json.decode(layout.lengths.read_bytes())
    found = msgspec.convert(content["sources"], dict[str, Ends])
    missing = [name for name in rates.source.names if name not in found]
    if missing:
        raise AdacsError(f"{layout.lengths} knows no source {missing[0]!r}: run `ares-train adacs lengths` again")
    return LengthTable(tuple(found[name] for name in rates.source.names), msgspec.convert(content["all"], Ends))


def choose(config: AdacsConfig, rates: Rates, rated: Rated, table: LengthTable) -> Choice:
    """The whole decision, from arrays to arrays."""
    asked = config.select
    measured = lengths.measure(config, rated)
    reason, candidate = _candidates(config, rates, rated, measured)
    rows = np.flatnonzero(candidate)
    qids = rates.qid.to_pylist()
    open_questions = np.flatnonzero(reason < 0)
    drawn = tiers.choose(
        rates.tier[open_questions],
        rates.source.code[open_questions],
        tiers.ranks([qids[i] for i in open_questions], asked.seed, "question"),
        asked.size,
        asked.per,
    )
    reason[open_questions[~drawn]] = list(WHY).index(NOT_DRAWN)
    rows = rows[reason[rated.question[rows]] < 0]
    question, draw = rated.question[rows], rated.draw[rows]
    any_candidate = rows[nearest.at_random(question, draw, tiers.ranks(qids, asked.seed, "candidate"))]
    target = targets(table, rates.source.code, rates.p)
    ruled = rows[np.isfinite(target[question])]
    by_length = ruled[nearest.nearest(rated.question[ruled], measured[ruled], rated.draw[ruled], target)]
    chosen = any_candidate.copy()
    chosen[np.searchsorted(rated.question[any_candidate], rated.question[by_length])] = by_length
    return Choice(reason, chosen, any_candidate, target)


def _candidates(config: AdacsConfig, rates: Rates, rated: Rated, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Why each question cannot be chosen, int8 [Q] (-1: it can); and which responses are candidates, bool [R]."""
    zero_policy = config.select.zero
    zero = rates.n_correct == 0
    pool = np.full(len(rates), POOLS.index(lengths.pool_of(config)), dtype=np.int8)
    pool[zero] = {"teacher": TEACHER, "drop": NOBODY}.get(zero_policy, ESTIMATOR)
    if zero_policy == "teacher" and config.sample.teacher is None:
        pool[zero] = NOBODY
    at_zero = zero[rated.question]
    known = rated.correct != NOT_MEASURED
    offered = known & (rated.pool == pool[rated.question]) & (~rated.further | (at_zero & (zero_policy == "resample")))
    right = offered & (rated.correct == RIGHT)
    if zero_policy == "allow_incorrect":
        right |= offered & at_zero & (rated.correct == WRONG)
    whole = right & rated.complete & (measured >= 0)
    candidate = whole & rated.well_formed
    rating = known & (rated.pool == ESTIMATOR) & ~rated.further

    def any_of(responses: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.bincount(rated.question[responses], minlength=len(rates)) > 0
        return found

    def all_cut(responses: np.ndarray) -> np.ndarray:
        found: np.ndarray = any_of(responses) & ~any_of(responses & ~rated.truncated)
        return found

    names = list(WHY)
    reason = np.full(len(rates), -1, dtype=np.int8)
    for name, holds in (
        ("none_well_formed", ~any_of(candidate)),
        ("none_complete", ~any_of(whole)),
        ("none_right", ~any_of(right)),
        ("none_complete", all_cut(offered)),
        ("no_response", ~any_of(offered)),
        ("zero_without_teacher", zero & (pool == NOBODY) & (zero_policy == "teacher")),
        ("zero_dropped", zero & (zero_policy == "drop")),
        ("all_truncated", all_cut(rating)),
    ):
        # From the last cause to the first: what is named is what comes first.
        reason[holds] = names.index(name)
    return reason, candidate & (reason < 0)[rated.question]


# ---------------------------------------------------------------- files


def _table(rates: Rates, rated: Rated, rows: np.ndarray, target: np.ndarray, name: str) -> pa.Table:
    question = rated.question[rows]
    wanted = target[question]
    return pa.table(
        {
            "qid": rates.qid.take(pa.array(question)),
            "pool": pa.array(POOLS).take(pa.array(rated.pool[rows])),
            "draw": rated.draw[rows],
            "source": pa.array(rates.source.names).take(pa.array(rates.source.code[question])),
            "tier": rates.tier[question],
            "p": rates.p[question],
            "target": pa.array(wanted, mask=np.isnan(wanted)),
            "tokens": rated.tokens[rows],
            "set": pa.array([name] * len(rows), pa.string()),
        }
    )


def _dropped(layout: Layout, rates: Rates, choice: Choice) -> pa.Table:
    """Questions that were not chosen, and those that rate left out, by id."""
    left_out = np.flatnonzero(choice.reason >= 0)
    ours = pa.table(
        {
            "qid": rates.qid.take(pa.array(left_out)),
            "reason": pa.array(list(WHY)).take(pa.array(choice.reason[left_out])),
        }
    )
    return pa.concat_tables([ours, pq.read_table(layout.rate_drops, schema=schemas.DROPPED)]).sort_by("qid")


def described(config: AdacsConfig, rates: Rates, choice: Choice) -> dict[str, Json]:
    """W/selection.json: counts by tier of all questions together and of each source, and what was short."""
    possible = (choice.reason < 0) | (choice.reason == list(WHY).index(NOT_DRAWN))
    taken = choice.reason < 0

    def by_tier(members: np.ndarray) -> list[dict[str, int]]:
        counts = [np.bincount(rates.tier[members & kind], minlength=tiers.TIERS) for kind in (members, possible, taken)]
        return [
            {"tier": tier, "questions": int(there), "possible": int(can), "chosen": int(did)}
            for tier, (there, can, did) in enumerate(zip(*counts, strict=True))
        ]

    everyone = np.ones(len(rates), dtype=np.bool_)
    whole = by_tier(everyone)
    return {
        "pool": lengths.pool_of(config),
        "zero": config.select.zero,
        "size": config.select.size,
        "per": config.select.per,
        "seed": config.select.seed,
        "chosen": int(taken.sum()),
        "few_valid": int((rates.few & taken).sum()),
        "tiers": whole,
        "sources": {name: by_tier(rates.source.code == code) for code, name in enumerate(rates.source.names)},
        "reasons": {name: int((choice.reason == number).sum()) for number, name in enumerate(WHY)},
        "shortfalls": _shortfalls(config.select.size, whole),
    }


def _shortfalls(size: int | None, rows: list[dict[str, int]]) -> list[str]:
    most = max(row["chosen"] for row in rows)
    total = sum(row["chosen"] for row in rows)
    lines = [
        f"tier {row['tier']}/8 gives {row['chosen']:,} of {row['questions']:,} questions, others up to {most:,}"
        for row in rows
        if row["chosen"] < most - 1
    ]
    if size is not None and total < size:
        lines.append(f"{total:,} of the {size:,} rows that select.size asks for")
    return lines


def _reasons(choice: Choice) -> str:
    counts = {name: int((choice.reason == number).sum()) for number, name in enumerate(WHY)}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
