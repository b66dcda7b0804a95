"""Would verl train on this row as we mean it? The check of verl's own SFT dataset, made before any GPU is asked for.

verl 0.9.1 (utils/dataset/multiturn_sft_dataset.py, MultiTurnSFTDataset) templates every turn apart, strips the system
prompt that the template repeats, and joins the ids; where that differs from the template of the whole conversation, as
with templates that add or strip ``<think>``, it stops, and so it does at a row longer than data.max_length. It splits
texts at ``<image>`` and takes the next picture for each. The same is done here, in batches and without decoding a
picture: what a picture costs follows from its size.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ares_train.adacs.errors import AdacsError
from ares_train.adacs.placeholders import IMAGE
from ares_train.verl_cpu import pictures

Messages: TypeAlias = Sequence[Mapping[str, str]]
"""Turns with ``role`` and ``content``, the last one the assistant's."""

REASONS: Mapping[str, str] = {
    "template": "the template of its turns one by one is not that of the whole",
    "too_long": "longer than write.max_length",
    "control_token": "the response holds a control token of the template",
    "picture": "a picture is gone or cannot be read",
    "no_processor": "the student has no processor for pictures",
    "nothing_to_learn": "no token of the response is left to train on",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """``tokens``: the row's length as verl counts it, None where it has none; ``reason``: of REASONS, None if good."""

    tokens: int | None
    reason: str | None


class TemplateCheck:
    """The student's template. ``processor`` is that of a vision-language model, None for a text model."""

    def __init__(self, tokenizer: Any, processor: Any, max_length: int) -> None:
        self.tokenizer, self.processor, self.max_length = tokenizer, processor, max_length
        self._frames: dict[tuple[str, ...], int] = {}
        self._controls = tuple(tokenizer.all_special_tokens)
        empty = self._ids([self._text([{"role": "user", "content": ""}] * count) for count in (1, 2)])
        self._system = len(empty[0]) - (len(empty[1]) - len(empty[0]))
        prompted = self._ids([self._text([{"role": "user", "content": ""}], add_generation_prompt=True)])[0]
        self._generation = len(prompted) - len(empty[0])

    def check(self, rows: Sequence[tuple[Messages, Sequence[str]]]) -> list[Checked]:
        """One result a row of (messages, picture paths)."""
        turns = [[self._text([turn]) for turn in messages] for messages, _ in rows]
        ids = iter(self._ids([text for texts in turns for text in texts]))
        wholes = self._ids([self._text(messages) for messages, _ in rows])
        found = []
        for (messages, images), texts, whole in zip(rows, turns, wholes, strict=True):
            parts = [next(ids) for _ in texts]
            found.append(self._judge(messages, images, parts, whole))
        return found

    def prompt_tokens(self, messages: Messages, images: Sequence[str]) -> int:
        """Length of a prompt as verl's RL dataset counts it: templated up to the opening of the answer.

        OSError or ValueError where a picture cannot be read or there is no processor for it.
        """
        if images and self.processor is None:
            raise ValueError("the model has no processor for pictures")
        ids = self._ids([self._text(messages, add_generation_prompt=True)])[0]
        return len(ids) + sum(self._picture_tokens(path) - 1 for path in images)

    def surely_fits(self, messages: Messages, images: Sequence[str]) -> bool:
        """Whether the bytes alone show that a row is short enough: byte-level tokens are never more than bytes."""
        if images:
            return False
        size = sum(len(turn["content"].encode()) for turn in messages)
        return size + self._frame(tuple(turn["role"] for turn in messages)) <= self.max_length

    def holds_control(self, text: str) -> bool:
        """Whether a text would end a turn or stand for something else than itself."""
        return any(token in text for token in self._controls)

    def _judge(self, messages: Messages, images: Sequence[str], parts: list[list[int]], whole: list[int]) -> Checked:
        if self.holds_control(messages[-1]["content"]):
            return Checked(None, "control_token")
        if images and self.processor is None:
            return Checked(None, "no_processor")
        stripped = [
            part[self._system :] if place and turn["role"] != "system" else part
            for place, (turn, part) in enumerate(zip(messages, parts, strict=True))
        ]
        if [token for part in stripped for token in part] != whole:
            return Checked(None, "template")
        if len(stripped[-1]) <= self._generation:
            return Checked(None, "nothing_to_learn")
        try:
            shown = sum(self._picture_tokens(path) - 1 for path in images)
        except (OSError, ValueError):
            return Checked(None, "picture")
        tokens = len(whole) + shown
        return Checked(tokens, "too_long" if tokens > self.max_length else None)

    def _text(self, messages: Messages, *, add_generation_prompt: bool = False) -> str:
        """The template's text. A processor is given parts, as verl gives them."""
        template: Any = self.tokenizer if self.processor is None else self.processor
        turns = [
            {"role": turn["role"], "content": turn["content"] if self.processor is None else _parts(turn["content"])}
            for turn in messages
        ]
        return str(template.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt))

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return found

    def _frame(self, roles: tuple[str, ...]) -> int:
        """Bytes that the template puts around turns of these roles."""
        if roles not in self._frames:
            self._frames[roles] = len(self._text([{"role": role, "content": ""} for role in roles]).encode())
        return self._frames[roles]

    def _picture_tokens(self, path: str) -> int:
        """Tokens of a picture as verl reads it, by qwen-vl-utils and then the processor, each of which scales it.

        OSError or ValueError where it cannot be read or is too thin a strip.
        """
        from PIL import Image

        pictures.reader()
        smart_resize = importlib.import_module("qwen_vl_utils.vision_process").smart_resize
        with Image.open(path.removeprefix("file://")) as image:
            width, height = image.size
        factor = int(self.processor.image_processor.patch_size) * int(self.processor.image_processor.merge_size)
        size = smart_resize(height, width, factor)
        return int(self.processor._get_num_multimodal_tokens(image_sizes=[size])["num_image_tokens"][0])


def load(name: str, revision: str | None, max_length: int) -> TemplateCheck:
    """The check for the student ``name`` (a folder or a Hub id). Raises AdacsError."""
    import transformers
    from transformers import AutoConfig, AutoTokenizer

    pictures.processors()
    try:
        place = name if revision is None or Path(name).is_dir() else _snapshot(name, revision)
        tokenizer = AutoTokenizer.from_pretrained(place)
        # A tokenizer alone, without a model's config, is that of a text model.
        lone = Path(place).is_dir() and not (Path(place) / "config.json").is_file()
        sees = not lone and hasattr(AutoConfig.from_pretrained(place), "vision_config")
        processor = transformers.AutoProcessor.from_pretrained(place) if sees else None
    except (OSError, ValueError, ImportError) as error:
        line = " ".join(str(error).split())[:300]
        raise AdacsError(f"write.tokenizer: cannot load tokenizer and processor of {name!r}: {line}") from error
    if tokenizer.chat_template is None:
        raise AdacsError(f"write.tokenizer: {name!r} has no chat template")
    return TemplateCheck(tokenizer, processor, max_length)


def _snapshot(name: str, revision: str) -> str:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.jinja", "*.txt", "*.model"]
    return str(snapshot_download(name, revision=revision, allow_patterns=wanted))


def identity(name: str, revision: str | None) -> str:
    """What a student's template depends on, for fingerprints: a folder by the content of its files, else the name."""
    folder = Path(name)
    if not folder.is_dir():
        return f"{name}@{revision}"
    whole = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        if file.suffix in (".json", ".jinja", ".txt", ".model") and file.is_file():
            whole.update(f"{file.name}\0".encode())
            whole.update(file.read_bytes())
    return whole.hexdigest()


def _parts(content: str) -> list[dict[str, str]]:
    """A text split at its marks, as verl splits it."""
    parts: list[dict[str, str]] = []
    for place, text in enumerate(content.split(IMAGE)):
        if place:
            parts.append({"type": "image"})
        if text:
            parts.append({"type": "text", "text": text})
    return parts
