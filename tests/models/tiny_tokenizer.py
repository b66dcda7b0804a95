"""A byte-level BPE tokenizer with Qwen's special tokens, trained in a second on sums: the tokenizer of the tiny models.

Every byte is in its vocabulary, so that any text round-trips.
"""

from __future__ import annotations

from typing import Any

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(context: int) -> Any:
    """A PreTrainedTokenizerFast of about 440 tokens; ``context`` becomes its model_max_length."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator(_corpus(), trainer)
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in SPECIAL if token not in ("<|im_end|>", "<|endoftext|>")],
        model_max_length=context,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def padded_size(tokenizer: Any) -> int:
    """The vocabulary's size rounded up to 64, as real checkpoints do: their output is wider than their tokenizer."""
    return (len(tokenizer) + 63) // 64 * 64


def _corpus() -> list[str]:
    sentence = (
        "What is {a} plus {b}? The answer is \\boxed{{{c}}}. A. B. C. D. Look at the picture, then choose the letter. "
        "However, wait, let me think step by step <think> </think>."
    )
    return [sentence.format(a=a, b=b, c=a + b) for a in range(40) for b in range(25)]
