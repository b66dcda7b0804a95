"""A task that a tiny model half knows, for real RL runs in tests: guess the digit that is wanted.

``make(folder)`` writes a text model (trained here, in seconds, to think a while in random words and then to say 1, 2 or
3 with the odds 7 : 2 : 1) and the parquet files of questions that want one of them: questions of three difficulties,
answers of many lengths, entropy where the words and the guess are. ``make_pictures`` writes a vision-language model of
random weights and questions with pictures.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

ODDS = {"1": 7, "2": 2, "3": 1}
TRUTHS = (r"\frac{2}{2}", r"\sqrt{4}", r"\log_{2} 8")
"""1, 2 and 3, so that comparing takes algebra, which the verifier leaves to processes that it can kill."""

WORDS = (" wait", " think", " look", " step")
MOST_WORDS = 6
RESPONSE_LENGTH = 20


def prompt(number: int) -> str:
    return f"Question {number}."


def answer(rng: random.Random) -> str:
    words = "".join(rng.choice(WORDS) for _ in range(rng.randint(1, MOST_WORDS)))
    return f"<think>{words}</think> \\boxed{{{rng.choices(list(ODDS), list(ODDS.values()))[0]}}}"


def train(model: Any, tokenizer: Any, *, steps: int = 90, rows: int = 16, seed: int = 0) -> float:
    """Teach ``model`` the form of the answers; the last loss is returned."""
    import torch

    rng = random.Random(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        texts, starts = [], []
        for _ in range(rows):
            messages = [{"role": "user", "content": prompt(rng.randrange(100))}]
            asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            starts.append(len(tokenizer(asked).input_ids))
            texts.append(tokenizer(asked + answer(rng) + tokenizer.eos_token).input_ids)
        width = max(map(len, texts))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in texts])
        labels = torch.full_like(ids, -100)
        for row, (text, start) in enumerate(zip(texts, starts, strict=True)):
            labels[row, start : len(text)] = ids[row, start : len(text)]
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def make(folder: Path) -> Path:
    """``folder/{model,train.parquet,val.parquet}``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.models import tiny_text

    torch.set_num_threads(1)
    tiny_text.build(folder / "raw", width=128, layers=2)
    model = AutoModelForCausalLM.from_pretrained(folder / "raw").float()
    tokenizer = AutoTokenizer.from_pretrained(folder / "raw")
    train(model, tokenizer)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name, count in (("train", 64), ("val", 8)):
        rows = [row(prompt(index), TRUTHS[index % 3], index, name) for index in range(count)]
        write(rows, folder / f"{name}.parquet")
    return folder


def make_pictures(folder: Path) -> Path:
    """``folder/{model,train.parquet,val.parquet,*.png}``: two sizes of pictures, and some prompts without one."""
    from PIL import Image

    from tests.models import tiny_qwen_vl

    tiny_qwen_vl.build(folder / "model")
    rng = random.Random(2)
    for name, count in (("train", 8), ("val", 2)):
        rows = []
        for index in range(count):
            file = folder / f"{name}_{index}.png"
            Image.new("RGB", (56 + 28 * (index % 2), 56), (rng.randrange(256), 0, 128)).save(file)
            rows.append({**row("<image>Which letter?", "A", index, name), "images": [{"image": str(file)}]})
        write(rows, folder / f"{name}.parquet")
    return folder


def row(text: str, truth: str, index: int, split: str) -> dict[str, Any]:
    """One question as verl wants it."""
    return {
        "data_source": "pick",
        "prompt": [{"role": "user", "content": text}],
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"index": index, "split": split, "question": text, "answer": {"type": "auto"}},
    }


def write(rows: list[dict[str, Any]], file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), file)
