"""What a comparator returns: a decision, or a question for the algebra workers."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Decision:
    """``value``: True, False, or None where it cannot be told, with the ``reason`` (see types.Verdict)."""

    value: bool | None
    method: str
    reason: str | None = None
    normalised: tuple[str, str] | None = None

    def within(self, rule: str) -> Decision:
        """The same decision, its method led by the rule that found the answer."""
        return replace(self, method=f"{rule}>{self.method}")


@dataclass(frozen=True, slots=True)
class Algebra:
    """A question that needs a computer algebra system. Plain strings only: it crosses a process boundary.

    ``kind``: the answer type. ``digits``: decimals that the task compares by, or None.
    """

    kind: str
    answer: str
    reference: str
    digits: int | None = None


Outcome = Decision | Algebra
