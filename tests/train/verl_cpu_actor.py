"""Run by test_verl_cpu_engine in a process of its own: three updates of verl's actor, and its weights to the rollout.

``python verl_cpu_actor.py MODEL``; the last line is JSON. A process, as verl fixes its platform when it is imported.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from functools import partial

import numpy as np
import torch


def one_rank() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", RAY_LOCAL_WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def main(path: str) -> None:
    one_rank()
    from tensordict import TensorDict
    from verl.trainer.config import CheckpointConfig
    from verl.trainer.ppo import core_algos
    from verl.utils import tensordict_utils as tu
    from verl.utils.device import get_device_name
    from verl.workers.config import (
        FSDPActorConfig,
        FSDPEngineConfig,
        FSDPOptimizerConfig,
        HFModelConfig,
        TrainingWorkerConfig,
    )
    from verl.workers.engine_workers import TrainingWorker
    from verl.workers.utils.losses import ppo_loss
    from verl.workers.utils.padding import response_from_nested

    from ares_train.verl_cpu.rollout_server import copy_weights, load

    def worker(strategy: str = "fsdp2", forward_only: bool = False) -> TrainingWorker:
        engine = FSDPEngineConfig(
            strategy=strategy, model_dtype="fp32", use_torch_compile=False, forward_only=forward_only,
            mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
            use_dynamic_bsz=False, micro_batch_size_per_gpu=4, infer_micro_batch_size_per_gpu=4,
        )  # fmt: skip
        model = HFModelConfig(
            path=path, use_remove_padding=False, enable_gradient_checkpointing=False,
            override_config={"attn_implementation": "sdpa"},
        )  # fmt: skip
        config = TrainingWorkerConfig(
            model_type="language_model", model_config=model, engine_config=engine,
            optimizer_config=FSDPOptimizerConfig(lr=1e-2, total_training_steps=10),
            checkpoint_config=CheckpointConfig(),
        )  # fmt: skip
        made = TrainingWorker(config)
        made.reset()
        return made

    actor = worker()
    settings = FSDPActorConfig(
        strategy="fsdp2", rollout_n=4, ppo_mini_batch_size=8, ppo_micro_batch_size_per_gpu=4, use_dynamic_bsz=False,
        engine=actor.engine_config, optim=actor.optimizer_config,
    )  # fmt: skip
    actor.set_loss_fn(partial(ppo_loss, config=settings))

    random = torch.Generator().manual_seed(0)
    size = actor.model_config.hf_config.vocab_size
    prompts = [torch.randint(3, size, (n,), generator=random) for n in (4, 8, 5, 6, 7, 4, 8, 5)]
    responses = [torch.randint(3, size, (n,), generator=random) for n in (5, 9, 6, 11, 7, 8, 5, 10)]

    def batch(**extra: torch.Tensor) -> TensorDict:
        whole = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
        ones = [torch.ones_like(row) for row in responses]
        made = TensorDict(
            {
                "input_ids": nested(whole),
                "position_ids": nested([torch.arange(len(row)) for row in whole]),
                "prompts": nested(prompts),
                "responses": nested(responses),
                "response_mask": nested(ones),
                "loss_mask": nested(ones),
                **extra,
            },
            batch_size=8,
        )
        tu.assign_non_tensor(
            made, temperature=1.0, global_batch_size=8, compute_loss=False, calculate_entropy=True, mini_batch_size=8,
            epochs=1,
        )  # fmt: skip
        return made

    def log_probs(of: TrainingWorker) -> list[torch.Tensor]:
        asked = batch()
        return list(response_from_nested(of.infer_batch(asked)["log_probs"], asked["response_mask"]).unbind())

    old = log_probs(actor)
    reference = worker(forward_only=True)
    rewards = torch.tensor([1.0, 0, 1, 0, 1, 1, 0, 0])
    mask = torch.nested.to_padded_tensor(nested([torch.ones_like(row) for row in responses]), 0)
    tokens = torch.zeros(mask.shape)
    tokens[torch.arange(8), mask.sum(-1) - 1] = rewards
    advantages, _ = core_algos.get_adv_estimator_fn("grpo")(
        token_level_rewards=tokens, response_mask=mask.float(), index=np.array(list("aaaabbbb"), dtype=object)
    )
    for _ in range(3):
        update = batch(
            old_log_probs=nested(old), advantages=nested([advantages[i, : len(responses[i])] for i in range(8)])
        )
        tu.assign_non_tensor(update, compute_loss=True, calculate_entropy=False)
        actor.train_mini_batch(update)
    new = log_probs(actor)
    change = torch.tensor([float((a - b).mean()) for a, b in zip(new, old, strict=True)])
    still = log_probs(reference)

    rollout = load(actor.model_config, "float32").model

    def rollouts_difference() -> float:
        worst = 0.0
        for prompt, response, wanted in zip(prompts, responses, new, strict=True):
            with torch.no_grad():
                logits = rollout(torch.cat([prompt, response]).unsqueeze(0)).logits[0, len(prompt) - 1 : -1]
            got = logits.log_softmax(-1).gather(-1, response.unsqueeze(-1)).squeeze(-1)
            worst = max(worst, float((got - wanted).abs().max()))
        return worst

    weights = {name: value.detach().clone() for name, value in actor.engine.get_per_tensor_param()[0]}
    before = rollouts_difference()
    wrong = {name: value for name, value in weights.items() if name != "model.norm.weight"}
    wrong |= {"extra": torch.zeros(1), "model.layers.0.input_layernorm.weight": torch.zeros(3)}
    refused = fsdp1 = ""
    try:
        copy_weights(rollout, wrong)
    except ValueError as error:
        refused = str(error)
    unchanged = rollouts_difference()
    copy_weights(rollout, weights)
    try:
        worker(strategy="fsdp")
    except ValueError as error:
        fsdp1 = str(error)
    said = {
        "device": get_device_name(),
        "engine": type(actor.engine).__name__,
        "rewarded": float(change[rewards > 0].mean()),
        "unrewarded": float(change[rewards == 0].mean()),
        "reference_difference": max(float((a - b).abs().max()) for a, b in zip(still, old, strict=True)),
        "before_sync": min(before, unchanged),
        "after_sync": rollouts_difference(),
        "refused": refused,
        "fsdp1": fsdp1,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
