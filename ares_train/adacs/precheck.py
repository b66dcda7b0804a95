"""What can be known to fail is refused before anything is written or asked: settings, files, tokenizers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ares_eval.config import ConfigError
from ares_eval.types import Json
from ares_train.adacs import store, traces
from ares_train.adacs.config import AdacsConfig, PoolConfig
from ares_train.adacs.errors import AdacsError
from ares_train.adacs.layout import Layout

_SECRET = re.compile(r"://[^/?#\s]*@")
"""User, and password perhaps, within a URL."""


def check(config: AdacsConfig, work: Path, stages: Sequence[str]) -> None:
    """Raises AdacsError for settings that one of ``stages`` could not work with."""
    for name, text in _texts(config.settings()):
        if _SECRET.search(text):
            raise AdacsError(
                f"{name}: this URL holds a user or a password, which would be kept in {Layout(work).config} and the "
                "report; leave it out (keys of models: api_key_env)"
            )
    pools = [("estimator", config.sample.estimator)]
    if config.sample.teacher is not None:
        pools.append(("teacher", config.sample.teacher))
    if "sample" in stages:
        for name, pool in pools:
            _check_pool(name, pool)
        if "rate" in stages and config.rate.tokenizer is None:
            for name, pool in pools:
                if not pool.traces or any(each.tokens is None for each in pool.traces):
                    raise AdacsError(
                        f"rate.tokenizer must name the student's: replies of sample.{name} come without lengths"
                    )
    if "write" in stages:
        write_tokenizer(config)
    if len(stages) > 1:
        _check_tokenizers(config, Layout(work), stages)


def write_tokenizer(config: AdacsConfig) -> str | None:
    """Whose template rows are checked with; None where no row is. Raises AdacsError."""
    name = config.write.tokenizer or config.rate.tokenizer
    if config.write.check and name is None:
        raise AdacsError(
            "write.tokenizer must name the student, whose template rows are checked with (or write.check: 0)"
        )
    return name if config.write.check else None


def _check_pool(name: str, pool: PoolConfig) -> None:
    try:
        if pool.traces:
            for each in pool.traces:
                traces.files_of(each)
        else:
            pool.run_config()
    except (AdacsError, ConfigError) as error:
        raise AdacsError(f"sample.{name}.{error}") from error


def _check_tokenizers(config: AdacsConfig, layout: Layout, stages: Sequence[str]) -> None:
    """Load those of stages that are still to come after others, as the stages themselves would."""
    from ares_train.adacs import counting, template_check

    def to_do(stage: str, last: Path) -> bool:
        return stage in stages and not store.artifact_manifest(last).is_file()

    if config.rate.tokenizer is not None and to_do("rate", layout.rates):
        counting.TokenCounter(config.rate.tokenizer, config.rate.tokenizer_revision)
    student = write_tokenizer(config) if to_do("write", layout.sft_report) else None
    if student is not None:
        template_check.load(student, config.rate.tokenizer_revision, config.write.max_length)


def _texts(value: Json, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text of the settings with its name."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _texts(inner, f"{name}[{place}]")
