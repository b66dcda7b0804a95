"""A random-weight Qwen2.5-VL of 3.7 million parameters: a whole vision-language checkpoint, made offline in seconds.

``python -m tests.models.tiny_qwen_vl OUT``. transformers and vLLM load it like a real one; its answers are noise.
Pixels reach the output and a picture costs one prompt token per 28 x 28 pixels: pixel limits show in token counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.models import tiny_tokenizer

CONTEXT = 4096
TOKEN_PIXELS = 28 * 28
MIN_PIXELS = 4 * TOKEN_PIXELS
MAX_PIXELS = 1536 * TOKEN_PIXELS
"""1.2 million pixels: above the evaluator's own upper limit of 1,048,576, so that this limit is the one that acts."""

WIDTH = 256


def build(folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint into ``folder``, the same weights for the same ``seed``; ``folder`` is returned."""
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = tiny_tokenizer.build(CONTEXT)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tiny_tokenizer.SPECIAL}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": tiny_tokenizer.padded_size(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT,
            "rope_theta": 1e6,
            "rope_scaling": {"type": "mrope", **rope},
            "rope_parameters": rope,
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "in_channels": 3,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [3],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
    model.generation_config = GenerationConfig(
        eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"], do_sample=False
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Written by hand: transformers can only save the video half where torchvision is installed.
    common = {
        "processor_class": "Qwen2_5_VLProcessor",
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": MIN_PIXELS,
        "max_pixels": MAX_PIXELS,
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    pictures = {**common, "image_processor_type": "Qwen2VLImageProcessor"}
    videos = {**common, "video_processor_type": "Qwen2VLVideoProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures, indent=2))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos, indent=2))
    return folder


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
