"""Lets torchvision be imported beside a CPU build of torch; copied into the site-packages of the vLLM environment.

PyPI's torchvision is a CUDA build whose compiled operators do not load without CUDA. Importing it then fails only
because two operators are unknown; declared without a body they are never called, and its Python transforms, which are
all that pictures need, work. Nothing happens in a process that does not import torchvision.
"""

from __future__ import annotations

import importlib.abc
import sys

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Declares the operators when torchvision is about to be imported, and finds nothing itself."""

    library: object = None

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "torchvision" and self.library is None:
            import torch

            # The library must stay alive: its declarations end with it.
            library = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                library.define(operator)
            self.library = library


sys.meta_path.insert(0, _BeforeTorchvision())
