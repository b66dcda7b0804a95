"""Faults by seed and rate: what goes wrong with the n-th asking of a body never depends on the order of arrival.

Kinds
  429  429-date  429-bare    rate limit: Retry-After in seconds, as an HTTP date, not at all
  408  409  500  502-html  503  503-date    refused by the server or by a gateway
  reset  reset-mid           connection reset before a byte, or half-way through the reply
  empty  empty-body          a reply without content, reasoning and tokens; a body of no bytes
  malformed  truncated       broken JSON; fewer bytes than announced
  hang  drip                 not a byte; twenty pieces with pauses
  quota  401  403  no-model  what stops a run: quota used up, key refused, model unknown
  filter  filter-400         content filter, as a finish reason and as Azure's 400
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.loopback.text import unit

KINDS = (
    "429", "429-date", "429-bare", "408", "409", "500", "502-html", "503", "503-date", "reset", "reset-mid", "empty",
    "empty-body", "malformed", "truncated", "hang", "drip", "quota", "401", "403", "no-model", "filter", "filter-400",
)  # fmt: skip
AT_ONCE = frozenset(
    {"429", "429-date", "429-bare", "408", "503", "503-date", "quota", "401", "403", "no-model", "hang"}
)
"""Faults that come before any work is done, so without latency."""


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Which fault meets which request."""

    seed: int
    rates: tuple[tuple[str, float], ...]
    script: tuple[str, ...]
    when: tuple[tuple[str, str], ...]

    def decide(self, body: bytes, attempt: int) -> str | None:
        """The fault of the ``attempt``-th asking (from 0) of a body, or None."""
        if attempt < len(self.script):
            return None if self.script[attempt] == "good" else self.script[attempt]
        chance = unit(self.seed, body.hex(), attempt) if self.rates else 1.0
        for kind, rate in self.rates:
            if chance < rate:
                return kind
            chance -= rate
        return None

    def for_prompt(self, prompt: str) -> str | None:
        """The fault that a text in the prompt calls for."""
        return next((kind for text, kind in self.when if text in prompt), None)


def fault_plan(seed: int, rates: Sequence[str], script: str, when: Sequence[str]) -> FaultPlan:
    """Read KIND=RATE, the script and TEXT=KIND; raises ValueError for an unknown kind or rates above 1."""
    by_rate = [each.rpartition("=") for each in rates]
    by_text = [each.rpartition("=") for each in when]
    words = [word.strip() for word in script.split(",") if word.strip()]
    used = (
        [kind for kind, _, _ in by_rate] + [kind for _, _, kind in by_text] + [word for word in words if word != "good"]
    )
    for kind in used:
        if kind not in KINDS:
            raise ValueError(f"unknown fault {kind!r}; known: {', '.join(KINDS)}")
    if sum(float(rate) for _, _, rate in by_rate) > 1:
        raise ValueError("the rates of the faults add up to more than 1")
    return FaultPlan(
        seed,
        tuple((kind, float(rate)) for kind, _, rate in by_rate),
        tuple(words),
        tuple((text, kind) for text, _, kind in by_text),
    )
