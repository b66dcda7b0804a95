"""What an AdaCS pipeline is asked to do: one YAML file with a section a stage, and `--set section.key=value` over it.

Names are checked with near misses, values by type and range; what contradicts itself is refused with the reason. The
settings under ``ask`` are those of `ares-eval` with the same names. No secret is part of it: keys come from the
environment variable that ``api_key_env`` names.
"""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ares_eval import config as run_settings
from ares_eval.config import ConfigError, RunConfig, read_yaml
from ares_eval.types import Json
from ares_train.adacs import answer_policy
from ares_train.adacs.store import plain

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seed = Annotated[int, Meta(ge=-(2**62), le=2**62)]

ASKED_WITH = (
    "model_name",
    "model_revision",
    "openai_base_url",
    "transport",
    "serve",
    "serve_args",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "reasoning_effort",
    "logprobs",
    "vocabulary_size",
    "extra_body",
    "stop",
    "stream",
    "system_prompt",
    "prompt_style",
    "min_pixels",
    "max_pixels",
    "eval_threads",
    "max_retries",
    "timeout",
    "cache_dir",
    "no_cache",
)
"""The settings of `ares-eval` that say how a model is asked; the rest of them are about benchmarks."""


# ---------------------------------------------------------------- ingest


@dataclass(frozen=True, kw_only=True)
class FieldsConfig:
    """Which column of a source holds what; null: there is none."""

    question: str | None = "question"
    messages: str | None = None
    """Chat turns instead of a question; a last assistant turn is left out."""
    images: str | None = "images"
    answer: str | None = "answer"
    """A text, a number, or a list of accepted answers."""
    choices: str | None = None
    """Option texts: a list, or a mapping of letters."""
    answer_type: str | None = None
    answer_policy: str | None = None
    id: str | None = None
    source: str | None = None
    """Column that names the source of a row, where a file mixes several."""
    extra: tuple[str, ...] = ()
    """Columns kept as they are (ready-made pass rates, categories, ...)."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Questions of one origin: ``path`` (JSONL, JSON, parquet, a glob of those, a folder in the Hub's form) or ``hub``
    (a dataset's id)."""

    name: str
    path: str | None = None
    hub: str | None = None
    config: str | None = None
    """Config of a Hub dataset or folder."""
    split: str = "train"
    revision: str = "main"
    fields: FieldsConfig = FieldsConfig()
    image_root: Path | None = None
    """Folder that picture paths are relative to [the folder of the source's file]."""
    answer_type: str = "auto"
    answer_policy: dict[str, Any] = field(default_factory=dict)
    limit: Count | None = None
    """Only the first so many rows."""


@dataclass(frozen=True, kw_only=True)
class ContaminationConfig:
    """Which benchmarks the questions are held against, and what counts as a match (contamination.py)."""

    tasks: str = "all"
    """Tasks and suites by comma; all: every task of `tasks/` but the smoke tests; none: no check."""
    dataset_dir: Path | None = None
    require_all: bool = False
    """Refuse to go on where a benchmark's data cannot be had."""
    ngram: Annotated[int, Meta(ge=5, le=50)] = 13
    short_ngram: Annotated[int, Meta(ge=3, le=50)] = 7
    overlap: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.5
    short_overlap: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.7
    picture_bits: Annotated[int, Meta(ge=0, le=20)] = 8
    picture_correlation: Share = 0.97
    cache_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """From sources to question parts."""

    sources: Annotated[tuple[SourceConfig, ...], Meta(min_length=1)]
    contamination: ContaminationConfig = ContaminationConfig()
    part_rows: Annotated[int, Meta(ge=1, le=100_000)] = 1024
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    """Processes that read pictures and compare with benchmarks."""


# ---------------------------------------------------------------- sample


@dataclass(frozen=True, kw_only=True)
class TracesConfig:
    """Ready-made responses: JSONL or parquet files with a response and what names its question."""

    path: str
    """A file or a glob."""
    response: str = "response"
    """Column with the response, or a list of responses."""
    reasoning: str | None = None
    qid: str | None = None
    """Column with our question ids; else the question is found by ``id`` (and ``source``), else by its text."""
    id: str | None = None
    source: str | None = None
    question: str | None = None
    finish_reason: str | None = None
    correct: str | None = None
    """Column with recorded verdicts (true, false, 1, 0, null): they are not made anew."""
    tokens: str | None = None
    """Column with lengths under rate.tokenizer: they are not counted anew."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Who answers: a model, asked as ``ask`` says, or ready-made ``traces``."""

    ask: dict[str, Any] = field(default_factory=dict)
    api_key_env: str = "OPENAI_API_KEY"
    draws: Annotated[int, Meta(ge=1, le=1000)] = 8
    traces: tuple[TracesConfig, ...] = ()
    engine: Literal["server", "vllm"] = "server"
    """vllm: offline batches through ray.data.llm (needs executor ray, GPUs and vLLM)."""
    vllm: dict[str, Any] = field(default_factory=dict)
    """Engine arguments of vLLM for engine vllm (tensor_parallel_size, max_model_len, ...)."""

    def run_config(self) -> RunConfig:
        """The settings under ``ask`` as `ares-eval` has them, key included. Raises ConfigError."""
        flags: dict[str, Any] = {name.replace("-", "_"): value for name, value in self.ask.items()}
        for name in flags.keys() - set(ASKED_WITH):
            near = difflib.get_close_matches(name, ASKED_WITH, n=3, cutoff=0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(f"ask: {name!r} does not say how a model is asked{hint}")
        key = os.environ.get(self.api_key_env)
        if key:
            flags["openai_api_key"] = key
        if flags.get("serve") and not flags.get("model_name"):
            from ares_eval.inference.servers import parse_spec, served_name

            flags["model_name"] = served_name(parse_spec(str(flags["serve"])))
        found = run_settings.load(flags)
        if not found.model_name:
            raise ConfigError("ask: needs model_name (or serve)")
        return found


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """``estimator``: its pass rate is difficulty. ``teacher``: its traces may be trained on (else the estimator's)."""

    estimator: PoolConfig = PoolConfig()
    teacher: PoolConfig | None = None
    executor: Literal["local", "ray"] = "local"
    workers: Annotated[int, Meta(ge=1, le=4096)] = 2
    """Parts that are asked at the same time under executor ray."""
    ray_address: str | None = None
    """A running cluster; null: Ray is started here."""
    resample: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Further draws for questions that the estimator never got right (select.zero: resample)."""
    max_lost: Share = 0.1
    """Largest share of a part's draws that may stay unmeasured in a finished part."""


# ---------------------------------------------------------------- rate


@dataclass(frozen=True, kw_only=True)
class RateConfig:
    """Verdicts, lengths and pass rates."""

    tokenizer: str | None = None
    """Hugging Face id or folder of the student's tokenizer; may be left out where samples have recorded lengths."""
    tokenizer_revision: str | None = None
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    """Parts that are rated at the same time."""
    min_valid: Count = 4
    """Questions with fewer verdicts of right or wrong have no pass rate (all draws, where fewer are asked for)."""
    require_box: bool = False
    require_think: bool = False
    trust_source: tuple[str, ...] = ()
    """Sources whose teacher traces count as right where rules cannot tell; their questions need no reference.

    Without references every draw of the estimator is unverifiable too, so that p must come from recorded verdicts
    (``correct`` of its traces): a question without p is not selected.
    """
    window: Count = 4
    quantile: Share = 0.95
    partial: bool = False
    """Rate the parts that are sampled, though others are not."""


# ---------------------------------------------------------------- lengths, select, write, report


@dataclass(frozen=True, kw_only=True)
class LengthsConfig:
    """L(0) and L(1) of each source."""

    measure: Literal["tokens", "think_tokens"] = "tokens"
    min_questions: Count = 20
    """Fewer questions behind a median: the next wider group's is taken."""
    inverted: Literal["skip_rule", "global", "keep"] = "skip_rule"
    """What a source with L(0) <= L(1) does."""


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Which response of which question is trained on."""

    pool: Literal["estimator", "teacher"] | None = None
    """Whose responses are chosen among, and give L(0) and L(1); null: the teacher's where there is one."""
    size: Count | None = None
    """Responses in the set; null: as many as uniform tiers give."""
    per: Literal["source", "global"] = "global"
    zero: Literal["teacher", "resample", "drop", "allow_incorrect"] = "teacher"
    """Questions with p = 0, for which the estimator has no right answer."""
    vanilla: bool = True
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class WriteConfig:
    """verl's SFT files."""

    tokenizer: str | None = None
    """Tokenizer or processor whose template rows are checked with [rate.tokenizer]."""
    system_prompt: str | None = None
    """[the prompt of sample.estimator]"""
    prompt_style: Literal["system", "user-suffix"] | None = None
    max_length: Count = 32_768
    check: Share = 1.0
    """Share of rows that are checked with the tokenizer's template, by seed."""
    val_share: Share = 0.0
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """The report."""

    title: str = "AdaCS"


@dataclass(frozen=True, kw_only=True)
class AdacsConfig:
    """All of it."""

    ingest: IngestConfig
    sample: SampleConfig = SampleConfig()
    rate: RateConfig = RateConfig()
    lengths: LengthsConfig = LengthsConfig()
    select: SelectConfig = SelectConfig()
    write: WriteConfig = WriteConfig()
    report: ReportConfig = ReportConfig()
    seed: Seed = 0
    """Of the order of questions."""

    def settings(self) -> dict[str, Json]:
        """Every setting as JSON, defaults too, for W/config.json."""
        shown: dict[str, Json] = msgspec.to_builtins(plain(self), enc_hook=str)
        return shown


def load(file: Path, overrides: Sequence[str] = ()) -> AdacsConfig:
    """The configuration in ``file`` with ``section.key=value`` overrides (values are YAML). Raises ConfigError."""
    import yaml

    found = read_yaml(file)
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {override!r}: must be section.key=value")
        try:
            _put(found, name.strip().split("."), yaml.safe_load(value), override)
        except yaml.YAMLError:
            raise ConfigError(f"--set {override!r}: the value is not valid YAML") from None
    return from_dict(found)


def from_dict(values: Mapping[str, Any]) -> AdacsConfig:
    """The configuration that a plain mapping amounts to. Raises ConfigError."""
    _check_names(values, AdacsConfig, "")
    try:
        made = msgspec.convert(values, AdacsConfig, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        named = place.strip("`.").replace("[...]", "")
        raise ConfigError(f"{named or 'configuration'}: {problem[:1].lower()}{problem[1:]}") from None
    _check_sense(made)
    return made


def _check_sense(config: AdacsConfig) -> None:
    sample = config.sample
    for source in config.ingest.sources:
        if (source.path is None) == (source.hub is None):
            raise ConfigError(f"ingest.sources {source.name!r}: give either path or hub")
        if source.fields.question is None and source.fields.messages is None:
            raise ConfigError(f"ingest.sources {source.name!r}: fields need a question or messages")
        wrong = answer_policy.fault(source.answer_policy)
        if wrong is not None:
            raise ConfigError(f"ingest.sources {source.name!r}: answer_policy: {wrong}")
    names = [source.name for source in config.ingest.sources]
    if len(set(names)) < len(names):
        raise ConfigError("ingest.sources: two sources have the same name")
    for name, pool in (("estimator", sample.estimator), ("teacher", sample.teacher)):
        if pool is None:
            continue
        if pool.traces and pool.ask:
            raise ConfigError(f"sample.{name}: give either ask or traces")
        if pool.engine == "vllm" and sample.executor != "ray":
            raise ConfigError(f"sample.{name}: engine vllm needs sample.executor ray")
    if sample.resample and (sample.estimator.traces or sample.estimator.engine == "vllm"):
        raise ConfigError("sample.resample: only a model behind a server can be asked again")
    if config.select.zero == "resample" and not sample.resample:
        raise ConfigError("select.zero is resample, but sample.resample asks for no further draws")
    if config.ingest.contamination.short_ngram >= config.ingest.contamination.ngram:
        raise ConfigError("ingest.contamination: short_ngram must be below ngram")


def _put(values: Any, path: Sequence[str], value: Any, override: str) -> None:
    for step, name in enumerate(path):
        last = step == len(path) - 1
        if isinstance(values, list):
            if not name.isdigit() or int(name) >= len(values):
                raise ConfigError(f"--set {override!r}: {'.'.join(path[:step])} has no entry {name}")
            if last:
                values[int(name)] = value
            else:
                values = values[int(name)]
        elif isinstance(values, dict):
            if last:
                values[name] = value
            else:
                if values.get(name) is None:
                    values[name] = {}
                values = values[name]
        else:
            raise ConfigError(f"--set {override!r}: {'.'.join(path[:step])} holds no settings")


def _check_names(values: Any, kind: Any, place: str) -> None:
    """Unknown names, answered with the nearest known ones; msgspec alone would only say that they are unknown."""
    kind = _section_in(kind)
    if kind is None:
        return
    if isinstance(values, list | tuple):
        for number, value in enumerate(values):
            _check_names(value, kind, f"{place}[{number}]")
        return
    if not isinstance(values, Mapping):
        return
    hints = typing.get_type_hints(kind)
    known = [known.name for known in fields(kind)]
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"unknown setting {re.sub(r'^[.]', '', f'{place}.{name}')!r}; {hint}")
        _check_names(value, hints[name], f"{place}.{name}")


def _section_in(kind: Any) -> Any:
    """The section that a type is, holds a list of, or may be; None where there is none."""
    if isinstance(kind, type) and is_dataclass(kind):
        return kind
    if typing.get_origin(kind) in (tuple, typing.Union, types.UnionType):
        return next((found for part in typing.get_args(kind) if (found := _section_in(part)) is not None), None)
    return None


def _path(kind: type, value: Any) -> Any:
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(kind)
