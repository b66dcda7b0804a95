"""What a run is asked to do: one model of all settings, from flags, a YAML file, a preset and the environment.

The first that names a setting wins, in this order: flag, ``--config`` file, ``--preset``, environment, default. Secrets
are SecretStr: they are printed as stars and left out of everything that is written or hashed.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from ares_eval import resources
from ares_eval.inference.transport import normalise_base_url
from ares_eval.tasks.prompts import ARES_SYSTEM_PROMPT
from ares_eval.types import Json, Sampling


class ConfigError(Exception):
    """A setting that cannot be: the message says which, why and what would do. The command line exits with 2."""


class RunConfig(BaseModel):
    """Settings of one run; the names are the flags' names with underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_name: str = ""
    model_revision: str | None = None
    openai_api_key: SecretStr | None = None
    openai_base_url: str | None = None
    transport: Literal["aiohttp", "openai"] = "aiohttp"
    serve: str | None = None
    serve_args: tuple[str, ...] = ()

    datasets: str = "all"
    dataset_dir: Path | None = None
    include_path: tuple[Path, ...] = ()
    limit: int | None = Field(None, ge=1)
    samples: int | None = Field(None, ge=1, le=10_000)
    skip_unavailable: bool = False

    max_tokens: int = Field(8192, ge=1)
    temperature: float | None = Field(0.3, ge=0.0)
    top_p: float | None = Field(0.95, gt=0.0, le=1.0)
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: str | None = None
    logprobs: int = Field(0, ge=0, le=1000)
    vocabulary_size: int | None = Field(None, ge=2)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    stream: bool = False

    system_prompt: str = ARES_SYSTEM_PROMPT
    prompt_style: Literal["system", "user-suffix"] = "system"
    min_pixels: int = Field(262_144, ge=1)
    max_pixels: int = Field(1_048_576, ge=1)

    eval_threads: int = Field(8, ge=1, le=1024)
    max_retries: int = Field(3, ge=0)
    timeout: float = Field(600.0, gt=0.0)
    cache_dir: Path | None = None
    no_cache: bool = False

    judge_model: str | None = None
    judge_base_url: str | None = None
    judge_api_key: SecretStr | None = None
    judge_self: bool = False

    output_dir: Path = Path("results/runs")
    run_name: str | None = None
    fresh: bool = False
    export: tuple[Literal["lm-eval"], ...] = ()
    dry_run: bool = False
    input_price: float | None = Field(None, ge=0.0)
    output_price: float | None = Field(None, ge=0.0)
    quiet: bool = False
    json_output: bool = Field(False, alias="json")

    @field_validator("max_pixels")
    @classmethod
    def _pixels_in_order(cls, value: int, info: Any) -> int:
        if value < info.data.get("min_pixels", 1):
            raise ValueError("must not be below min_pixels")
        return value

    @field_validator("openai_base_url", "judge_base_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        return None if value is None else normalise_base_url(value)

    @field_validator("datasets", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else value

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
        return self.model_dump(mode="json", by_alias=True, exclude={"openai_api_key", "judge_api_key"})

    def digest(self, tasks: Mapping[str, str], weights: str | None) -> str:
        """SHA-256 over all that changes results, ``tasks`` being names with their fingerprints."""
        chosen = self.model_dump(mode="json", include=set(_RESULT_SETTINGS))
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
    given = dict(flags)
    file, preset = given.pop("config", None), given.pop("preset", None)
    layers: list[dict[str, Any]] = [_environment()]
    if preset is not None:
        layers.append(_read(_preset(preset)))
    if file is not None:
        layers.append(_read(Path(file)))
    layers.append(given)
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    try:
        return RunConfig(**merged)
    except ValidationError as error:
        raise ConfigError("; ".join(_complaint(one) for one in error.errors())) from None


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


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold settings as `name: value` lines")
    return {str(name).replace("-", "_"): value for name, value in found.items()}


def _complaint(error: Any) -> str:
    name = ".".join(map(str, error["loc"]))
    flag = name.replace("_", "-")
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, RunConfig.model_fields, n=3, cutoff=0.5)
        return f"unknown setting {flag!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
    if isinstance(error.get("input"), str) and "key" in name:
        return f"{flag}: {error['msg']}"
    return f"{flag}: {error['msg']} (given: {str(error.get('input'))[:80]!r})"
