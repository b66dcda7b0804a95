"""What is evaluated, how it is served, and what follows: one set of settings for the watcher and for inline evaluation.

The names are the flags of `ares-train watch` with underscores, the keys of its ``--config`` file, and those of the
trainer's ``trainer.eval``. ``run`` takes any further setting of ares-eval (``limit``, ``max_tokens``, ``samples``,
...).
"""

from __future__ import annotations

import difflib
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ares_eval import config as evaluation
from ares_eval import trackers
from ares_eval.series import steps

MEAN = "mean"
"""What checkpoints are ranked by unless another figure is named: the mean over the tasks of their primary metrics."""

TRAINERS = Path(steps.FOLDER, "settings.json")
"""The trainer's ``trainer.eval``, for the watcher (JSON is YAML)."""

OURS = frozenset(
    {"model_name", "model_revision", "serve", "serve_args", "datasets", "output_dir", "openai_base_url", "transport",
     "run_name", "fresh", "tracker", "dry_run", "quiet", "json", "config", "preset", "given"}
)  # fmt: skip
"""Settings of ares-eval that follow from ours."""

SECRET = frozenset({"openai_api_key", "judge_api_key"})


class SettingsError(Exception):
    """A setting that cannot be; the message says which, why and what would do."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See the head of this file.

    ``serve``: who serves the weights; ``serve_args``: its further arguments in one string. ``dtype``: of the merged
    weights (default: the checkpoint's own). ``baseline``: a run, a saved baseline's name, or ``first``, ``previous``,
    ``best``, ``step:N`` of this run; empty for no gate. ``best_metric``: a figure's name (``gsm8k/accuracy``).
    ``keep``: whose merged weights stay. ``tries``: how often an evaluation may fail before that is recorded.
    ``tracker``: names, each with ``:ID`` to join a run (``mlflow:RUN_ID``, ``tensorboard:FOLDER``).
    """

    datasets: str = ""
    serve: Literal["vllm", "lmdeploy", "hf"] = "vllm"
    serve_args: str = ""
    model_name: str = ""
    dtype: Literal["keep", "bfloat16", "float16", "float32"] = "keep"
    run: dict[str, Any] = {}
    eval_python: str = ""
    baseline: str = ""
    policy: str = "default"
    on_fail: Literal["none", "warn", "stop"] = "warn"
    best_metric: str = MEAN
    best_mode: Literal["max", "min"] = "max"
    keep: Literal["none", "best", "all"] = "best"
    tries: Annotated[int, Meta(ge=1, le=100)] = 3
    tracker: tuple[str, ...] = ()
    poll: Annotated[float, Meta(ge=0.1)] = 10.0

    @property
    def python(self) -> str:
        """The Python that runs ares-eval."""
        return self.eval_python or sys.executable


def load(run_dir: Path, file: Path | None, flags: Mapping[str, Any]) -> Settings:
    """From flags, a YAML file, and what the trainer left in ``run_dir``; the first that names a setting wins.

    Raises SettingsError.
    """
    left = run_dir / TRAINERS
    layers = [_read(left) if left.exists() else {}, {} if file is None else _read(file), dict(flags)]
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= {str(name).replace("-", "_"): value for name, value in layer.items()}
    return from_mapping(merged)


def leave(run_dir: Path, section: Mapping[str, Any]) -> None:
    """Let the watcher know the trainer's settings of the evaluation, checked. Raises SettingsError, OSError."""
    file = run_dir / TRAINERS
    if not section:
        file.unlink(missing_ok=True)
        return
    from_mapping(section)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(dict(section), indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def from_mapping(values: Mapping[str, Any]) -> Settings:
    """From names and values. Raises SettingsError for a value or name that cannot be."""
    values = {str(name).replace("-", "_"): value for name, value in values.items()}
    names = Settings.__struct_fields__
    for name in values.keys() - set(names):
        near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "ares-eval's own settings go under `run`"
        raise SettingsError(f"unknown setting {name!r} of the evaluation; {hint}")
    if isinstance(values.get("datasets"), list | tuple):
        values["datasets"] = ",".join(map(str, values["datasets"]))
    if isinstance(values.get("tracker"), str):
        values["tracker"] = (values["tracker"],)
    try:
        made = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"evaluation: {error}") from None
    _check(made)
    return made


def _check(settings: Settings) -> None:
    """SettingsError for what msgspec cannot see, as far as this environment can tell."""
    if not settings.datasets:
        raise SettingsError("datasets is missing: which tasks or suite should checkpoints be evaluated on?")
    run = {str(name).replace("-", "_") for name in settings.run}
    if secret := sorted(run & SECRET):
        raise SettingsError(f"run.{secret[0]}: a key has no place in a file; give it by the environment")
    if ours := sorted(run & OURS):
        raise SettingsError(f"run.{ours[0]} cannot be set: the checkpoint and the settings beside `run` decide it")
    try:
        evaluation.load({**settings.run, "model_name": "model", "datasets": settings.datasets})
    except evaluation.ConfigError as error:
        raise SettingsError(f"run: {error}") from None
    try:
        shlex.split(settings.serve_args)
    except ValueError as error:
        raise SettingsError(
            f"serve_args {settings.serve_args!r}: {str(error).lower()}; quote them as in a shell"
        ) from None
    for name in settings.tracker:
        if name.partition(":")[0] not in trackers.TRACKERS:
            raise SettingsError(f"no tracker {name!r}; there are {', '.join(trackers.TRACKERS)}")


def _read(file: Path) -> dict[str, Any]:
    try:
        return evaluation.read_yaml(file)
    except evaluation.ConfigError as error:
        raise SettingsError(str(error)) from None
