"""Supervised fine-tuning with verl's own trainer (verl.trainer.sft_trainer): planned and checked here, run as a child.

A plan is made from a YAML file on top of verl's ``sft_trainer_engine``, the device's needs and the command line's
overrides. The resolved configuration is written into the run's folder and is all that the child reads. The same command
goes on from the newest checkpoint; a run whose last step is saved is left alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ares_eval.config import ConfigError
from ares_train import launching, sft_checks, verl_compat, verl_config
from ares_train.launching import Device, Ended
from ares_train.sft_checks import Schedule

TRAINER = "verl.trainer.sft_trainer"
CONFIG_NAME = "sft_config"
LOG_NAME = "sft.log"


@dataclass(frozen=True, slots=True)
class Plan:
    """``config`` is resolved; ``folder`` is trainer.default_local_dir."""

    config: Any
    device: Device
    processes: int
    folder: Path
    schedule: Schedule
    command: tuple[str, ...]
    environment: Mapping[str, str]

    def as_yaml(self) -> str:
        """The resolved configuration."""
        from omegaconf import OmegaConf

        return verl_config.as_yaml(OmegaConf.to_container(self.config, resolve=True))

    def memory(self) -> str:
        """What a rank will need, or why that cannot be said."""
        from ares_train import memory

        data, engine = self.config.data, self.config.engine
        try:
            with _hub(self.environment):
                size = memory.size_of(self.config.model.path, trust_remote_code=self.config.model.trust_remote_code)
        except ConfigError as error:
            return f"not estimated: {error}"
        longest = (
            data.max_token_len_per_gpu if data.use_dynamic_bsz else data.micro_batch_size_per_gpu * data.max_length
        )
        frozen = bool((self.config.model.override_config or {}).get(sft_checks.FREEZE))
        estimate = memory.training(
            size, ranks=self.processes, tokens=longest, model_dtype=engine.model_dtype, frozen_vision=frozen
        )
        return f"about {estimate}, for {size.parameters:,} parameters" + (
            f" of which {size.vision:,} in the frozen vision tower" if frozen else ""
        )


@contextlib.contextmanager
def _hub(environment: Mapping[str, str]) -> Iterator[None]:
    """This process asks the Hub no more than the run itself will."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or environment.get("HF_HUB_OFFLINE") == "1"
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def plan(file: Path, overrides: Sequence[str] = (), *, processes: int | None = None, offline: bool = False) -> Plan:
    """What a run of ``file`` would be; nothing is started or written. ``processes``: all GPUs, or 1 on the CPU.

    Raises ConfigError for a setting that cannot work, IncompatibleVerl for another verl.
    """
    verl_compat.check_version()
    device = launching.find_device()
    count = processes or (device.count if device.name == "cuda" else 1)
    if device.name == "cuda" and count > device.count:
        raise ConfigError(f"--nproc {count}, but this machine has {device}")
    forced = [*(launching.SFT_ON_CPU if device.name == "cpu" else ()), f"trainer.n_gpus_per_node={count}"]
    config = verl_config.compose(file, overrides, forced=forced)
    if TRAINER_KEYS - set(config):
        raise ConfigError(f"{file} is no configuration of verl's SFT trainer: defaults: [sft_trainer_engine, _self_]")
    schedule = sft_checks.check(config, count)
    folder = Path(config.trainer.default_local_dir).expanduser().resolve()
    words = [
        f"--config-path={folder}",
        f"--config-name={CONFIG_NAME}",
        # Hydra's own folders and log files would land in the working directory.
        "hydra.output_subdir=null",
        f"hydra.run.dir={folder}",
        "hydra/job_logging=disabled",
        "hydra/hydra_logging=disabled",
    ]
    environment = launching.environment(device, processes=count, offline=offline)
    return Plan(
        config, device, count, folder, schedule, tuple(launching.command(TRAINER, words, processes=count)), environment
    )


def run(planned: Plan) -> Ended:
    """Run the plan until it ends; its log is shown, and appended to ``sft.log`` in its folder.

    verl's ``file`` logger writes into ``metrics/from-step-N.jsonl`` there, N being the step that this run starts from:
    it empties its file first, so that a run that goes on needs one of its own.
    """
    verl_config.write(planned.config, planned.folder / f"{CONFIG_NAME}.yaml")
    metrics = planned.folder / "metrics" / f"from-step-{planned.schedule.done}.jsonl"
    metrics.parent.mkdir(exist_ok=True)
    extra = {**planned.environment, "VERL_FILE_LOGGER_PATH": str(metrics)}
    if planned.processes == 1:
        extra |= launching.single_rank()
    return launching.run(planned.command, extra, planned.folder / LOG_NAME)


TRAINER_KEYS = {"model", "engine", "optim", "data", "checkpoint", "trainer"}
"""Sections that a configuration of verl's SFT trainer has."""
