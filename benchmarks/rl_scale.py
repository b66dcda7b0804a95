"""`python -m benchmarks.rl_scale`: what a row of an AEPO step weighs, and how long the step's own arithmetic takes.

Rows are made by verl's own agent-loop worker (its fields, its types); the trainer's fields are added as verl's trainer
and ours write them. Printed: bytes of a response token and of a prompt token, field by field; bytes of a row whatever
its length; CPU seconds of reading rows into arrays, of `ares_train.aepo.step.shape` and of writing back, at a size that
is chosen. docs/scale.md computes a step of 512 x 8 answers from it. Needs the training environment; no Ray, no GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import time
from typing import Any

import numpy as np

SHORT, LONG = 256, 1280
"""Two lengths of a response; the difference is what its tokens cost."""


class Kept:
    """Stands for TransferQueue: keeps the rows that a worker stores."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    async def async_kv_batch_put(self, keys: list[str], fields: Any, **_: Any) -> None:
        self.rows += [fields[number] for number in range(len(keys))]


def row(prompt: int, response: int, positions: int) -> dict[str, Any]:
    """Fields of one finished row, as verl's worker stores them and the trainer adds to them."""
    import torch
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
    from verl.trainer.ppo.v1 import agent_loop_tq

    from ares_train.rl.fields import RECORD, session_record

    worker: Any = object.__new__(agent_loop_tq.AgentLoopWorkerTQ.__ray_metadata__.modified_class)
    worker.processor, worker.reward_loop_worker_handles, worker.distillation_enabled = None, None, False
    output = AgentLoopOutput(
        prompt_ids=[1] * prompt,
        response_ids=[2] * response,
        response_mask=[1] * response,
        response_logprobs=[-0.5] * response,
        reward_score=1.0,
        num_turns=2,
        metrics=AgentLoopMetrics(),
        extra_fields={
            RECORD: session_record(base=True, quantile=1.0, source="server_topk", request="0" * 32),
            "reward_extra_info": {"score": 1.0, "acc": 1.0, "unverifiable": 0.0, "no_answer": 0.0},
            "min_global_steps": 1, "max_global_steps": 1, "turn_scores": [], "tool_rewards": [],
        },
    )  # fmt: skip
    kept, queue = Kept(), agent_loop_tq.tq
    agent_loop_tq.tq = kept
    try:
        asyncio.run(
            worker._agent_loop_postprocess(
                output, False, uid="00000001p000000", session_id=0, global_steps=1,
                raw_prompt=[{"role": "user", "content": "?"}], data_source="d", reward_model={"ground_truth": "1"},
            )
        )  # fmt: skip
    finally:
        agent_loop_tq.tq = queue
    fields = {name: kept.rows[0][name] for name in kept.rows[0].keys()}  # noqa: SIM118 - a tensordict
    whole = torch.zeros(prompt + response)
    own = torch.zeros(response)
    if positions > 1:
        fields["position_ids"] = fields["position_ids"].expand(positions, -1).clone()
    return {
        **fields, "log_probs": whole, "old_log_probs": own, "entropy": own, "ref_log_prob": own, "advantages": own,
        "returns": own, "token_level_rewards": own, "ares_kl_weight": own,
        "ares_kl_class": torch.zeros(response, dtype=torch.int8),
    }  # fmt: skip


def weight(value: Any) -> int:
    """Bytes of a field: of a tensor its elements', of anything else its pickle's."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return len(pickle.dumps(getattr(value, "data", value)))


def per_token(positions: int) -> tuple[dict[str, float], dict[str, float], int]:
    """(bytes a response token by field, bytes a prompt token by field, bytes of a row besides)."""
    base = {name: weight(value) for name, value in row(SHORT, SHORT, positions).items()}
    response = {name: weight(value) for name, value in row(SHORT, LONG, positions).items()}
    prompt = {name: weight(value) for name, value in row(LONG, SHORT, positions).items()}
    by_response = {name: (response[name] - base[name]) / (LONG - SHORT) for name in base}
    by_prompt = {name: (prompt[name] - base[name]) / (LONG - SHORT) for name in base}
    rest = sum(base.values()) - SHORT * (sum(by_response.values()) + sum(by_prompt.values()))
    return by_response, by_prompt, round(rest)


def per_pixel(side: int = 1024) -> float:
    """Bytes of a picture's pixel values in a row, by pixel after resizing (Qwen2.5-VL's processor)."""
    from PIL import Image
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(patch_size=14, min_pixels=56 * 56, max_pixels=side * side)
    made = processor(images=[Image.new("RGB", (side, side))], return_tensors="pt")
    _, high, wide = made["image_grid_thw"][0].tolist()
    return weight(made["pixel_values"]) / (high * 14 * wide * 14)


def arithmetic(rows: int, tokens: int, forks: int) -> dict[str, float]:
    """CPU seconds of a step's own work on ``rows`` answers of up to ``tokens`` tokens, ``forks`` of every 8 being
    forks."""
    import torch
    from tensordict import NonTensorData, NonTensorStack, TensorDict

    from ares_train.aepo.config import AEPOConfig
    from ares_train.aepo.state import AEPOState
    from ares_train.aepo.step import shape
    from ares_train.rl import rows as conversion
    from ares_train.rl.fields import RECORD, session_record

    random = np.random.default_rng(0)
    lengths = random.integers(tokens // 4, tokens + 1, rows)
    records = []
    for number in range(rows):
        session = number % 8
        fork = session >= 8 - forks
        records.append(
            session_record(base=not fork, parent=0 if fork else -1, fork_at=tokens // 8 if fork else 0, quantile=1.0)
        )
    keys = [f"{number // 8:08d}_{number % 8}_0" for number in range(rows)]

    def nested(make: Any) -> torch.Tensor:
        return torch.nested.as_nested_tensor([make(int(length)) for length in lengths], layout=torch.jagged)

    extra = [{RECORD: record, "reward_extra_info": {"acc": float(random.random() < 0.5)}} for record in records]
    data = TensorDict(
        {
            "uid": NonTensorStack.from_list([NonTensorData(key.split("_")[0]) for key in keys]),
            "response_mask": nested(lambda length: torch.ones(length, dtype=torch.int64)),
            "rm_scores": nested(lambda length: torch.zeros(length)),
            "entropy": nested(lambda length: torch.from_numpy(random.gamma(0.5, 0.6, length).astype(np.float32))),
            "extra_fields": NonTensorStack.from_list([NonTensorData(value) for value in extra]),
        },
        batch_size=rows,
    )
    config = AEPOConfig.from_dict({"branch": {"mode": "extra"}})
    seconds, start = {}, time.process_time()

    def lap(name: str) -> None:
        nonlocal start
        now = time.process_time()
        seconds[name], start = now - start, now

    read = conversion.read(keys, [{} for _ in keys], data)
    lap("rows to arrays")
    shaped = shape(read.rollouts, AEPOState(), config)
    lap("shape")
    conversion.kl_fields(read, shaped)
    conversion.rewards(read, shaped.reward)
    conversion.advantages(read, shaped.advantage, data["response_mask"])
    lap("arrays to rows")
    seconds["tokens"] = float(lengths.sum())
    return seconds


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rl_scale", description=__doc__)
    parser.add_argument("--rows", type=int, default=512, help="answers of the timed step [512]")
    parser.add_argument("--tokens", type=int, default=16384, help="its longest answer [16384]")
    parser.add_argument("--forks", type=int, default=2, help="forks among every 8 answers [2]")
    asked = parser.parse_args()
    for positions, name in ((1, "text"), (4, "with pictures (positions of four rows)")):
        response, prompt, rest = per_token(positions)
        print(f"{name}: {sum(response.values()):.0f} B a response token, {sum(prompt.values()):.0f} B a prompt token, "
              f"{rest} B a row")  # fmt: skip
        for field in sorted(response, key=lambda field: -response[field]):
            if response[field] or prompt[field]:
                print(f"  {field:20} {response[field]:4.0f} {prompt[field]:4.0f}")
    print(f"pictures: {per_pixel():.1f} B a pixel, in each row of a question")
    seconds = arithmetic(asked.rows, asked.tokens, asked.forks)
    print(f"{asked.rows} rows, {seconds.pop('tokens') / 1e6:.1f} M tokens: "
          + ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
