"""Run by test_verl_cpu_engine in a process of its own: verl's actor on pictures, its vision tower frozen or not, and
its weights and log-probabilities against the rollout's.

``python verl_cpu_seeing_actor.py MODEL``; the last line is JSON.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager

import numpy as np
import torch
from tensordict import NonTensorStack

from tests.train.verl_actor import batch, log_probs, nested, one_rank, train, use_ppo_loss, weights, worker


def rows(processor, count: int):
    """Prompts (one in three without a picture), position ids of prompt and response, vision inputs, pictures."""
    from PIL import Image

    rng = np.random.default_rng(0)
    prompts, responses, positions, vision, pictures = [], [], [], [], []
    for number in range(count):
        shown = [] if number % 3 == 2 else [Image.fromarray(rng.integers(0, 255, (56, 84, 3), dtype=np.uint8))]
        content = [*({"type": "image"} for _ in shown), {"type": "text", "text": f"What is {number}?"}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=[text], images=shown or None, return_tensors="pt")
        prompt = inputs["input_ids"][0]
        response = torch.tensor(rng.integers(3, 300, size=5 + number % 3))
        whole = torch.cat([prompt, response]).unsqueeze(0)
        kinds = (whole == processor.image_token_id).long()
        seen, _ = processor.get_rope_index(
            input_ids=whole, mm_token_type_ids=kinds, image_grid_thw=inputs.get("image_grid_thw"),
            attention_mask=torch.ones_like(whole),
        )  # fmt: skip
        prompts.append(prompt)
        responses.append(response)
        positions.append(torch.cat([torch.arange(whole.shape[1]).unsqueeze(0), seen[:, 0]]))
        vision.append({name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs})
        pictures.append(shown)
    return prompts, responses, positions, vision, pictures


@contextmanager
def as_transformers_has_them(originals):
    """Without verl's patches of the model's classes: a rollout server is a process of its own, where none are made."""
    patched = {kind: kind.forward for kind in originals}
    try:
        for kind, forward in originals.items():
            kind.forward = forward
        yield
    finally:
        for kind, forward in patched.items():
            kind.forward = forward


def main(path: str) -> None:
    one_rank()
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

    originals = {kind: kind.forward for kind in (qwen.Qwen2_5_VLModel, qwen.Qwen2_5_VLForConditionalGeneration)}
    said = {}
    for frozen in (True, False):
        actor = worker(path, freeze_vision_tower=frozen)
        use_ppo_loss(actor)
        prompts, responses, positions, vision, pictures = rows(actor.model_config.processor, 8)

        def made(prompts=prompts, responses=responses, positions=positions, vision=vision, **extra):
            fields = {"position_ids": nested(positions), "multi_modal_inputs": NonTensorStack(*vision), **extra}
            return batch(prompts, responses, **fields)

        before = weights(actor)
        old = log_probs(actor, made())
        advantages = nested([torch.full((len(row),), 1.0 - 2 * (n % 2)) for n, row in enumerate(responses)])
        train(actor, made(old_log_probs=nested(old), advantages=advantages))
        after = weights(actor)
        changed = {name for name in after if not torch.equal(before[name], after[name])}
        tower = {name for name in after if ".visual." in name}
        said["frozen" if frozen else "free"] = {
            "tower": len(tower),
            "tower_changed": len(tower & changed),
            "rest": len(after) - len(tower),
            "rest_changed": len(changed - tower),
            "optimizer": sum(len(group["params"]) for group in actor.engine.optimizer.param_groups),
            "in_config": hasattr(actor.engine.module.config, "freeze_vision_tower"),
        }
    answers = first_tokens(actor, prompts, pictures, originals)
    drawn = [
        torch.tensor([answer.tokens[0], *row[1:].tolist()]) for answer, row in zip(answers, responses, strict=True)
    ]
    judged = log_probs(actor, made(responses=drawn))
    said["rollout_difference"] = max(
        abs(float(row[0]) - answer.log_probs[0]) for row, answer in zip(judged, answers, strict=True)
    )
    print(json.dumps(said))


def first_tokens(actor, prompts, pictures, originals):
    """The rollout's most probable first token of each response, with the trained actor's weights."""
    from ares_train.verl_cpu.generation import Ask
    from ares_train.verl_cpu.rollout_server import copy_weights, load
    from ares_train.verl_cpu.sampling import Settings

    generator = load(actor.model_config, "float32")
    copy_weights(generator.model, weights(actor))
    greedy = Settings(0.0, 0, 1.0, 1, True)
    asks = [
        Ask(prompt.tolist(), greedy, np.random.default_rng(0), shown)
        for prompt, shown in zip(prompts, pictures, strict=True)
    ]
    with as_transformers_has_them(originals):
        return generator.answer(asks, max_batch=8)


if __name__ == "__main__":
    main(sys.argv[1])
