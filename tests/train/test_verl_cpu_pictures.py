"""Pictures where torchvision is not installed: processors without their video half, qwen-vl-utils without videos."""

from __future__ import annotations

import importlib
import sys

import pytest

from ares_train.verl_cpu import pictures
from tests.models import tiny_qwen_vl, tiny_text

pytestmark = pytest.mark.skipif(not pictures.missing(), reason="torchvision is installed: nothing is replaced")


def test_a_processor_is_built_under_its_own_name_and_saves_the_checkpoints_own_files(tmp_path):
    import transformers

    pictures.processors()
    source = tiny_qwen_vl.build(tmp_path / "model")
    processor = transformers.AutoProcessor.from_pretrained(str(source))
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    processor.save_pretrained(str(tmp_path / "saved"))
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        assert (tmp_path / "saved" / name).read_bytes() == (source / name).read_bytes()
    # A checkpoint has its configuration beside them.
    (tmp_path / "saved" / "config.json").write_bytes((source / "config.json").read_bytes())
    again = transformers.AutoProcessor.from_pretrained(str(tmp_path / "saved"))
    assert again.chat_template == processor.chat_template
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()


def test_a_model_of_text_has_the_processor_that_transformers_gives_it(tmp_path):
    import transformers

    pictures.processors()
    found = transformers.AutoProcessor.from_pretrained(str(tiny_text.build(tmp_path)))
    assert isinstance(found, transformers.PreTrainedTokenizerBase)


def test_qwen_vl_utils_reads_pictures_refuses_videos_and_leaves_no_stand_in_behind(tmp_path):
    from PIL import Image

    pictures.reader()
    assert not [name for name in sys.modules if name.startswith("torchvision")]
    reader = importlib.import_module("qwen_vl_utils")
    Image.new("RGB", (90, 60), "red").save(tmp_path / "red.png")
    read = reader.fetch_image({"image": str(tmp_path / "red.png")}, image_patch_size=14)
    assert read.size == (84, 56)
    assert read.getpixel((5, 5)) == (255, 0, 0)
    with pytest.raises(ImportError, match="videos need torchvision"):
        importlib.import_module("qwen_vl_utils.vision_process").transforms.functional.resize(None)
