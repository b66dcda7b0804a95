"""What window size w and quantile q measure on the starting checkpoint: a table, without any training.

Flagged share of tokens, share of answers with no flagged window, N_HE by level, of right and of wrong answers, and how
often a flagged window starts at a word of thought (an oracle that only such a task has).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ares_train.aepo.config import WindowConfig
from ares_train.aepo.entropy import tau_high
from ares_train.aepo.windows import flags
from examples.miniature.evaluate import EvaluationSettings, answers_of, measured
from examples.miniature.model import LanguageModel
from examples.miniature.rollout import triggers
from examples.miniature.task import LEVELS, Task

SIZES = (1, 2, 3, 4, 6)
QUANTILES = (0.8, 0.9, 0.95)


def window_grid(model: LanguageModel, task: Task, settings: EvaluationSettings) -> list[dict[str, Any]]:
    """One row per (w, q)."""
    asked, answers = answers_of(model, task, settings)
    level = np.repeat([question.level for question in asked], settings.draws)
    seen = measured(asked, answers)
    right = seen.correct > 0
    words = triggers(answers.tokens, seen.mask.shape, task)
    rows = []
    for size in SIZES:
        for quantile in QUANTILES:
            window = WindowConfig(size=size, quantile=quantile)
            tau = tau_high(seen, window)
            flagged = flags(seen, tau, window).flagged
            count = flagged.sum(1)
            rows.append(
                {
                    "w": size,
                    "q": quantile,
                    "tau": round(tau, 4),
                    "flagged": round(float(flagged.sum() / seen.mask.sum()), 4),
                    "none": round(float((count == 0).mean()), 4),
                    "hwe": [round(float(count[level == each].mean()), 3) for each in range(LEVELS)],
                    "right": [average(count[(level == each) & right]) for each in range(LEVELS)],
                    "wrong": [average(count[(level == each) & ~right]) for each in range(LEVELS)],
                    "at_word": average(words[flagged]),
                    "words": round(float(words.sum() / seen.mask.sum()), 4),
                }
            )
    return rows


def average(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 3) if len(values) else None
