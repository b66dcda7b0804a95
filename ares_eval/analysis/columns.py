"""A run's measured draws as columns: what every analysis takes in, one row a draw.

Rows are ordered by task, sample and draw, whatever the order of the file, so results do not depend on the order in
which replies came. Draws that were not measured are left out: they say nothing about how the model thought.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.types import Record

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Draws:
    """N measured draws. Arrays have shape (N,); floats are NaN where a number is unknown.

    ``question`` numbers the pairs (task, sample), ``cluster`` the pairs (task, group): draws of one cluster are not
    independent. ``completion``, ``reasoning``, ``answer``: generated tokens in all, before, and in the answer.
    ``characters``: of reasoning and text. ``estimated``: tokens that were not counted by the server.
    """

    records: tuple[Record, ...]
    tasks: tuple[str, ...]
    task: np.ndarray
    question: np.ndarray
    cluster: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    truncated: np.ndarray
    completion: np.ndarray
    reasoning: np.ndarray
    answer: np.ndarray
    characters: np.ndarray
    estimated: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def of_task(self, name: str) -> np.ndarray:
        """(M,) the rows of one task; ValueError where the run has none."""
        import numpy as np

        return np.flatnonzero(self.task == self.tasks.index(name))


def draws_of(records: Iterable[Record]) -> Draws:
    """The columns of the measured ones among ``records`` (each draw once, as ``Run.records`` gives them)."""
    import numpy as np

    kept = sorted((r for r in records if r.measured), key=lambda r: (r.task, r.sample, r.draw))
    tasks = tuple(dict.fromkeys(r.task for r in kept))
    number = {name: i for i, name in enumerate(tasks)}
    completion = _floats([r.usage.completion for r in kept])
    reasoning = _floats([r.usage.reasoning for r in kept])
    return Draws(
        records=tuple(kept),
        tasks=tasks,
        task=np.array([number[r.task] for r in kept], dtype=np.int64),
        question=_numbered([(r.task, r.sample) for r in kept]),
        cluster=_numbered([(r.task, r.group) for r in kept]),
        right=np.array([r.verdict is not None and r.verdict.value == "correct" for r in kept], dtype=np.bool_),
        wrong=np.array([r.verdict is not None and r.verdict.value == "incorrect" for r in kept], dtype=np.bool_),
        truncated=np.array([r.truncated for r in kept], dtype=np.bool_),
        completion=completion,
        reasoning=reasoning,
        answer=completion - reasoning,
        characters=np.array([len(r.text or "") + len(r.reasoning) for r in kept], dtype=np.float64),
        estimated=np.array([r.usage.estimated for r in kept], dtype=np.bool_),
    )


def recounted(draws: Draws, tokenizer: str) -> Draws:
    """The same draws with tokens counted anew by a named tokenizer, so that models with different ones compare.

    ``tokenizer``: a ``tokenizer.json``, a folder that holds one, or a name on the hub. Needs the ``tokenizers``
    package (extra [hf]). OSError where the tokenizer cannot be had.
    """
    from dataclasses import replace
    from pathlib import Path

    import numpy as np
    from tokenizers import Tokenizer

    path = Path(tokenizer)
    if path.is_dir():
        path = path / "tokenizer.json"
    if path.exists():
        model = Tokenizer.from_file(str(path))
    elif path.suffix == ".json" or tokenizer.startswith((".", "/")):
        raise FileNotFoundError(f"no tokenizer at {path}")
    else:
        model = Tokenizer.from_pretrained(tokenizer)

    def count(texts: list[str]) -> np.ndarray:
        encoded = model.encode_batch_fast(texts, add_special_tokens=False)
        return np.array([len(each.ids) for each in encoded], dtype=np.float64)

    answer = count([r.text or "" for r in draws.records])
    reasoning = count([r.reasoning for r in draws.records])
    apart = np.array([bool(r.reasoning) for r in draws.records], dtype=np.bool_)
    return replace(
        draws,
        completion=answer + reasoning,
        reasoning=np.where(apart, reasoning, np.nan),
        answer=np.where(apart, answer, np.nan),
        estimated=np.ones(len(draws), dtype=np.bool_),
    )


def _numbered(keys: Sequence[tuple[str, str]]) -> np.ndarray:
    import numpy as np

    numbers: dict[tuple[str, str], int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _floats(values: Sequence[int | None]) -> np.ndarray:
    import numpy as np

    return np.array(values, dtype=np.float64)
