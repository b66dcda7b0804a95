"""Pictures without torchvision, which PyPI offers for CUDA builds of torch only.

verl reads pictures by transformers' processor and by qwen-vl-utils. Both import torchvision, and use it for videos
alone: where it is not installed, the processor is built without its video half, and qwen-vl-utils is imported beside
stand-ins that refuse videos. Where torchvision is installed, nothing here does anything.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
import types
from pathlib import Path
from typing import Any, NoReturn

MODULES = ("torchvision", "torchvision.io", "torchvision.transforms")


FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def missing() -> bool:
    """Whether torchvision is not installed."""
    return "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None


def processors() -> None:
    """Have transformers' AutoProcessor build vision-language processors without their video half."""
    if not missing():
        return
    import transformers

    original = transformers.AutoProcessor.from_pretrained
    if getattr(original, "without_video", False):
        return

    def from_pretrained(name: str, *args: Any, **kwargs: Any) -> Any:
        trust = {key: kwargs[key] for key in ("trust_remote_code",) if key in kwargs}
        if not hasattr(transformers.AutoConfig.from_pretrained(name, **trust), "vision_config"):
            return original(name, *args, **kwargs)
        from ares_eval.inference.servers.hf_model import load_processor

        # transformers shows a stand-in that refuses, where its own module would choose the one that needs PIL alone.
        own = importlib.import_module("transformers.models.auto.image_processing_auto")
        sys.modules["transformers"].AutoImageProcessor = own.AutoImageProcessor  # type: ignore[attr-defined]
        processor = load_processor(name)
        # verl knows processors by the name of their class.
        kind = type(processor).__mro__[1].__name__
        processor.__class__ = type(kind, (type(processor),), {"save_pretrained": _save, "source": name})
        return processor

    from_pretrained.without_video = True  # type: ignore[attr-defined]
    transformers.AutoProcessor.from_pretrained = from_pretrained


def _save(self: Any, folder: str, **_: Any) -> None:
    """The processor's files as the checkpoint has them, video half included: training changes none of them."""
    from transformers.utils import cached_file

    self.tokenizer.save_pretrained(folder)
    for file in FILES:
        found = cached_file(self.source, file, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            shutil.copyfile(found, Path(folder) / file)
    if isinstance(self.chat_template, str):
        (Path(folder) / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")


def reader() -> None:
    """Import qwen-vl-utils beside stand-ins for torchvision, which are gone from ``sys.modules`` afterwards."""
    if not missing() or "qwen_vl_utils" in sys.modules or importlib.util.find_spec("qwen_vl_utils") is None:
        return
    stand_ins = {name: _StandIn(name) for name in MODULES}
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("qwen_vl_utils")
    finally:
        for name in stand_ins:
            del sys.modules[name]


class _StandIn(types.ModuleType):
    """A module of torchvision's name: its own submodules are there, everything else is refused when it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or _Refusing()


class _Refusing:
    """Whatever is done with it fails."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self()

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise ImportError("videos need torchvision, which is not installed: pip install torchvision")
