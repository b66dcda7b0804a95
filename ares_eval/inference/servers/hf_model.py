"""A Hugging Face checkpoint made ready to answer chats: model, tokenizer, picture processor, chat template.

Nothing of the checkpoint is executed but its Jinja chat template, which transformers renders in a sandbox (no remote
code, no pickled weights where safetensors exist). Pictures need no torchvision: where it is missing, the processor is
put together without its video half.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


class BadPrompt(ValueError):
    """Messages that this model cannot be asked."""


@dataclass(frozen=True)
class ChatModel:
    """A loaded checkpoint. ``context`` is in tokens; ``ends`` are the token ids that end an answer."""

    model: Any
    tokenizer: Any
    processor: Any | None
    context: int
    vocabulary: int
    ends: frozenset[int]

    @property
    def takes_pictures(self) -> bool:
        """Whether messages may hold pictures."""
        return self.processor is not None

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        pictures: Sequence[Image],
        template_options: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Tensors of one prompt, batch 1. Contents are parts ``{"type": "text", "text"}`` and ``{"type": "image"}``.

        ``pictures`` are RGB, in the order of their parts. Raises BadPrompt with the template's or processor's words.
        """
        from jinja2.exceptions import TemplateError

        renderer = self.processor if self.processor is not None and self.processor.chat_template else self.tokenizer
        chat = [dict(message) for message in messages]
        if self.processor is None:
            for message in chat:
                message["content"] = "\n".join(part["text"] for part in message["content"])
        try:
            text = renderer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **template_options)
            if self.processor is None:
                inputs = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)
            elif pictures:
                inputs = self.processor(text=[text], images=list(pictures), return_tensors="pt")
            else:
                inputs = self.processor(text=[text], return_tensors="pt")
        except (TemplateError, ValueError) as error:
            raise BadPrompt(str(error)) from error
        return {name: value.to(self.model.device) for name, value in inputs.items() if hasattr(value, "to")}


def load(name: str, device: str, dtype: str, context: int | None) -> ChatModel:
    """Load a folder or hub model. ``dtype``: a torch dtype's name or ``auto`` (the checkpoint's own)."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoTokenizer,
        GenerationConfig,
    )

    config = AutoConfig.from_pretrained(name)
    sees = hasattr(config, "vision_config")
    kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    # The older spelling of dtype, which transformers 4.51 needs and 5 still takes.
    model = kind.from_pretrained(name, torch_dtype=dtype if dtype == "auto" else getattr(torch, dtype))
    model = model.to(device).eval()
    processor = load_processor(name) if sees else None
    tokenizer = processor.tokenizer if processor is not None else AutoTokenizer.from_pretrained(name)
    ends = _ends(model.generation_config.eos_token_id) | _ends(tokenizer.eos_token_id)
    # The checkpoint's own sampling defaults (temperature, repetition penalty, ...) must not colour what a request asks.
    model.generation_config = GenerationConfig(pad_token_id=min(ends, default=0))
    limit = int(config.get_text_config().max_position_embeddings)
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    return ChatModel(model, tokenizer, processor, min(context or limit, limit), vocabulary, ends)


def load_processor(name: str) -> Any:
    """The checkpoint's processor; without its video half where torchvision, which only that needs, is not installed."""
    import importlib.util

    import transformers

    if importlib.util.find_spec("torchvision") is not None:
        return transformers.AutoProcessor.from_pretrained(name)
    # By its own module: without torchvision the name at transformers' top is a stand-in that refuses.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    pictures = AutoImageProcessor.from_pretrained(name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    base = getattr(transformers, _processor_class(name, tokenizer))

    class WithoutVideo(base):  # type: ignore[misc, valid-type]
        """``base`` that takes None for its video processor."""

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return type(None) if argument is None else super().check_argument_for_proper_class(argument_name, argument)

    parts = {"image_processor": pictures, "tokenizer": tokenizer}
    wanted = base.get_attributes() if hasattr(base, "get_attributes") else base.attributes
    return WithoutVideo(**{part: parts.get(part) for part in wanted}, chat_template=tokenizer.chat_template)


def _processor_class(name: str, tokenizer: Any) -> str:
    """The class's name from preprocessor_config.json, processor_config.json or tokenizer_config.json."""
    import transformers

    found: list[Any] = [tokenizer.init_kwargs.get("processor_class")]
    for owner, reader in (
        (transformers.ImageProcessingMixin, "get_image_processor_dict"),
        (transformers.ProcessorMixin, "get_processor_dict"),
    ):
        with contextlib.suppress(OSError):
            found.append(getattr(owner, reader)(name)[0].get("processor_class"))
    for class_name in found:
        if isinstance(class_name, str) and class_name.endswith("Processor"):
            return class_name
    raise ValueError(f"{name}: neither its picture processor nor its tokenizer names a processor_class")


def _ends(value: int | Sequence[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)
