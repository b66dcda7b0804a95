"""A transformer of Qwen2's architecture and a quarter of a million weights that learns sums in minutes on one core.

``python tiny_model.py PRETRAIN.jsonl OUT --steps N`` trains it from nothing and writes a Hugging Face folder with
tokenizer and chat template. It is meant to stay imperfect: sure of easy sums, lost in hard ones, so that pass rates
reach from 0 to 1.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

CONTEXT = 512

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(texts: list[str]) -> Any:
    """Byte-level BPE trained on ``texts``; every digit is a token of its own, or sums could not be learnt."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        [*texts, *["user assistant system"] * 100],
        trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    raw.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=CONTEXT
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def model(tokens: Any, layers: int, width: int) -> Any:
    """With random weights."""
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    made = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=(len(tokens) + 63) // 64 * 64,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            # So narrow a model learns to copy digits in a third of the steps when it starts wider than 0.02.
            initializer_range=0.08,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
            bos_token_id=None,
        )
    ).float()
    made.generation_config = GenerationConfig(
        eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id, do_sample=False
    )
    return made


def encode(tokens: Any, rows: list[dict[str, Any]]) -> list[tuple[list[int], int]]:
    """Each row's token ids, and where its answer begins."""
    wholes = tokens.apply_chat_template([row["messages"] for row in rows], tokenize=False)
    prompts = tokens.apply_chat_template(
        [row["messages"][:-1] for row in rows], tokenize=False, add_generation_prompt=True
    )
    ids = tokens(wholes, add_special_tokens=False)["input_ids"]
    starts = [len(prompt) for prompt in tokens(prompts, add_special_tokens=False)["input_ids"]]
    return list(zip(ids, starts, strict=True))


def train(made: Any, rows: list[tuple[list[int], int]], pad: int, steps: int, batch: int, rate: float) -> None:
    """AdamW with warm-up and cosine, loss on answers alone; rows of like length share a batch."""
    import torch

    chance = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(made.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    order: list[list[int]] = []
    started = time.monotonic()
    for step in range(steps):
        if not order:
            shuffled = torch.randperm(len(rows), generator=chance).tolist()
            pools = [
                sorted(shuffled[i : i + 32 * batch], key=lambda r: len(rows[r][0]))
                for i in range(0, len(rows), 32 * batch)
            ]
            batches = [pool[i : i + batch] for pool in pools for i in range(0, len(pool), batch)]
            order = [batches[i] for i in torch.randperm(len(batches), generator=chance).tolist()]
        chosen = [rows[i] for i in order.pop()]
        width = max(len(ids) for ids, _ in chosen)
        ids = torch.full((len(chosen), width), pad)
        labels = torch.full((len(chosen), width), -100)
        for i, (row, start) in enumerate(chosen):
            ids[i, : len(row)] = torch.tensor(row)
            labels[i, start : len(row)] = torch.tensor(row[start:])
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        # Padding stands at the end, where a causal model does not see it.
        loss = made(input_ids=ids, labels=labels, use_cache=False).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=96)
    asked = parser.parse_args()
    import torch

    torch.manual_seed(0)
    rows = [json.loads(line) for line in asked.lessons.read_text(encoding="utf-8").splitlines()]
    tokens = tokenizer([turn["content"] for row in rows[:5000] for turn in row["messages"]])
    made = model(tokens, asked.layers, asked.width)
    print(f"{sum(p.numel() for p in made.parameters()):,} weights, {len(rows):,} lessons", flush=True)
    train(made, encode(tokens, rows), tokens.pad_token_id, asked.steps, asked.batch, asked.rate)
    made.eval().save_pretrained(asked.out)
    tokens.save_pretrained(asked.out)


if __name__ == "__main__":
    main()
