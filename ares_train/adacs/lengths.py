"""Stage lengths: L(0) and L(1) of every source, from the rated responses of the pool that is chosen from.

Both ends are of one pool (select.pool), since a target between them must be on the scale of what is chosen: the
teacher's responses where its traces are trained on, else the estimator's own. What a question is (p) is always the
estimator's. Wrong responses count: at p = 0 an estimator has no other. Thinking alone can be measured instead of the
whole response (lengths.measure). length_rule.py has the rule, its fallbacks and their names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np

from ares_eval.types import Json
from ares_train.adacs import length_rule, rated_rows, store
from ares_train.adacs.config import AdacsConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import POOLS, Layout, Pool
from ares_train.adacs.length_rule import Ends, LengthTable
from ares_train.adacs.rated_rows import Rated, Rates


def pool_of(config: AdacsConfig) -> Pool:
    """Whose responses are chosen among."""
    if config.select.pool is not None:
        return config.select.pool
    return "estimator" if config.sample.teacher is None else "teacher"


def run(config: AdacsConfig, work: Path, note: Callable[[str], None]) -> None:
    """Write W/lengths.json; what is odd goes to ``note`` too. Raises AdacsError."""
    layout = Layout(work)
    rated_as = store.digest_or(layout.rates, "rate")
    parts = rated_rows.rated_parts(layout)
    settings = store.fingerprint("lengths", config.lengths, pool_of(config), tokenizer(config, layout))
    inputs = [rated_as, *map(store.digest, parts)]
    if store.artifact_done(layout.lengths, settings, inputs):
        note("lengths: done before")
        return
    rates = rated_rows.read_rates(layout)
    rated = rated_rows.read_rated(parts, rates)
    found = find(config, rates, rated)
    content = described(config, layout, rates, found)
    store.write_artifact(layout.lengths, content, settings, inputs)
    for line in content["warnings"]:
        note(f"lengths: {line}")
    note(f"lengths: {len(found.sources)} sources, {sum(ends.rule for ends in found.sources)} with a length rule")


def find(config: AdacsConfig, rates: Rates, rated: Rated) -> LengthTable:
    """The ends of every source, in the order of ``rates.source.names``."""
    asked = (rated.pool == POOLS.index(pool_of(config))) & ~rated.further
    if not asked.any():
        raise AdacsError(f"no response of the {pool_of(config)} is rated: lengths cannot be measured")
    measured = measure(config, rated)
    responses = length_rule.Responses(
        question=rated.question[asked],
        length=measured[asked],
        usable=(rated.complete & (measured >= 0))[asked],
        truncated=rated.truncated[asked],
    )
    questions = length_rule.Questions(rates.source.code, rates.modality.code, rates.p)
    settings = config.lengths
    return length_rule.find(
        responses,
        questions,
        len(rates.source.names),
        fewest=settings.min_questions,
        inverted=settings.inverted,
    )


def measure(config: AdacsConfig, rated: Rated) -> np.ndarray:
    """Tokens of each response [R] as lengths.measure has them; -1 where unknown."""
    found: np.ndarray = getattr(rated, config.lengths.measure)
    return found


def tokenizer(config: AdacsConfig, layout: Layout) -> str:
    """The name of the tokenizer that lengths are counted by."""
    try:
        report = msgspec.json.decode(layout.rate_report.read_bytes())
    except FileNotFoundError:
        report = {}
    return str(report.get("tokenizer") or config.rate.tokenizer or "as recorded")


# ---------------------------------------------------------------- lengths.json


def described(config: AdacsConfig, layout: Layout, rates: Rates, found: LengthTable) -> dict[str, Json]:
    """All of it as JSON."""
    by_source = dict(zip(rates.source.names, found.sources, strict=True))
    return {
        "pool": pool_of(config),
        "measure": config.lengths.measure,
        "tokenizer": tokenizer(config, layout),
        "min_questions": config.lengths.min_questions,
        "inverted": config.lengths.inverted,
        "sources": {name: asdict(ends) for name, ends in by_source.items()},
        "all": asdict(found.whole),
        "warnings": [line for name, ends in by_source.items() for line in _odd(name, ends, config.lengths.inverted)],
    }


def _odd(name: str, ends: Ends, policy: str) -> list[str]:
    lines = []
    for end, origin, behind in (("L(0)", ends.l0_from, ends.hard), ("L(1)", ends.l1_from, ends.easy)):
        if origin == "none":
            lines.append(f"{name}: nothing gives {end}, so its responses are chosen without a length rule")
        elif origin != "source":
            lines.append(f"{name}: {end} is {_WORDS[origin]} ({behind.questions} questions of its own)")
        if behind.truncated:
            lines.append(f"{name}: {behind.truncated} responses behind {end} were cut off and are left out")
    if "inverted" in ends.flags:
        lines.append(
            f"{name}: L(0) <= L(1), often a sign of truncation; by inverted: {policy} {_AFTER[ends.rule, policy]}"
        )
    return lines


_WORDS = {
    "modality": "the median of its modality",
    "global": "the median of all sources",
    "fit_source": "on the line through its other pass rates",
    "fit_global": "on the line through all other pass rates",
}

_AFTER = {
    (False, "skip_rule"): "it has no length rule",
    (False, "global"): "it would take those of all sources, which are no better: no length rule",
    (True, "global"): "it takes those of all sources",
    (True, "keep"): "they are kept",
}
