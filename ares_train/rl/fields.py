"""Names of what AEPO adds to verl's rows, in one place for its three writers: agent loop, trainer and loss.

Fields of a trajectory's row in TransferQueue:

| name | written by | content |
|---|---|---|
| ``ares_kl_weight`` | trainer, after padding | nested f32, the KL weight of every response token |
| ``ares_kl_class`` | trainer, after padding | nested i8: 0 none, 1 + 2 * bin + (1 inside a validated window) |
| ``extra_fields["ares"]`` | agent loop | a dict of plain values, see ``session_record`` |
| tag ``ares`` of a group's first row | agent loop worker | counts of the group's forks, see ares_train.rl.rollout |

Rollout-time values stay out of tensor fields: verl's padding rows copy unknown tensors at the wrong length.
"""

from __future__ import annotations

from typing import Any

KL_WEIGHT = "ares_kl_weight"
KL_CLASS = "ares_kl_class"
RECORD = "ares"
"""Key of a session's record in ``extra_fields``, and of a group's counts in its first row's tag."""

TAU = "ares_tau"
"""Field of a prompt on its way to the agent loop: the rollout threshold, nan where there is none yet."""

AGENT_LOOP = "ares_single_turn"
STOCK_AGENT_LOOP = "single_turn_agent"
AGENT_LOOP_MANAGER = "ares_train.rl.rollout.BranchingManager"
CHECKPOINT_CALLBACK = "ares_train.loop.callback.AresCheckpointCallback"

KL_CLASSES = 6
"""Three difficulty bins, outside and inside windows."""


def session_record(
    *,
    base: bool,
    parent: int = -1,
    fork_at: int = 0,
    truncated: bool = False,
    request: str = "",
    asked: int = 0,
    cached: int | None = None,
    source: str = "",
    quantile: float | None = None,
    entropy: Any = None,
) -> dict[str, Any]:
    """What an agent loop says of one session.

    ``base`` is False for a fork, whose ``parent`` is a session id of the same prompt and whose first own token is
    response position ``fork_at``. The server was given ``asked`` tokens to go on from, of which ``cached`` were in its
    prefix cache (None: not told).
    ``source`` names the rollout-time estimator, ``quantile`` is that rollout's quantile of its token entropies and
    ``entropy`` (f32, one per response token) is kept for the first session of a prompt only, to judge the estimator.
    """
    return {
        "base": base,
        "parent": parent,
        "fork_at": fork_at,
        "truncated": truncated,
        "request": request,
        "asked": asked,
        "cached": cached,
        "source": source,
        "quantile": quantile,
        "entropy": entropy,
    }
