"""A small corpus of sums with a known pass rate under the loopback server, and a configuration over it.

The loopback model answers a sum wrongly by chance, decided by its seed, the question and the request's seed; so the
right number of draws of each question is known beforehand.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ares_train.adacs import store
from ares_train.adacs.config import AdacsConfig, from_dict
from tests.loopback.text import unit

WRONG = 0.5
"""Rate of wrong answers that tests ask the loopback server for."""


def sums(count: int) -> list[dict[str, Any]]:
    """Rows with ``question``, ``answer``, ``id``."""
    return [
        {"question": f"Case {n}: what is {n} + {n * 7 % 50}?", "answer": n + n * 7 % 50, "id": f"s{n}"}
        for n in range(count)
    ]


def right_draws(prompt: str, draws: int, seed: int = 0, server_seed: int = 0, wrong: float = WRONG) -> int:
    """How many of the first draws of a question are right under loopback's ``wrong`` rate; ``prompt`` as it is sent."""
    return sum(unit(server_seed, "wrong", prompt, seed + draw) >= wrong for draw in range(draws))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def configured(source: Path, url: str = "http://127.0.0.1:9/v1", **sections: Mapping[str, Any]) -> AdacsConfig:
    """A configuration over one JSONL source and a server at ``url``; ``sections`` are merged over it."""
    values: dict[str, Any] = {
        "ingest": {
            "sources": [{"name": "sums", "path": str(source), "fields": {"id": "id"}, "answer_type": "number"}],
            "contamination": {"tasks": "none"},
            "part_rows": 8,
        },
        "sample": {
            "estimator": {
                "draws": 4,
                "ask": {"model_name": "m", "openai_base_url": url, "seed": 0, "no_cache": True, "max_retries": 1},
            }
        },
        "rate": {"workers": 1, "min_valid": 1},
    }
    return from_dict(_merged(values, sections))


def _merged(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, Mapping):
        return {name: _merged(below.get(name), above.get(name, below.get(name))) for name in [*below, *above]}
    return above


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name: what must be equal after a kill and a resume."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def silent(_line: str) -> None:
    return None


def samples(work: Path, name: str = "estimator") -> list[dict[str, Any]]:
    parts = store.opened(work / "samples" / name).parts()
    return [row for batch in store.batches(parts) for row in batch.to_pylist()]


def picture(seed: int = 0, size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    chance = random.Random(seed)
    image = Image.new("RGB", size, "white")
    for _ in range(12):
        x, y = chance.randrange(size[0]), chance.randrange(size[1])
        image.paste(tuple(chance.randrange(256) for _ in range(3)), (x, y, x + size[0] // 3, y + size[1] // 3))
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()
