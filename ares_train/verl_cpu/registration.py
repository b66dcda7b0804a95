"""Makes ``rollout.name=hf_cpu`` known to verl, by name only: the engine itself is loaded when it is used."""

from __future__ import annotations

import sys
from typing import Any

NAME = "hf_cpu"
SERVER = "ares_train.verl_cpu.rollout_server"


def adapter() -> None:
    """Add the part in the trainer's worker, once verl.workers.rollout.base is there."""
    sys.modules["verl.workers.rollout.base"]._ROLLOUT_REGISTRY[(NAME, "async")] = f"{SERVER}.ServerAdapter"


def replica() -> None:
    """Add the part that starts servers, once verl.workers.rollout.replica is there."""
    sys.modules["verl.workers.rollout.replica"].RolloutReplicaRegistry.register(NAME, _replica)


def _replica() -> Any:
    from ares_train.verl_cpu.rollout_server import HFReplica

    return HFReplica
