"""What a run is asked to do: one model of all settings, from flags, a YAML file, a preset and the environment.

The first that names a setting wins, in this order: flag, ``--config`` file, ``--preset``, environment, default. Secrets
are Secret: they are shown as stars and left out of everything that is written or hashed.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ares_eval import resources
from ares_eval.inference.transport import normalise_base_url
from ares_eval.tasks.prompts import ARES_SYSTEM_PROMPT
from ares_eval.types import Json, Sampling


class ConfigError(Exception):
    """A setting that cannot be: the message says which, why and what would do. The command line exits with 2."""


class Secret:
    """A key: shown as stars, never written. ``value`` is for the wire alone."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret('***')"


Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(ge=0.0)]


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one run; the names are the flags' names with underscores. Made by ``load``."""

    model_name: str = ""
    model_revision: str | None = None
    openai_api_key: Secret | None = None
    openai_base_url: str | None = None
    transport: Literal["aiohttp", "openai"] = "aiohttp"
    serve: str | None = None
    serve_args: tuple[str, ...] = ()

    datasets: str = "all"
    dataset_dir: Path | None = None
    include_path: tuple[Path, ...] = ()
    limit: Count | None = None
    samples: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    skip_unavailable: bool = False

    max_tokens: Count = 8192
    temperature: Amount | None = 0.3
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = 0.95
    top_k: int | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=1000)] = 0
    vocabulary_size: Annotated[int, Meta(ge=2)] | None = None
    extra_body: dict[str, Any] = {}
    stop: tuple[str, ...] = ()
    stream: bool = False

    system_prompt: str = ARES_SYSTEM_PROMPT
    prompt_style: Literal["system", "user-suffix"] = "system"
    min_pixels: Count = 262_144
    max_pixels: Count = 1_048_576

    eval_threads: Annotated[int, Meta(ge=1, le=1024)] = 8
    max_retries: Annotated[int, Meta(ge=0)] = 3
    timeout: Annotated[float, Meta(gt=0.0)] = 600.0
    cache_dir: Path | None = None
    no_cache: bool = False

    scoring: Literal["sound", "official"] = "sound"
    judge_model: str | None = None
    judge_base_url: str | None = None
    judge_api_key: Secret | None = None
    judge_self: bool = False

    output_dir: Path = Path("results/runs")
    run_name: str | None = None
    fresh: bool = False
    export: tuple[Literal["lm-eval", "vlmeval", "inspect"], ...] = ()
    tracker: Literal["wandb", "mlflow", "trackio", "tensorboard"] | None = None
    dry_run: bool = False
    input_price: Amount | None = None
    output_price: Amount | None = None
    quiet: bool = False
    json: bool = False

    given: frozenset[str] = frozenset()
    """Names of the settings that somebody set, as against the defaults."""

    def replace(self, **changes: Any) -> RunConfig:
        """The same settings but for ``changes``."""
        return msgspec.structs.replace(self, **changes)

    def sampling(self, draw: int) -> Sampling:
        """The sampling parameters of one draw: a seed, where one is given, differs from draw to draw."""
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=None if self.seed is None else self.seed + draw,
            stop=self.stop,
            logprobs=self.logprobs,
            reasoning_effort=self.reasoning_effort,
            extra_body=self.extra_body,
            stream=self.stream,
        )

    def cache_folder(self) -> Path:
        """Where replies are cached."""
        return self.cache_dir if self.cache_dir is not None else user_cache()

    def settings(self) -> dict[str, Json]:
        """Every setting as JSON, without secrets: for ``run.json``."""
        shown = set(self.__struct_fields__) - {"openai_api_key", "judge_api_key", "given"}
        return {name: msgspec.to_builtins(getattr(self, name), enc_hook=str) for name in sorted(shown)}

    def digest(self, tasks: Mapping[str, str], weights: str | None) -> str:
        """SHA-256 over all that changes results, ``tasks`` being names with their fingerprints."""
        chosen = {name: getattr(self, name) for name in _RESULT_SETTINGS}
        whole = {"settings": chosen, "tasks": dict(tasks), "weights": weights}
        return hashlib.sha256(msgspec.json.encode(whole, order="sorted")).hexdigest()


_RESULT_SETTINGS = (
    "model_name",
    "model_revision",
    "limit",
    "samples",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "reasoning_effort",
    "logprobs",
    "vocabulary_size",
    "extra_body",
    "system_prompt",
    "prompt_style",
    "min_pixels",
    "max_pixels",
    "scoring",
    "judge_model",
)


def user_cache() -> Path:
    """The folder for what may be made again: ``$ARES_CACHE``, else ``ares`` in the user's cache folder."""
    own = os.environ.get("ARES_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ares"


def load(flags: Mapping[str, Any]) -> RunConfig:
    """The configuration that ``flags`` (only those given; ``config`` and ``preset`` among them) amount to."""
    flags = dict(flags)
    file, preset = flags.pop("config", None), flags.pop("preset", None)
    layers: list[dict[str, Any]] = [_environment()]
    if preset is not None:
        layers.append(_layer(_preset(preset)))
    if file is not None:
        layers.append(_layer(Path(file)))
    layers.append(flags)
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    for name in merged.keys() - set(RunConfig.__struct_fields__) | merged.keys() & {"given"}:
        near = difflib.get_close_matches(name, RunConfig.__struct_fields__, n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ConfigError(f"unknown setting {name.replace('_', '-')!r}{hint}")
    if isinstance(merged.get("datasets"), list | tuple):
        merged["datasets"] = ",".join(map(str, merged["datasets"]))
    try:
        made = msgspec.convert({**merged, "given": list(merged)}, RunConfig, strict=False, dec_hook=_own_types)
    except msgspec.ValidationError as error:
        raise ConfigError(_complaint(str(error), merged)) from None
    if made.max_pixels < made.min_pixels:
        raise ConfigError(f"max-pixels ({made.max_pixels}) must not be below min-pixels ({made.min_pixels})")
    urls = {name: getattr(made, name) for name in ("openai_base_url", "judge_base_url")}
    try:
        return made.replace(**{name: normalise_base_url(url) for name, url in urls.items() if url is not None})
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _own_types(kind: type, value: Any) -> Any:
    if kind is Secret:
        return value if isinstance(value, Secret) else Secret(str(value))
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(kind)


def _environment() -> dict[str, Any]:
    names = {
        "openai_api_key": "OPENAI_API_KEY",
        "openai_base_url": "OPENAI_BASE_URL",
        "judge_api_key": "JUDGE_API_KEY",
    }
    return {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}


def presets() -> list[str]:
    """Names that ``--preset`` takes."""
    return sorted(path.stem for path in (resources.folder("configs") / "presets").glob("*.yaml"))


def _preset(name: str) -> Path:
    if name not in presets():
        raise ConfigError(f"unknown preset {name!r}; there are: {', '.join(presets())}")
    return resources.folder("configs") / "presets" / f"{name}.yaml"


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML (or JSON) file holds. Raises ConfigError, in a line, for anything else."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except yaml.YAMLError as error:
        # Its own words quote the line, which may hold a key.
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise ConfigError(f"{path} is not valid YAML: {problem or 'it cannot be read'}{place}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold settings as `name: value` lines")
    return {str(name): value for name, value in found.items()}


def _layer(path: Path) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in read_yaml(path).items()}


def _complaint(message: str, merged: Mapping[str, Any]) -> str:
    """What msgspec says of a value, in terms of the flag; a secret's value is not shown."""
    problem, _, place = message.partition(" - at `$.")
    name = re.split(r"[`.\[]", place)[0]
    shown = "" if "key" in name or name not in merged else f" (given: {str(merged[name])[:80]!r})"
    return f"{name.replace('_', '-')}: {problem[:1].lower()}{problem[1:]}{shown}"
