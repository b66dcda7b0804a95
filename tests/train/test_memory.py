"""Memory estimates: counts against real modules, and the size of the models that the presets train."""

from __future__ import annotations

import pytest
import torch

from ares_eval.config import ConfigError
from ares_train import memory
from tests.models import tiny_qwen_vl, tiny_text


def test_counts_are_those_of_the_modules(tmp_path):
    from transformers import AutoModelForImageTextToText

    folder = tiny_qwen_vl.build(tmp_path)
    size = memory.size_of(str(folder))
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert size.parameters == sum(each.numel() for each in model.parameters())
    assert size.vision == sum(each.numel() for each in model.model.visual.parameters())
    layers = [sum(each.numel() for each in layer.parameters()) for layer in model.model.language_model.layers]
    assert size.block == max(layers)
    vision = model.model.visual
    blocks = sum(each.numel() for block in vision.blocks for each in block.parameters())
    assert size.outside == size.parameters - sum(layers) - blocks
    assert (size.layers, size.hidden) == (4, tiny_qwen_vl.WIDTH)


def test_a_model_of_text_has_no_vision_tower(tmp_path):
    assert memory.size_of(str(tiny_text.build(tmp_path))).vision == 0


def test_a_path_without_a_model_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no model configuration"):
        memory.size_of(str(tmp_path))


def test_qwen_2_5_vl_7b_has_the_size_that_its_makers_publish():
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False, "rope_parameters": rope,
        },
        vision_config={
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
        },
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        size = memory.measure(Qwen2_5_VLForConditionalGeneration(config))
    assert size.parameters == 8_292_166_656
    estimate = memory.training(size, ranks=8, tokens=8192, model_dtype="fp32", frozen_vision=True)
    # 4 bytes of weights for each parameter, 12 of gradient and moments for each that is trained, over 8 ranks.
    assert estimate.weights == 4 * size.parameters // 8
    assert estimate.gradients + estimate.optimizer == pytest.approx(12 * (size.parameters - size.vision) / 8, abs=8)
    assert estimate.total < 80 * 2**30
    assert "GiB a rank" in str(estimate)


def test_freezing_the_tower_saves_its_gradients_and_moments_only():
    size = memory.ModelSize(1000, 200, 50, 100, 2, 8, 64)
    free = memory.training(size, ranks=2, tokens=16, model_dtype="bf16", frozen_vision=False)
    frozen = memory.training(size, ranks=2, tokens=16, model_dtype="bf16", frozen_vision=True)
    assert free.total - frozen.total == 3 * 2 * 200 // 2
    assert free.weights == frozen.weights == 1000
