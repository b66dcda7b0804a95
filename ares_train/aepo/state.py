"""What AEPO carries from step to step, and its JSON, which gives back every float exactly.

A trainer saves it with each checkpoint: a run that is killed and resumed goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ares_train.aepo.config import AEPOConfig, RewardConfig, TauConfig

FORMAT = 1
"""Of the JSON; another number is refused."""

FIRST_ALPHA = 0.5
"""Strength of the released reward in each bin before its first update."""


Whole = Annotated[int, Meta(ge=0)]
Factor = Annotated[float, Meta(gt=0.0)]
"""Of a weight or strength: what moves them keeps them above zero."""


class StateError(ValueError):
    """A saved state that cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Running:
    """The mean of the first so many values, as their sum and number."""

    total: float = 0.0
    count: Whole = 0

    def add(self, value: float, limit: int) -> Running:
        """With one more value, while fewer than ``limit`` are in."""
        return self if self.count >= limit else Running(self.total + value, self.count + 1)

    def mean(self, needed: int) -> float | None:
        """None until ``needed`` values are in."""
        return self.total / self.count if self.count >= needed else None


@dataclass(frozen=True, slots=True)
class BinMemory:
    """Mean N_HE of one bin over the batches that had enough of its answers.

    ``ema``: smoothed. ``previous``: of the last such batch. ``bootstrap``: of the first ones. ``batches``: how many.
    """

    ema: float | None = None
    previous: float | None = None
    bootstrap: Running = Running()
    batches: Whole = 0


@dataclass(frozen=True, slots=True)
class AEPOState:
    """``AEPOState()`` is that of a run's beginning.

    ``step``: batches shaped. ``tau_exact``: the last batch's own threshold, nats. ``tau_rollout``: the threshold that
    the next rollouts branch at, by the rollouts' own estimate of entropy. ``bootstrap_tau``: of the first batches.
    ``bins``, ``kappas`` (KL controller), ``alphas`` (released reward): easy, medium, hard.
    """

    format: int = FORMAT
    step: Whole = 0
    tau_exact: float | None = None
    tau_rollout: float | None = None
    bootstrap_tau: Running = Running()
    bins: tuple[BinMemory, BinMemory, BinMemory] = (BinMemory(), BinMemory(), BinMemory())
    kappas: tuple[Factor, Factor, Factor] = (1.0, 1.0, 1.0)
    alphas: tuple[Factor, Factor, Factor] = (FIRST_ALPHA, FIRST_ALPHA, FIRST_ALPHA)

    def to_json(self) -> str:
        """One line. ValueError for a number that is not finite: it would come back as another."""
        numbers = [self.tau_exact, self.tau_rollout, self.bootstrap_tau.total, *self.kappas, *self.alphas]
        for memory in self.bins:
            numbers += [memory.ema, memory.previous, memory.bootstrap.total]
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise ValueError(f"the state holds a number that is not finite: {self}")
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> AEPOState:
        """The state that ``to_json`` wrote, bit for bit; StateError for anything else."""
        try:
            fields = msgspec.json.decode(text)
            if not isinstance(fields, dict) or fields.get("format") != FORMAT:
                raise StateError(f"no AEPO state of format {FORMAT}")
            state = msgspec.convert(fields, cls)
        except msgspec.MsgspecError as error:
            raise StateError(f"not a state of AEPO: {error}") from None
        given, ours = set(_names(fields)), set(_names(msgspec.to_builtins(state)))
        if given != ours:
            what = f"unknown {min(given - ours)}" if given - ours else f"no {min(ours - given)}"
            raise StateError(f"not a state of AEPO: {what}")
        return state


def _names(value: Any, where: str = "") -> Iterator[str]:
    """Paths of all keys of nested mappings and lists."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, inner in parts:
        if isinstance(value, dict):
            yield f"{where}{name}"
        yield from _names(inner, f"{where}{name}.")


def frozen_tau(state: AEPOState, config: RewardConfig) -> float | None:
    """The threshold that ``target_mode=bootstrap`` froze together with its targets; None while it floats."""
    if config.mode != "hier" or config.target_mode != "bootstrap":
        return None
    return state.bootstrap_tau.mean(config.bootstrap_steps)


def remember(
    state: AEPOState,
    config: AEPOConfig,
    *,
    tau: float,
    means: tuple[float, float, float],
    counts: tuple[int, int, int],
    rollout_tau: float,
    alphas: tuple[float, float, float],
) -> AEPOState:
    """The state after a batch: its threshold ``tau`` (NaN: none), its bins' mean N_HE and number of answers, the
    threshold ``rollout_tau`` by the rollouts' own estimate (NaN: not measured) and the released reward's strengths.

    A bin with fewer than ``reward.min_count`` answers leaves its memory as it was.
    """
    reward = config.reward
    bins = [
        _moved(memory, mean, reward) if count >= reward.min_count else memory
        for memory, mean, count in zip(state.bins, means, counts, strict=True)
    ]
    known = not math.isnan(tau)
    return replace(
        state,
        step=state.step + 1,
        tau_exact=tau if known else state.tau_exact,
        tau_rollout=_smoothed(state.tau_rollout, rollout_tau, config.tau),
        bootstrap_tau=state.bootstrap_tau.add(tau, reward.bootstrap_steps) if known else state.bootstrap_tau,
        bins=(bins[0], bins[1], bins[2]),
        alphas=alphas,
    )


def _moved(memory: BinMemory, mean: float, config: RewardConfig) -> BinMemory:
    """A bin's memory with one more batch."""
    return BinMemory(
        ema=mean if memory.ema is None else config.ema * memory.ema + (1 - config.ema) * mean,
        previous=mean,
        bootstrap=memory.bootstrap.add(mean, config.bootstrap_steps),
        batches=memory.batches + 1,
    )


def _smoothed(before: float | None, measured: float, config: TauConfig) -> float | None:
    """The rollouts' threshold after a step that measured ``measured`` (NaN: nothing)."""
    if math.isnan(measured):
        return before
    if before is None or config.rollout_update == "prev":
        return measured
    return config.ema * before + (1 - config.ema) * measured
