"""What a work folder amounts to in numbers: length against difficulty, of what was chosen and what it was chosen from.

Difficulty is 1 - p. Three series: every complete response of the pool that is chosen from, the chosen ones (adacs), and
the control set (vanilla); and the curve that the paper printed for its own data (figure 5). Intervals resample
questions (ares_eval/analysis/bootstrap.py). Whatever stage has not run yet is left out.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ares_eval import resources
from ares_eval.analysis import bootstrap
from ares_eval.analysis.bootstrap import Estimated
from ares_train.adacs import lengths, rated_rows, schemas, store, tiers
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.layout import POOLS, Layout
from ares_train.adacs.rated_rows import Rated, Rates
from ares_train.adacs.schemas import NOT_MEASURED

MOST_WEIGHTS = 40_000_000
"""Resamples times questions of one interval; with 40,000 questions or more there are fewer resamples than usual."""

FEWEST_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Tier:
    """Responses of one tier of a series. ``length`` mean tokens, ``triggers`` trigger words and ``hwe``
    high-window-entropy tokens in a thousand tokens."""

    tier: int
    questions: int
    responses: int
    length: Estimated | None
    median: float | None
    triggers: Estimated | None
    hwe: Estimated | None


@dataclass(frozen=True, slots=True)
class Series:
    """One set of responses. ``slope``: tokens from the easiest questions (p = 1) to the hardest (p = 0), least squares;
    ``spearman``: of length and 1 - p; ``away``: mean of |length - target| / target; ``tokens``: whole responses."""

    name: str
    responses: int
    tokens: int
    tiers: tuple[Tier, ...]
    slope: Estimated | None
    spearman: Estimated | None
    away: Estimated | None


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a pool said: counts of responses."""

    pool: str
    responses: int
    right: int
    wrong: int
    unverifiable: int
    not_measured: int
    truncated: int
    tokens: int


def sampled(rated: Rated) -> list[Sampled]:
    """A row a pool that has responses."""
    found = []
    for code, name in enumerate(POOLS):
        inside = rated.pool == code
        if not inside.any():
            continue
        verdicts = {value: int((rated.correct[inside] == value).sum()) for value in (1, 0, -1, NOT_MEASURED)}
        tokens = rated.tokens[inside]
        found.append(
            Sampled(
                pool=name,
                responses=int(inside.sum()),
                right=verdicts[1],
                wrong=verdicts[0],
                unverifiable=verdicts[-1],
                not_measured=verdicts[NOT_MEASURED],
                truncated=int(rated.truncated[inside].sum()),
                tokens=int(tokens[tokens >= 0].sum()),
            )
        )
    return found


def series(config: AdacsConfig, layout: Layout, rates: Rates, rated: Rated) -> list[Series]:
    """The pool's, and those of the sets that are there."""
    pool = lengths.pool_of(config)
    measured = lengths.measure(config, rated)
    everyone = (rated.pool == POOLS.index(pool)) & rated.complete & ~rated.further & (measured >= 0)
    found = [_series(f"all of the {pool}", rates, rated, measured, np.flatnonzero(everyone), None)]
    for name, path in (("adacs", layout.selected), ("vanilla", layout.vanilla)):
        if store.artifact_manifest(path).is_file():
            table = pq.read_table(path, schema=schemas.SELECTED)
            rows, kept = _rows(table, rates, rated)
            target = table["target"].to_numpy()[kept].astype(np.float64)
            found.append(_series(name, rates, rated, measured, rows, target))
    return [one for one in found if one.responses]


def _rows(table: pa.Table, rates: Rates, rated: Rated) -> tuple[np.ndarray, np.ndarray]:
    """Rows of Rated for those of a selection, and which of the selection they are: what is rated anew may be gone."""
    place = pc.fill_null(pc.index_in(table["qid"], value_set=rates.qid), -1).to_numpy().astype(np.int64)
    pool = pc.index_in(table["pool"], value_set=pa.array(POOLS)).to_numpy().astype(np.int64)
    wanted = _key(place, pool, table["draw"].to_numpy())
    keys = _key(rated.question, rated.pool, rated.draw)
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys[order], wanted), len(order) - 1)
    rows = order[at]
    kept = np.flatnonzero(keys[rows] == wanted)
    return rows[kept], kept


def _key(question: np.ndarray, pool: np.ndarray, draw: np.ndarray) -> np.ndarray:
    found: np.ndarray = (question.astype(np.int64) * len(POOLS) + pool) * 2**16 + draw
    return found


def _series(
    name: str, rates: Rates, rated: Rated, measured: np.ndarray, rows: np.ndarray, target: np.ndarray | None
) -> Series:
    question = rated.question[rows].astype(np.int64)
    length = measured[rows].astype(np.float64)
    difficulty = 1.0 - rates.p[question]
    options = {"resamples": _resamples(len(rates))}
    by_tier = []
    for tier in range(tiers.TIERS):
        inside = np.flatnonzero(rates.tier[question] == tier)
        cluster, values = question[inside], length[inside]
        by_tier.append(
            Tier(
                tier=tier,
                questions=len(np.unique(cluster)),
                responses=len(inside),
                length=bootstrap.mean(values, cluster, **options) if len(inside) else None,
                median=float(np.median(values)) if len(inside) else None,
                triggers=_density(rated.triggers[rows[inside]], rated.tokens[rows[inside]], cluster, options),
                hwe=_density(rated.hwe[rows[inside]], rated.tokens[rows[inside]], cluster, options),
            )
        )
    away = None
    if target is not None and np.isfinite(target).any():
        ruled = np.isfinite(target)
        apart = np.abs(length[ruled] - target[ruled]) / np.maximum(target[ruled], 1.0)
        away = bootstrap.mean(apart, question[ruled], **options)
    return Series(
        name=name,
        responses=len(rows),
        tokens=int(rated.tokens[rows].sum()),
        tiers=tuple(by_tier),
        slope=bootstrap.slope(difficulty, length, question, **options),
        spearman=bootstrap.spearman(difficulty, length, question, **options),
        away=away,
    )


def _density(count: np.ndarray, tokens: np.ndarray, cluster: np.ndarray, options: dict[str, int]) -> Estimated | None:
    known = (count >= 0) & (tokens > 0)
    if not known.any():
        return None
    return bootstrap.ratio(1000.0 * count[known], tokens[known].astype(np.float64), cluster[known], **options)


def _resamples(questions: int) -> int:
    return max(FEWEST_RESAMPLES, min(bootstrap.RESAMPLES, MOST_WEIGHTS // max(questions, 1)))


@lru_cache(maxsize=1)
def published() -> tuple[tuple[float, float], ...]:
    """(difficulty, mean thought length in tokens) as the paper printed them for its own data."""
    path: Path = resources.folder("results/reference") / "cold_start_lengths.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return tuple((float(row["difficulty"]), float(row["mean_thought_length"])) for row in csv.DictReader(file))


def read(layout: Layout) -> tuple[Rates, Rated] | None:
    """Rates and rated responses; None where rate has not finished."""
    parts = store.opened(layout.rated).parts()
    if not parts or not store.artifact_manifest(layout.rates).is_file():
        return None
    rates = rated_rows.read_rates(layout)
    return rates, rated_rows.read_rated(parts, rates)
