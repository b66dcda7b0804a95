"""Every private or semi-private verl name that ares_train relies on, in one table, and the check that they are there.

verl promises none of these names, so ares_train is pinned to one version. ``check`` compares version, names and
parameters with what is installed and raises one error that says what was found, what is wanted and what is missing.
A part that relies on one more name adds one line to ``TABLE``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

VERSION = "0.9.1"


class IncompatibleVerl(RuntimeError):
    """verl is missing, of another version, or lacks names that ares_train relies on."""


@dataclass(frozen=True, slots=True)
class Name:
    """``path`` is ``module:attribute[.attribute]``; ``parameters`` must be among those of its signature."""

    path: str
    why: str
    parameters: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return self.path.partition(":")[0]


TABLE: tuple[Name, ...] = (
    # The platform and the engines of the CPU backend.
    Name("verl.plugin.platform:PlatformBase", "base of the CPU platform"),
    Name("verl.plugin.platform:PlatformRegistry.register", "adds the CPU platform", ("platform",)),
    Name(
        "verl.utils.distributed:initialize_global_process_group_ray", "asks torch for cpu:gloo,cpu:gloo", ("backend",)
    ),
    Name("verl.utils.distributed:initialize_global_process_group", "the same for torchrun", ("timeout_second",)),
    Name(
        "verl.workers.engine.base:EngineRegistry.register",
        "adds engines for another device or vendor",
        ("model_type", "backend", "device", "vendor"),
    ),
    Name("verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithLMHead", "base of our actor engines"),
    Name("verl.workers.engine.fsdp.transformer_impl:FSDPEngineWithValueHead", "base of the critic engine on the CPU"),
    Name(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngine.__init__",
        "refuses settings that the CPU cannot",
        ("model_config", "engine_config", "optimizer_config", "checkpoint_config"),
    ),
    Name(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngine._build_fsdp_module",
        "asks for pinned memory, which the CPU backend leaves out",
        ("module",),
    ),
    Name(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngine._build_module", "keeps our key out of the model's config"
    ),
    Name(
        "verl.workers.engine.fsdp.transformer_impl:FSDPEngine._build_optimizer",
        "leaves frozen parameters out",
        ("module",),
    ),
    Name("verl.workers.config.optimizer:build_optimizer", "builds it", ("parameters", "config")),
    # Pictures without torchvision.
    Name("verl.utils.dataset.vision_utils:process_image", "imports qwen_vl_utils when it reads a picture", ("image",)),
    Name("verl.utils.tokenizer:hf_processor", "builds processors by AutoProcessor", ("name_or_path",)),
    # The rollout engine of the CPU backend.
    Name("verl.workers.rollout.base:_ROLLOUT_REGISTRY", "adds the adapter of hf_cpu"),
    Name("verl.workers.rollout.base:BaseRollout", "base of the adapter of hf_cpu"),
    Name("verl.workers.rollout.replica:RolloutReplicaRegistry.register", "adds hf_cpu", ("name", "loader")),
    Name("verl.workers.rollout.replica:RolloutReplica.launch_servers", "starts the server of hf_cpu"),
    Name("verl.workers.rollout.replica:TokenOutput", "what a server answers"),
    Name(
        "verl.workers.rollout.llm_server:LLMServerClient.generate",
        "calls our server",
        ("request_id", "prompt_ids", "sampling_params", "image_data", "video_data"),
    ),
    Name("verl.workers.rollout.utils:ensure_async_iterator", "reads the weights of either kind of generator"),
    Name("verl.utils.model:get_hf_auto_model_class", "loads the class that the actor loads", ("hf_config",)),
    Name("verl.utils.model:convert_weight_keys", "names weights as the actor does", ("state_dict", "model")),
    Name("verl.utils.tokenizer:get_processor_token_id", "finds a picture's place in the prompt"),
    # AEPO's trainer.
    Name("verl.trainer.main_ppo:run_ppo", "starts Ray and our task runner", ("config", "task_runner_class")),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync.on_init_end", "sets the loss first"),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync.on_step_begin", "looks for a request to stop"),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync._submit_batch_to_rollout", "names prompts", ("batch",)),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync._get_required_batch_multiple", "pads to less", ("dp_size",)),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync._balance_batch", "orders rows", ("batch", "metrics")),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync._compute_old_log_prob", "writes the entropies"),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync._compute_advantage", "shapes rewards", ("batch", "metrics")),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync._update_actor", "names mini-batches", ("batch", "metrics")),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync._consume_sync_metrics", "adds what was evaluated"),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync._save_checkpoint", "saves AEPO's state first"),
    Name("verl.trainer.ppo.v1.trainer_sync:PPOTrainerSync._load_checkpoint", "restores it"),
    Name("verl.workers.engine_workers:ActorRolloutRefWorker.set_loss_fn", "takes our loss", ("loss_fn",)),
    Name("verl.workers.engine_workers:TrainingWorker.train_mini_batch", "knows num_mini_batch", ("data",)),
    # AEPO's loss.
    Name("verl.workers.utils.losses:ppo_loss", "all but the KL", ("config", "model_output", "data", "dp_group")),
    Name("verl.workers.utils.padding:no_padding_2_padding", "the response's log-probs", ("tensor", "data")),
    Name("verl.trainer.ppo.core_algos:agg_loss", "averages", ("loss_mat", "loss_mask", "loss_agg_mode")),
    Name("verl.trainer.ppo.core_algos:kl_penalty", "the KL estimators", ("logprob", "ref_logprob", "kl_penalty")),
    # Branching while rolling out.
    Name(
        "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ.__ray_metadata__.modified_class._run_prompt",
        "base of our agent-loop worker, before Ray decorated it",
        ("prompt", "sampling_params", "trajectory", "trace"),
    ),
    Name(
        "verl.trainer.ppo.v1.agent_loop_tq:AgentLoopWorkerTQ.__ray_metadata__.modified_class._agent_loop_postprocess",
        "scores and stores a session",
        ("output", "validate"),
    ),
    Name("verl.experimental.agent_loop:AgentLoopManager.__init__", "base of our agent-loop manager", ("config",)),
    Name(
        "verl.experimental.agent_loop.agent_loop:AgentLoopWorker._run_agent_loop",
        "runs a session",
        ("sampling_params", "trajectory", "agent_name", "trace"),
    ),
    Name(
        "verl.experimental.agent_loop.single_turn_agent_loop:SingleTurnAgentLoop.run",
        "base of our agent loop",
        ("sampling_params",),
    ),
)


def found_version() -> str | None:
    """The installed version of verl, read from its metadata; None where it is not installed."""
    try:
        return importlib.metadata.version("verl")
    except importlib.metadata.PackageNotFoundError:
        return None


def check_version() -> None:
    """Raise IncompatibleVerl unless verl is installed in the version that ares_train is pinned to. Imports nothing."""
    found = found_version()
    if found is None:
        raise IncompatibleVerl(f"verl is not installed; ares_train needs verl=={VERSION}: pip install 'ares[train]'")
    if found != VERSION:
        raise IncompatibleVerl(
            f"verl {found} is installed, ares_train needs verl=={VERSION} "
            f"(it relies on names that verl does not promise): pip install verl=={VERSION}"
        )


def check(modules: Iterable[str] | None = None) -> int:
    """Check the version and the names of ``modules`` (all: None); the number of names checked is returned.

    Imports the modules that hold the names, which takes seconds. Raises IncompatibleVerl.
    """
    check_version()
    wanted = None if modules is None else set(modules)
    names = [name for name in TABLE if wanted is None or name.module in wanted]
    missing = [problem for name in names if (problem := _problem(name)) is not None]
    if missing:
        raise IncompatibleVerl(
            f"verl {VERSION} is installed but differs from the verl {VERSION} that ares_train was written for; "
            f"{'; '.join(missing)}. Install it anew: pip install --force-reinstall --no-deps verl=={VERSION}"
        )
    return len(names)


def _problem(name: Name) -> str | None:
    try:
        found: Any = importlib.import_module(name.module)
        for attribute in name.path.partition(":")[2].split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        return f"missing {name.path} ({name.why}): {error}"
    if not name.parameters:
        return None
    there = inspect.signature(found).parameters
    absent = [parameter for parameter in name.parameters if parameter not in there]
    return f"{name.path} ({name.why}) has no parameter {', '.join(absent)}" if absent else None
