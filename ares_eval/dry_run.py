"""What a run would send, counted without sending it: requests, pictures, prompt tokens and cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ares_eval import evaluate, plan
from ares_eval.types import PicturePart

if TYPE_CHECKING:
    from ares_eval.config import RunConfig
    from ares_eval.tasks import Task

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for English text and today's vocabularies."""

PIXELS_PER_TOKEN = 28 * 28
"""A Qwen2.5-VL picture token covers 28 x 28 pixels; other models differ by a factor of two or so."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one task would send. ``prompt_tokens`` is an estimate; ``answer_tokens`` is the most there can be."""

    task: str
    questions: int
    requests: int
    pictures: int
    prompt_tokens: int
    answer_tokens: int


def forecast(task: Task, config: RunConfig) -> Forecast:
    """Count one task; reads every question, and of each picture its header."""
    from ares_eval.tasks import pictures

    draws = plan.draws(task, config)
    questions = shown = tokens = answer = 0
    for sample in task.samples():
        settings = plan.settings(task, sample, config)
        limits = pictures.PixelLimits(settings.min_pixels, settings.max_pixels)
        questions += 1
        answer += settings.max_tokens if sample.ask == "reply" else 1
        prompt = plan.prompt(sample, settings)
        characters = sum(len(part) for message in prompt.messages for part in message.parts if isinstance(part, str))
        tokens += round(characters / CHARACTERS_PER_TOKEN)
        for message in sample.messages:
            for part in message.parts:
                if isinstance(part, PicturePart):
                    width, height = pictures.prepare(part.picture, limits).size
                    shown += 1
                    tokens += round(width * height / PIXELS_PER_TOKEN)
    requests = questions * draws
    return Forecast(task.name, questions, requests, shown * draws, tokens * draws, answer * draws)


def cost(forecasts: list[Forecast], config: RunConfig) -> tuple[float, float] | None:
    """(least, most) in the prices' currency: no answer at all, and every answer as long as it may be."""
    if config.input_price is None or config.output_price is None:
        return None
    asked = sum(one.prompt_tokens for one in forecasts) * config.input_price / 1e6
    return asked, asked + sum(one.answer_tokens for one in forecasts) * config.output_price / 1e6


def show(config: RunConfig, write: Callable[[str], None]) -> int:
    """Write the forecast of every task; exit code 0, or 3 where a dataset is unavailable."""
    whole = evaluate.load_tasks(config, write if not config.json else lambda _: None)
    forecasts = [forecast(task, config) for task in whole.tasks.values()]
    money = cost(forecasts, config)
    if config.json:
        write(
            json.dumps({"tasks": [asdict(one) for one in forecasts], "cost": money, "unavailable": whole.unavailable})
        )
    else:
        names = ("task", "questions", "requests", "pictures", "prompt tokens ~", "answer tokens <=")
        rows = [names, *([str(value) for value in asdict(one).values()] for one in forecasts)]
        totals = [sum(getattr(one, name) for one in forecasts) for name in list(asdict(forecasts[0]))[1:]]
        rows.append(("total", *map(str, totals)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(row)))]
            write("  ".join(cells))
        if money is not None:
            write(f"cost: at least {money[0]:.2f}, at most {money[1]:.2f}")
        write("nothing was sent")
    return evaluate.INCOMPLETE if whole.unavailable and not config.skip_unavailable else evaluate.COMPLETE
