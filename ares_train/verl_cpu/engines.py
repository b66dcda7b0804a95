"""verl's FSDP2 engines on the CPU, with a frozen vision tower where asked. Importing this module registers them.

verl has them for CUDA and NPUs only. Two things differ here: a forward-only model (the reference) is not "offloaded" to
pinned host memory, which a CPU-only torch cannot give, and FSDP1 is refused, which takes no CPU parameters.
"""

from __future__ import annotations

from typing import Any

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead

from ares_train.vision import FrozenVision


class _OnCPU:
    """Mixed into verl's engines."""

    engine_config: Any

    def __init__(self, model_config: Any, engine_config: Any, optimizer_config: Any, checkpoint_config: Any) -> None:
        if engine_config.strategy != "fsdp2":
            raise ValueError(f"strategy={engine_config.strategy} does not run on the CPU: set strategy=fsdp2")
        if engine_config.offload_policy:
            raise ValueError("offload_policy=True makes no sense on the CPU: set offload_policy=False")
        super().__init__(
            model_config=model_config,
            engine_config=engine_config,
            optimizer_config=optimizer_config,
            checkpoint_config=checkpoint_config,
        )  # type: ignore[call-arg]

    def _build_fsdp_module(self, module: Any) -> Any:
        # forward_only is what makes verl ask for pinned memory here; it is looked at for nothing else in this method.
        forward_only = self.engine_config.forward_only
        self.engine_config.forward_only = False
        try:
            return super()._build_fsdp_module(module)  # type: ignore[misc]
        finally:
            self.engine_config.forward_only = forward_only


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPULanguageModel(_OnCPU, FrozenVision, FSDPEngineWithLMHead):
    """Actor, reference and SFT model."""


@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUValueModel(_OnCPU, FSDPEngineWithValueHead):
    """Critic."""
