"""Answers of a transformers model to many prompts at once, with the random numbers each prompt brings.

Prompts of text are batched (left padding, key-value cache, finished rows leave the batch); a prompt with pictures runs
alone, with the vision inputs of the checkpoint's processor and multimodal rotary positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ares_train.verl_cpu.sampling import Settings, draw


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt as token ids, with one ``<|image_pad|>``-like token for every token of a picture."""

    prompt: Sequence[int]
    settings: Settings
    stream: np.random.Generator
    pictures: Sequence[Any] = ()


@dataclass(slots=True)
class Answer:
    """``log_probs`` and ``entropies`` (nats, whole vocabulary) are parallel to ``tokens``, which include the end token.
    ``ended``: the model ended it itself; otherwise its tokens ran out."""

    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    ended: bool = False


class Generator:
    """A model ready to answer. ``ends``: token ids that end an answer; ``processor``: for pictures, may be None."""

    def __init__(self, model: Any, *, ends: frozenset[int], pad: int, processor: Any = None) -> None:
        self.model, self.ends, self.pad, self.processor = model, ends, pad, processor
        self._rotary3 = hasattr(getattr(model, "model", None), "get_rope_index")

    def answer(self, asks: Sequence[Ask], max_batch: int) -> list[Answer]:
        """An answer to each ask, in order. An answer depends on its own ask and the weights only."""
        answers: list[Answer | None] = [None] * len(asks)
        text = [number for number, ask in enumerate(asks) if not ask.pictures]
        batches = [text[start : start + max_batch] for start in range(0, len(text), max_batch)]
        batches += [[number] for number, ask in enumerate(asks) if ask.pictures]
        with torch.inference_mode():
            for batch in batches:
                for number, answer in zip(batch, self._batch([asks[number] for number in batch]), strict=True):
                    answers[number] = answer
        return [answer for answer in answers if answer is not None]

    def _batch(self, asks: Sequence[Ask]) -> list[Answer]:
        answers = [Answer() for _ in asks]
        live = list(range(len(asks)))
        ids, mask = self._padded(asks)
        positions, vision = self._positions(ids, mask, asks)
        next_position = positions.amax((0, -1) if positions.ndim == 3 else -1) + 1
        cache: Any = None
        while True:
            out = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                **vision,
            )
            tokens = self._draw(out.logits[:, -1], [asks[row] for row in live], [answers[row] for row in live])
            going = [
                place
                for place, row in enumerate(live)
                if not answers[row].ended and len(answers[row].tokens) < asks[row].settings.max_tokens
            ]
            if not going:
                return answers
            cache, vision, ids = out.past_key_values, {}, tokens.unsqueeze(-1)
            if len(going) < len(live):
                chosen = torch.tensor(going)
                cache.batch_select_indices(chosen)
                ids, mask, next_position = ids[chosen], mask[chosen], next_position[chosen]
                live = [live[place] for place in going]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], -1)
            positions = next_position.unsqueeze(-1)
            if self._rotary3:
                positions = positions.unsqueeze(0).expand(3, -1, -1)
            next_position = next_position + 1

    def _draw(self, logits: torch.Tensor, asks: Sequence[Ask], answers: Sequence[Answer]) -> torch.Tensor:
        settings = [ask.settings for ask in asks]
        drawn = draw(
            logits,
            torch.tensor([each.temperature for each in settings]),
            torch.tensor([each.top_k for each in settings]),
            torch.tensor([each.top_p for each in settings], dtype=torch.float64),
            torch.tensor([ask.stream.random() for ask in asks], dtype=torch.float64),
        )
        columns = zip(answers, drawn.token.tolist(), drawn.log_prob.tolist(), drawn.entropy.tolist(), strict=True)
        for answer, token, log_prob, entropy in columns:
            answer.tokens.append(token)
            answer.log_probs.append(log_prob)
            answer.entropies.append(entropy)
            answer.ended = token in self.ends
        return drawn.token

    def _padded(self, asks: Sequence[Ask]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(len(ask.prompt) for ask in asks)
        ids = torch.full((len(asks), width), self.pad, dtype=torch.long)
        mask = torch.zeros((len(asks), width), dtype=torch.long)
        for row, ask in enumerate(asks):
            start = width - len(ask.prompt)
            ids[row, start:] = torch.tensor(list(ask.prompt))
            mask[row, start:] = 1
        return ids, mask

    def _positions(
        self, ids: torch.Tensor, mask: torch.Tensor, asks: Sequence[Ask]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Position ids, [B, T] or [3, B, T] where the model's rotary positions have three parts, and vision inputs."""
        pictures = asks[0].pictures
        if not pictures:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            return (positions.unsqueeze(0).expand(3, -1, -1) if self._rotary3 else positions), {}
        if self.processor is None or not self._rotary3:
            raise ValueError(
                "a picture was sent to a model without a picture processor: use a vision-language checkpoint"
            )
        seen = self.processor.image_processor(images=list(pictures), return_tensors="pt")
        grid = seen["image_grid_thw"]
        kinds = (ids == self.processor.image_token_id).long()
        wanted = int(grid.prod(-1).sum()) // self.processor.image_processor.merge_size**2
        if int(kinds.sum()) != wanted:
            raise ValueError(
                f"the prompt has {int(kinds.sum())} picture tokens, its {len(pictures)} pictures need {wanted}"
            )
        positions, _ = self.model.model.get_rope_index(
            input_ids=ids, mm_token_type_ids=kinds, image_grid_thw=grid, attention_mask=mask
        )
        return positions, {"pixel_values": seen["pixel_values"].to(self.model.dtype), "image_grid_thw": grid}
