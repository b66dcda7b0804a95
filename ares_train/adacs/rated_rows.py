"""Rates and rated responses as arrays: what lengths, select and report work on. No text is ever read here.

224,000 questions with 8 responses each take about 100 MB: ids are looked up once and are numbers from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ares_train.adacs import store
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import POOLS, Layout
from ares_train.adacs.schemas import NOT_MEASURED


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of names: ``names`` in order, ``code`` int32 [Q] into them."""

    names: tuple[str, ...]
    code: np.ndarray

    @staticmethod
    def of(column: pa.ChunkedArray) -> Coded:
        found = column.combine_chunks().dictionary_encode()
        names = found.dictionary.to_pylist()
        order = np.argsort(np.array(names, dtype=object), kind="stable")
        place = np.empty(len(names), dtype=np.int32)
        place[order] = np.arange(len(names), dtype=np.int32)
        return Coded(tuple(names[i] for i in order), place[found.indices.to_numpy()])


@dataclass(frozen=True, slots=True)
class Rates:
    """The questions that have a pass rate, in ascending order of id: [Q] each. ``n_correct`` and ``n_valid`` counts of
    the estimator's draws, ``p`` their ratio, ``tier`` 0 .. 8, ``few`` whether draws were missing."""

    qid: pa.StringArray
    source: Coded
    modality: Coded
    n_valid: np.ndarray
    n_correct: np.ndarray
    p: np.ndarray
    tier: np.ndarray
    few: np.ndarray

    def __len__(self) -> int:
        return len(self.qid)


@dataclass(frozen=True, slots=True)
class Rated:
    """Responses of the questions in Rates, [R] each: ``question`` into Rates; ``pool`` into layout.POOLS; ``tokens``,
    ``think_tokens``, ``triggers``, ``hwe`` -1 where unknown; ``further``: of the draws that sample.resample asked for,
    which count in no pass rate and no median."""

    question: np.ndarray
    pool: np.ndarray
    draw: np.ndarray
    further: np.ndarray
    tokens: np.ndarray
    think_tokens: np.ndarray
    correct: np.ndarray
    truncated: np.ndarray
    well_formed: np.ndarray
    triggers: np.ndarray
    hwe: np.ndarray

    def __len__(self) -> int:
        return len(self.question)

    @property
    def complete(self) -> np.ndarray:
        """bool [R]: measured, and ended by the model."""
        found: np.ndarray = (self.correct != NOT_MEASURED) & ~self.truncated & (self.tokens >= 0)
        return found


def read_rates(layout: Layout) -> Rates:
    """Raises AdacsError where rate has not finished or nothing could be rated."""
    store.digest_or(layout.rates, "rate")
    table = pq.read_table(layout.rates).sort_by("qid")
    if not table.num_rows:
        raise AdacsError(f"no question has a pass rate ({layout.rate_drops} says why): nothing can be selected")
    return Rates(
        qid=table["qid"].combine_chunks(),
        source=Coded.of(table["source"]),
        modality=Coded.of(table["modality"]),
        n_valid=table["n_valid"].to_numpy(),
        n_correct=table["n_correct"].to_numpy(),
        p=table["p"].to_numpy(),
        tier=table["tier"].to_numpy().astype(np.int64),
        few=pc.match_substring(table["flags"], "few_valid").combine_chunks().to_numpy(zero_copy_only=False),
    )


def read_rated(paths: Sequence[Path], rates: Rates) -> Rated:
    """The rated responses of all ``paths`` to questions of ``rates``; other questions' are left out."""
    qids, columns = [], []
    for path in paths:
        table = pq.read_table(path, columns=_COLUMNS, read_dictionary=["qid", "pool", "sample_part"])
        qids.append(table["qid"])
        columns.append(_numbers(table))
    if not columns:
        raise AdacsError("no response is rated: run `ares-train adacs rate` first")
    question = _places(qids, rates)
    kept = question >= 0
    arrays = {name: np.concatenate([each[name] for each in columns])[kept] for name in columns[0]}
    return Rated(question=question[kept], **arrays)


def rated_parts(layout: Layout) -> list[Path]:
    """The finished parts of rate; AdacsError where there is none."""
    parts = store.opened(layout.rated).parts()
    if not parts:
        raise AdacsError(f"nothing is rated in {layout.rated}: run `ares-train adacs rate` first")
    return parts


_COLUMNS = [
    "qid", "pool", "draw", "tokens", "think_tokens", "correct", "truncated", "well_formed", "triggers", "hwe",
    "sample_part",
]  # fmt: skip


def _places(qids: Sequence[pa.ChunkedArray], rates: Rates) -> np.ndarray:
    """int32: each id's place in ``rates``, -1 where it is not there."""
    chunks = [chunk for column in qids for chunk in column.chunks]
    whole = pa.chunked_array(chunks, type=qids[0].type).unify_dictionaries()
    places = pc.index_in(whole.chunk(0).dictionary, value_set=rates.qid).fill_null(-1).to_numpy()
    indices = np.concatenate([chunk.indices.to_numpy() for chunk in whole.chunks])
    found: np.ndarray = places.astype(np.int32)[indices]
    return found


def _numbers(table: pa.Table) -> dict[str, np.ndarray]:
    def integers(name: str) -> np.ndarray:
        found: np.ndarray = pc.fill_null(table[name], -1).to_numpy()
        return found

    def words(name: str, of: Callable[[str], int]) -> np.ndarray:
        found = table[name].combine_chunks()
        by_code = np.array([of(word) for word in found.dictionary.to_pylist()] or [0], dtype=np.int8)
        places: np.ndarray = by_code[found.indices.to_numpy()]
        return places

    return {
        "pool": words("pool", POOLS.index),
        "further": words("sample_part", lambda path: "resample" in Path(path).parts).astype(np.bool_),
        "draw": table["draw"].to_numpy(),
        "tokens": integers("tokens"),
        "think_tokens": integers("think_tokens"),
        "correct": table["correct"].to_numpy(),
        "truncated": table["truncated"].to_numpy(),
        "well_formed": table["well_formed"].to_numpy(),
        "triggers": integers("triggers"),
        "hwe": integers("hwe"),
    }
