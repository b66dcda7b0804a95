"""A frozen vision tower in verl's FSDP engines, for SFT and RL: only the language model is trained, as in the paper.

verl 0.9.1 declares ``actor.freeze_vision_tower`` and reads it nowhere. Ours is a key of the model's free-form settings,
which reach the engine in every trainer::

    model.override_config.freeze_vision_tower=true

The whole vision tower stays as it is, its projection into the language model (Qwen2.5-VL's merger) included. Importing
this module registers the engine for NVIDIA GPUs, where it replaces verl's and equals it unless the key is set; on the
CPU, ares_train.verl_cpu.engines mixes ``FrozenVision`` in.
"""

from __future__ import annotations

from typing import Any

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from ares_train.towers import TOWERS, vision_towers

KEY = "freeze_vision_tower"


class FrozenVision:
    """Mixed into verl's language model engines."""

    model_config: Any
    engine_config: Any
    optimizer_config: Any

    def _build_module(self) -> Any:
        # verl copies every free-form setting into the checkpoint's config, where this one has no meaning.
        vars(self.model_config.hf_config).pop(KEY, None)
        return super()._build_module()  # type: ignore[misc]

    def _build_fsdp_module(self, module: Any) -> Any:
        if self._frozen:
            if self.engine_config.strategy == "fsdp" and not self.engine_config.use_orig_params:
                raise ValueError(f"{KEY} with strategy=fsdp needs use_orig_params=True; better: strategy=fsdp2")
            freeze(module)
        return super()._build_fsdp_module(module)  # type: ignore[misc]

    def _build_optimizer(self, module: Any) -> Any:
        if not self._frozen:
            return super()._build_optimizer(module)  # type: ignore[misc]
        from verl.workers.config.optimizer import build_optimizer

        return build_optimizer([each for each in module.parameters() if each.requires_grad], self.optimizer_config)

    @property
    def _frozen(self) -> bool:
        """A reference model has nothing to freeze."""
        return bool(self.model_config.override_config.get(KEY)) and not self.engine_config.forward_only


def freeze(module: Any) -> int:
    """Take the vision tower of ``module`` out of training; the number of its parameters (tensors) is returned.

    Raises ValueError where there is none.
    """
    towers = vision_towers(module)
    if not towers:
        raise ValueError(
            f"{KEY} is set, but {type(module).__name__} has no vision tower ({', '.join(TOWERS)}): remove the setting"
        )
    frozen = {id(parameter): parameter for tower in towers for parameter in tower.parameters()}
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    return len(frozen)


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor="nvidia")
class FrozenVisionEngine(FrozenVision, FSDPEngineWithLMHead):
    """verl's FSDP engine with the key."""
