"""verl's actor (TrainingWorker, FSDP2, ppo_loss) in this process, without Ray: shared by the scripts that test it.

Imported in child processes only, with the CPU platform in their environment: verl fixes its platform when imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def said_by(script: str, *arguments: str) -> Any:
    """Run a script of this folder in a process of its own on the CPU platform; the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name(script)), *arguments],
        env={
            **os.environ,
            "VERL_PLATFORM": "cpu",
            "VERL_USE_EXTERNAL_MODULES": "ares_train.plugin",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def one_rank() -> None:
    """The environment of the only rank."""
    from ares_train.launching import single_rank

    os.environ.update(single_rank(), RAY_LOCAL_WORLD_SIZE="1")


def worker(path: str, *, strategy: str = "fsdp2", forward_only: bool = False, **overrides: Any) -> Any:
    """A TrainingWorker with its model loaded."""
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, TrainingWorkerConfig
    from verl.workers.engine_workers import TrainingWorker

    engine = FSDPEngineConfig(
        strategy=strategy, model_dtype="fp32", use_torch_compile=False, forward_only=forward_only,
        mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        use_dynamic_bsz=False, micro_batch_size_per_gpu=4, infer_micro_batch_size_per_gpu=4,
    )  # fmt: skip
    model = HFModelConfig(
        path=path, use_remove_padding=False, enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "sdpa", **overrides},
    )  # fmt: skip
    config = TrainingWorkerConfig(
        model_type="language_model", model_config=model, engine_config=engine,
        optimizer_config=FSDPOptimizerConfig(lr=1e-2, total_training_steps=10), checkpoint_config=CheckpointConfig(),
    )  # fmt: skip
    made = TrainingWorker(config)
    made.reset()
    return made


def use_ppo_loss(actor: Any) -> None:
    """verl's own loss for the actor."""
    from functools import partial

    from verl.workers.config import FSDPActorConfig
    from verl.workers.utils.losses import ppo_loss

    settings = FSDPActorConfig(
        strategy="fsdp2", rollout_n=4, ppo_mini_batch_size=8, ppo_micro_batch_size_per_gpu=4, use_dynamic_bsz=False,
        engine=actor.engine_config, optim=actor.optimizer_config,
    )  # fmt: skip
    actor.set_loss_fn(partial(ppo_loss, config=settings))


def nested(rows: Sequence[Any]) -> Any:
    """Rows of different lengths as verl passes them; position ids of several parts ([4, T]) too."""
    from verl.utils.tensordict_utils import nested_tensor_from_tensor_list

    return nested_tensor_from_tensor_list(list(rows))


def batch(prompts: Sequence[Any], responses: Sequence[Any], **extra: Any) -> Any:
    """The TensorDict that verl's workers take; ``extra`` holds further fields or replaces those made here."""
    import torch
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu

    whole = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    ones = [torch.ones_like(row) for row in responses]
    fields = {
        "input_ids": nested(whole),
        "position_ids": nested([torch.arange(len(row)) for row in whole]),
        "prompts": nested(prompts),
        "responses": nested(responses),
        "response_mask": nested(ones),
        "loss_mask": nested(ones),
        **extra,
    }
    made = TensorDict(fields, batch_size=len(whole))
    tu.assign_non_tensor(
        made, temperature=1.0, global_batch_size=len(whole), compute_loss=False, calculate_entropy=True,
        mini_batch_size=len(whole), epochs=1,
    )  # fmt: skip
    return made


def log_probs(of: Any, asked: Any) -> list[Any]:
    """Log-probabilities of the responses, one tensor a row."""
    from verl.workers.utils.padding import response_from_nested

    return list(response_from_nested(of.infer_batch(asked)["log_probs"], asked["response_mask"]).unbind())


def train(actor: Any, asked: Any) -> None:
    """One optimizer step on ``asked``, which has old_log_probs and advantages."""
    from verl.utils import tensordict_utils as tu

    tu.assign_non_tensor(asked, compute_loss=True, calculate_entropy=False)
    actor.train_mini_batch(asked)


def weights(actor: Any) -> dict[str, Any]:
    """What verl hands to the rollout, as copies."""
    return {name: value.detach().clone() for name, value in actor.engine.get_per_tensor_param()[0]}
