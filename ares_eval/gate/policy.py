"""What a candidate must not do: a policy, read from YAML.

    alpha: 0.05            # chance of a false alarm, over all rules together
    power: 0.8             # of the sample sizes that are advised
    not_measured: 1        # percent of draws that may be without a reply, in either run; more and nothing is decided
    tiers: auto            # where difficulty comes from: level, pass_rate, auto
    levels: {L1: easy}     # the dataset's words for easy, medium and hard, where they are not these
    rules:
      - {kind: accuracy, margin: 2}                           # points that may be lost
      - {kind: tokens, ratio: 1.10}                           # of the baseline's tokens
      - {kind: tokens, tier: easy, ratio: 1.0, need: no_disproof}
      - {kind: hwe, tier: hard, ratio: 1.0, need: no_disproof, missing: skip}
      - {kind: truncation, ceiling: 5}                        # percent of replies cut at the token limit

``over``: ``mean`` (the mean over tasks; default) or ``tasks`` (each task is a test of its own); ``tasks`` restricts a
rule to some. ``need``: ``proof`` wants it shown that the bound is kept, else the gate is inconclusive; ``no_disproof``
only that it is not shown to be broken. ``missing``: what to do where the runs do not hold what a rule needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from ares_eval import resources
from ares_eval.types import Json

Kind: TypeAlias = Literal["accuracy", "tokens", "hwe", "truncation"]

MARGIN, RATIO, CEILING = 2.0, 1.10, 5.0
"""Defaults: points of accuracy, tokens as a multiple of the baseline's, percent of replies cut at the limit."""

LARGEST = 1 << 20


class PolicyError(Exception):
    """A policy that cannot be used; the message names file, place and cause."""


class Rule(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One rule. ``margin`` belongs to accuracy, ``ratio`` to tokens (at most) and hwe (at least), ``ceiling`` to
    truncation; None takes the default."""

    kind: Kind
    margin: float | None = None
    ratio: float | None = None
    ceiling: float | None = None
    tier: str | None = None
    over: Literal["mean", "tasks"] = "mean"
    tasks: tuple[str, ...] = ()
    need: Literal["proof", "no_disproof"] | None = None
    missing: Literal["incomplete", "skip"] = "incomplete"

    @property
    def bound(self) -> float:
        """Accuracy: the difference that must be exceeded, as a share; tokens, hwe: a ratio; truncation: a share."""
        if self.kind == "accuracy":
            return -(MARGIN if self.margin is None else self.margin) / 100
        if self.kind == "truncation":
            return (CEILING if self.ceiling is None else self.ceiling) / 100
        default = RATIO if self.kind == "tokens" else 1.0
        return default if self.ratio is None else self.ratio

    @property
    def proof(self) -> bool:
        """Whether keeping the bound must be shown: the default for accuracy and tokens of all questions."""
        if self.need is None:
            return self.kind in ("accuracy", "tokens") and self.tier is None
        return self.need == "proof"

    @property
    def title(self) -> str:
        """The rule in words."""
        tier = f" on {self.tier} questions" if self.tier else ""
        if self.kind == "accuracy":
            return f"accuracy{tier} not more than {-100 * self.bound:g} points lower"
        if self.kind == "tokens":
            return f"tokens{tier} at most {self.bound:g} times the baseline's"
        if self.kind == "hwe":
            return f"high-entropy-window tokens{tier} at least {self.bound:g} times the baseline's"
        return f"at most {100 * self.bound:g} % of replies{tier} cut at the token limit"


class Policy(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A whole policy; see the head of this file."""

    rules: tuple[Rule, ...]
    alpha: float = 0.05
    power: float = 0.8
    not_measured: float = 1.0
    tiers: Literal["auto", "level", "pass_rate"] = "auto"
    levels: dict[str, str] = {}


def load(name: str | Path) -> Policy:
    """The policy in a file, or of that name in configs/gates; PolicyError for anything wrong with it."""
    import yaml

    path = Path(name)
    if not path.is_file():
        path = resources.folder("configs") / "gates" / f"{name}.yaml"
    try:
        if path.stat().st_size > LARGEST:
            raise PolicyError(f"{path} has more than {LARGEST} bytes")
        content: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"no policy {str(name)!r}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise PolicyError(f"{path} is no YAML: {error}") from None
    try:
        policy = msgspec.convert(content, Policy)
        _check(policy)
    except (msgspec.ValidationError, ValueError) as error:
        raise PolicyError(f"{path}: {error}") from None
    return policy


def _check(policy: Policy) -> None:
    """ValueError for values that make no sense."""
    if not policy.rules:
        raise ValueError("a policy without rules decides nothing")
    if not 0 < policy.alpha < 0.5 or not 0.5 <= policy.power < 1:
        raise ValueError("alpha lies between 0 and 0.5, power between 0.5 and 1")
    if not 0 <= policy.not_measured <= 100:
        raise ValueError("not_measured is a percentage")
    own = {"accuracy": "margin", "tokens": "ratio", "hwe": "ratio", "truncation": "ceiling"}
    for number, rule in enumerate(policy.rules, 1):
        for key in ("margin", "ratio", "ceiling"):
            if getattr(rule, key) is not None and key != own[rule.kind]:
                raise ValueError(
                    f"rule {number} ({rule.kind}): {key} belongs to another kind; this one has {own[rule.kind]}"
                )
        if rule.kind == "accuracy" and not -1 < rule.bound <= 0:
            raise ValueError(f"rule {number}: a margin lies between 0 and 100 points")
        if rule.kind in ("tokens", "hwe") and not 0 < rule.bound < 1000:
            raise ValueError(f"rule {number}: a ratio is positive")
        if rule.kind == "truncation" and not 0 < rule.bound < 1:
            raise ValueError(f"rule {number}: a ceiling lies between 0 and 100 percent")
