"""A random-weight text model of Qwen2's architecture, small enough to be made and run in any test.

``python -m tests.models.tiny_text OUT``. It proves that things fit together and says nothing of quality.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.models import tiny_tokenizer

CONTEXT = 2048


def build(folder: Path, *, seed: int = 0, layers: int = 2, width: int = 128) -> Path:
    """Write the checkpoint into ``folder``, the same weights for the same ``seed``; ``folder`` is returned.

    ``width`` is shared by 4 heads; vLLM on the CPU takes no heads narrower than 32.
    """
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    tokenizer = tiny_tokenizer.build(CONTEXT)
    config = Qwen2Config(
        vocab_size=tiny_tokenizer.padded_size(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        # Random weights of the default spread give almost equal logits; wider ones give answers worth sampling.
        initializer_range=0.2,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config).float().eval()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
