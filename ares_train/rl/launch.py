"""From a preset and overrides to a finished run: compose, check, show or start, resume, stage after stage.

The same command again goes on where the last checkpoint is. Each run's folder (``trainer.default_local_dir``) gets
``config.yaml``, ``train.log``, ``metrics/``, the checkpoints, and ``finished.json`` at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ares_eval.config import ConfigError
from ares_train import checkpoints, launching, verl_compat, verl_config
from ares_train.loop import queue
from ares_train.rl import compose, estimate, runner, stages
from ares_train.rl.config import bind, hints, trigger_words
from ares_train.rl.stages import Stage

STOPPED = 3
"""Exit code where training was stopped on request: it is not finished, and would stop again."""

CONFIG, LOG = "config.yaml", "train.log"

FORWARDED = ("VERL_USE_EXTERNAL_MODULES", "VERL_PLATFORM", "OMP_NUM_THREADS", "HF_HUB_OFFLINE")
"""Environment that the processes of a cluster need; those that Ray starts on this machine inherit it."""


def plan(
    file: Path, overrides: Sequence[str], *, device_name: str = "auto", ray_address: str | None = None
) -> list[tuple[Stage, Any]]:
    """The stages of a run with their whole configurations, checked. ConfigError (either kind) for what cannot be.

    ``device_name``: cuda, cpu, or auto: the CPU where ``trainer.device`` says so, else what this machine has.
    """
    device = compose.device_of(file, overrides, device_name)
    whole = compose.compose(file, overrides, device)
    run = Path(whole.trainer.default_local_dir)
    made: list[tuple[Stage, Any]] = []
    before: Path | None = None
    for stage in stages.stages_of(whole):
        own = stages.words_of(stage, run, before)
        config = compose.compose(file, [*own, *overrides, *_again(own)], device)
        _finish(config, ray_address, device)
        trigger_words(bind(config).window)
        made.append((stage, config))
        before = run / stage.name
    stages.check(made)
    return made


def _again(own: Sequence[str]) -> list[str]:
    """A stage's folder and start count more than the command line: both are about the run as a whole there."""
    return [word for word in own if word.startswith(("trainer.default_local_dir=", "actor_rollout_ref.model.path="))]


def _finish(config: Any, ray_address: str | None, device: launching.Device) -> None:
    """Absolute folder, and the cluster; ``stages`` is not verl's."""
    from omegaconf import OmegaConf, open_dict

    with open_dict(config):
        config.pop("stages", None)
        config.trainer.default_local_dir = str(Path(config.trainer.default_local_dir).absolute())
        if device.name == "cpu":
            # As many logical GPUs as actors, and the CPUs that verl's bundles ask for with each.
            config.ray_kwargs.ray_init.num_gpus = config.trainer.n_gpus_per_node
            config.ray_kwargs.ray_init.num_cpus = 8 * config.trainer.n_gpus_per_node
        if ray_address is not None:
            start = config.ray_kwargs.ray_init
            for name in ("num_cpus", "num_gpus", "include_dashboard", "object_store_memory", "_temp_dir"):
                start.pop(name, None)
            start.address = ray_address
            told = launching.environment(device, offline=_offline(config))
            forwarded = {name: told[name] for name in FORWARDED if name in told}
            start.runtime_env = OmegaConf.merge(start.get("runtime_env") or {}, {"env_vars": forwarded})


def _offline(config: Any) -> bool:
    """Nothing is to be had from the Hub where the model is a folder."""
    return Path(estimate.model_path(config)).is_dir()


def describe(planned: Sequence[tuple[Stage, Any]]) -> str:
    """What a dry run shows: of each stage the resolved configuration, what it needs, and hints; a warning where this
    machine could not run it. ConfigError for a model's folder that holds none."""
    from omegaconf import OmegaConf

    parts = []
    for stage, config in planned:
        if stage.name:
            parts.append(f"# ==== stage {stage.name}")
        parts.append(verl_config.as_yaml(OmegaConf.to_container(config, resolve=True)).rstrip())
        parts += [f"# {line}" for line in (*estimate.lines(config), *_hinted(config))]
    parts += [f"# warning: {complaint}" for complaint in _too_few_gpus(planned)]
    return "\n".join(parts)


def _hinted(config: Any) -> list[str]:
    return [f"note: {hint}" for hint in hints(config, bind(config))]


def run(planned: Sequence[tuple[Stage, Any]], say: Callable[[str], None]) -> int:
    """Run the stages that are not finished; the exit code: 0, STOPPED, or that of the process that failed.

    ConfigError for files or GPUs that are not there, CheckpointError where a stage left nothing that the next could
    start from.
    """
    verl_compat.check_version()
    _refuse_missing(planned)
    for complaint in _too_few_gpus(planned):
        raise ConfigError(complaint)
    before: Path | None = None
    for stage, config in planned:
        folder = Path(config.trainer.default_local_dir)
        title = f"stage {stage.name}" if stage.name else "run"
        if stages.finished(folder, config):
            say(f"{title} in {folder} is finished; another trainer.total_training_steps or total_epochs would go on")
        else:
            if (reason := queue.stop_requested(folder)) is not None:
                say(f"{title} in {folder} was asked to stop: {reason}")
                return STOPPED
            if before is not None:
                _start_from(before, folder / stages.START, say)
            code = _train(config, folder, title, say)
            if code:
                return code
            stages.note_finished(folder, config, checkpoints.latest_step(folder))
        before = folder
    return 0


def _refuse_missing(planned: Sequence[tuple[Stage, Any]]) -> None:
    """ConfigError for data, or a first model, named as a file that is not there: verl would say so minutes later."""
    for number, (_, config) in enumerate(planned):
        for name in ("train_files", "val_files"):
            files = config.data[name]
            for file in [files] if isinstance(files, str) else files:
                if "://" not in file and not Path(file).expanduser().exists():
                    raise ConfigError(f"data.{name}={file}: there is no such file (`ares-train data` makes it)")
        model = estimate.model_path(config)
        if number == 0 and config.actor_rollout_ref.model.path == estimate.UNNAMED and not Path(model).is_dir():
            raise ConfigError("no model is named: set actor_rollout_ref.model.path (a folder or a Hub id)")
        if number == 0 and model.startswith(("/", ".")) and not Path(model).is_dir():
            raise ConfigError(f"actor_rollout_ref.model.path={model}: there is no such folder")


def _too_few_gpus(planned: Sequence[tuple[Stage, Any]]) -> list[str]:
    """One line where a stage wants more GPUs than there are; a cluster's are not known here."""
    if os.environ.get("RAY_ADDRESS"):
        return []
    for _, config in planned:
        trainer = config.trainer
        if trainer.device == "cpu" or config.ray_kwargs.ray_init.get("address"):
            continue
        here = launching.find_device()
        count = here.count if here.name == "cuda" else 0
        if trainer.n_gpus_per_node * trainer.nnodes > count:
            return [
                f"trainer.n_gpus_per_node={trainer.n_gpus_per_node} with trainer.nnodes={trainer.nnodes}, but this "
                f"machine has {count} GPU(s): set them to what is here, or name a cluster (--ray-address)"
            ]
    return []


def _train(config: Any, folder: Path, title: str, say: Callable[[str], None]) -> int:
    device = launching.Device("cpu" if config.trainer.device == "cpu" else "cuda", config.trainer.n_gpus_per_node)
    latest = checkpoints.latest_step(folder)
    say(f"{title} in {folder}: {'from the beginning' if latest is None else f'going on after step {latest}'}")
    for line in (*estimate.lines(config), *_hinted(config)):
        say(line)
    verl_config.write(config, folder / CONFIG)
    (folder / runner.STOPPED).unlink(missing_ok=True)
    words = launching.command("ares_train.rl.runner", [str(folder / CONFIG)])
    environment = launching.environment(device, offline=_offline(config))
    if device.name == "cpu":
        # Ray gives out logical GPUs from this list, and no CUDA device has that number.
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(["-1"] * device.count)
        # TransferQueue warns at every call where it may not have its eight threads.
        environment["TQ_NUM_THREADS"] = environment["OMP_NUM_THREADS"]
    ended = launching.run(words, environment, folder / LOG)
    if ended.code:
        say(f"{title} ended with code {ended.code}; its last lines:\n{ended.tail}\nthe whole log: {folder / LOG}")
        return ended.code
    if (folder / runner.STOPPED).exists():
        say(f"{title} was stopped: {(folder / runner.STOPPED).read_text(encoding='utf-8').strip()}")
        return STOPPED
    return 0


def _start_from(before: Path, start: Path, say: Callable[[str], None]) -> None:
    """Merge the last checkpoint of the stage in ``before`` to the folder ``start``, unless it was."""
    from ares_train.merge import merge

    whole = checkpoints.checkpoints_of(before)
    if not whole:
        raise checkpoints.CheckpointError(f"{before} has no checkpoint for the next stage to start from")
    say(f"merging step {whole[-1].step} of {before} into {start}")
    merge(whole[-1].actor, start)
