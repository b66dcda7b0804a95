"""Run by test_verl_cpu_engine in a process of its own: three updates of verl's actor, and its weights to the rollout.

``python verl_cpu_actor.py MODEL``; the last line is JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch

from tests.train.verl_actor import batch, log_probs, nested, one_rank, train, use_ppo_loss, weights, worker


def refusal(call) -> str:
    """What a call is refused with."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def main(path: str) -> None:
    one_rank()
    from verl.trainer.ppo import core_algos
    from verl.utils.device import get_device_name

    from ares_train.verl_cpu.rollout_server import copy_weights, load

    actor = worker(path)
    use_ppo_loss(actor)
    random = torch.Generator().manual_seed(0)
    size = actor.model_config.hf_config.vocab_size
    prompts = [torch.randint(3, size, (n,), generator=random) for n in (4, 8, 5, 6, 7, 4, 8, 5)]
    responses = [torch.randint(3, size, (n,), generator=random) for n in (5, 9, 6, 11, 7, 8, 5, 10)]

    old = log_probs(actor, batch(prompts, responses))
    reference = worker(path, forward_only=True)
    rewards = torch.tensor([1.0, 0, 1, 0, 1, 1, 0, 0])
    mask = torch.nested.to_padded_tensor(nested([torch.ones_like(row) for row in responses]), 0)
    tokens = torch.zeros(mask.shape)
    tokens[torch.arange(8), mask.sum(-1) - 1] = rewards
    advantages, _ = core_algos.get_adv_estimator_fn("grpo")(
        token_level_rewards=tokens, response_mask=mask.float(), index=np.array(list("aaaabbbb"), dtype=object)
    )
    for _ in range(3):
        given = nested([advantages[row, : len(responses[row])] for row in range(8)])
        train(actor, batch(prompts, responses, old_log_probs=nested(old), advantages=given))
    new = log_probs(actor, batch(prompts, responses))
    change = torch.tensor([float((a - b).mean()) for a, b in zip(new, old, strict=True)])
    still = log_probs(reference, batch(prompts, responses))

    rollout = load(actor.model_config, "float32").model

    def rollouts_difference() -> float:
        worst = 0.0
        for prompt, response, wanted in zip(prompts, responses, new, strict=True):
            with torch.no_grad():
                logits = rollout(torch.cat([prompt, response]).unsqueeze(0)).logits[0, len(prompt) - 1 : -1]
            got = logits.log_softmax(-1).gather(-1, response.unsqueeze(-1)).squeeze(-1)
            worst = max(worst, float((got - wanted).abs().max()))
        return worst

    given = weights(actor)
    before = rollouts_difference()
    wrong = {name: value for name, value in given.items() if name != "model.norm.weight"}
    wrong |= {"extra": torch.zeros(1), "model.layers.0.input_layernorm.weight": torch.zeros(3)}
    refused = refusal(lambda: copy_weights(rollout, wrong))
    unchanged = rollouts_difference()
    copy_weights(rollout, given)
    said = {
        "device": get_device_name(),
        "engine": type(actor.engine).__name__,
        "rewarded": float(change[rewards > 0].mean()),
        "unrewarded": float(change[rewards == 0].mean()),
        "reference_difference": max(float((a - b).abs().max()) for a, b in zip(still, old, strict=True)),
        "before_sync": min(before, unchanged),
        "after_sync": rollouts_difference(),
        "refused": refused,
        "fsdp1": refusal(lambda: worker(path, strategy="fsdp")),
        "no_tower": refusal(lambda: worker(path, freeze_vision_tower=True)),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
