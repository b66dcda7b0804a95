"""The process in which verl runs: ``python -m ares_train.rl.runner CONFIG.yaml``, started by ``ares-train launch``.

CONFIG is the whole configuration, as ares_train.rl.compose writes it. verl's ``run_ppo`` starts Ray and our task
runner, a small actor that builds the trainer and feeds it. The process ends with 0 when training is over or was stopped
on request (the run's folder says which).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STOPPED = "stopped.txt"
"""In the run's folder, where training was stopped on request: why."""


class TaskRunner:
    """verl's TaskRunnerV1 with our trainer."""

    def run(self, config: Any) -> None:
        """The whole of training, inside an actor of Ray."""
        import transfer_queue as tq
        from omegaconf import OmegaConf
        from verl.trainer.ppo.v1 import AgentLoopManagerTQ
        from verl.utils.import_utils import load_class_from_fqn
        from verl.utils.logging_utils import configure_verl_logging

        from ares_train.rl import vllm_server
        from ares_train.rl.trainer import AEPOTrainer, TrainingStopped

        configure_verl_logging()
        config.transfer_queue.enable = True
        OmegaConf.resolve(config)
        tq.init(config.transfer_queue)
        trainer, succeeded = None, False
        try:
            trainer = AEPOTrainer(config)
            branch = trainer.aepo.branch
            if branch.mode != "off" and branch.entropy_source == "server_topk":
                vllm_server.register(branch.topk)
            trainer.init()
            os.environ["VERL_FILE_LOGGER_PATH"] = str(metrics_file(run_folder(config), trainer.global_steps))
            name = config.actor_rollout_ref.rollout.agent.get("agent_loop_manager_class")
            manager = load_class_from_fqn(name, "AgentLoopManager") if name else AgentLoopManagerTQ
            sessions = manager.create(
                config=config,
                llm_client=trainer.get_llm_client(),
                teacher_client=trainer.get_teacher_client(),
                reward_loop_worker_handles=trainer.get_reward_handles(),
            )
            try:
                trainer.fit(sessions)
            except TrainingStopped as reason:
                (run_folder(config) / STOPPED).write_text(f"{reason}\n", encoding="utf-8")
            succeeded = True
        finally:
            tracking = getattr(trainer, "logger", None)
            try:
                if tracking is not None:
                    tracking.finish(exit_code=0 if succeeded else 1)
            finally:
                tq.close()


def run_folder(config: Any) -> Path:
    """Where a run keeps its checkpoints, metrics and evaluations."""
    return Path(config.trainer.default_local_dir)


def metrics_file(folder: Path, done: int) -> Path:
    """The metrics of a start that goes on after step ``done``: verl empties the file it is given, so each start has
    one."""
    file = folder / "metrics" / f"from_step_{done + 1}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def main(arguments: Sequence[str]) -> int:
    """Run the configuration file that is the only argument."""
    import ray
    import verl  # noqa: F401 - first: it loads the plugin
    from verl.trainer.main_ppo import run_ppo
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from ares_train import verl_compat
    from ares_train.rl import compose
    from ares_train.rl.config import bind

    (file,) = arguments
    verl_compat.check_version()
    config = compose.load(Path(file))
    bind(config)
    validate_config(config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
    # By name, not by value: the actor's process imports this module, and the plugin with it.
    from ares_train.rl.runner import TaskRunner as Importable

    run_ppo(config, task_runner_class=ray.remote(num_cpus=1)(Importable))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
