"""Every switch of AEPO: frozen dataclasses, made from a plain mapping (YAML, Hydra, JSON) by ``AEPOConfig.from_dict``.

Defaults are the method as written where the paper gives a value or a form (w and the quantile, E9, bins by thirds), and
where it gives none what docs/aepo.md says. Settings that contradict each other are refused with the reason, an unknown
name with its nearest neighbours. What belongs to another ``mode`` than the chosen one has no effect, so that an
ablation is one override: ``reward.mode=accuracy``, ``kl.mode=uniform``, ``branch.mode=off``.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Amount = Annotated[float, Meta(ge=0.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Inside = Annotated[float, Meta(gt=0.0, lt=1.0)]
BelowOne = Annotated[float, Meta(ge=0.0, lt=1.0)]


class ConfigError(ValueError):
    """A setting that cannot be: the message says which, why and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerBin:
    """One number for each difficulty bin."""

    easy: Amount = 1.0
    medium: Amount = 1.0
    hard: Amount = 1.0

    def values(self) -> tuple[float, float, float]:
        """In the order of the bins' codes: 0 easy, 1 medium, 2 hard."""
        return (self.easy, self.medium, self.hard)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """High-window-entropy positions: windows.py, hwe.py.

    ``size``: w in tokens. ``quantile``: of each rollout's ``quantile_of`` (token entropies, E3; or window means, the
    released code). ``reduce``: how the rollouts' quantiles become one tau_high; ``pooled`` takes the quantile of all
    tokens together (appendix H). ``rows``: which rollouts give tau_high. ``count_mode``: what N_HE counts.
    ``valid_mode``: what W_valid is. ``trigger_words_file``: list for the two ``trigger`` modes, the package's if None.
    """

    size: Annotated[int, Meta(ge=1, le=64)] = 4
    quantile: Inside = 0.95
    quantile_of: Literal["token", "window"] = "token"
    reduce: Literal["mean", "pooled", "median"] = "mean"
    rows: Literal["base", "all"] = "base"
    count_mode: Literal["starts", "covered", "windows", "token", "trigger"] = "starts"
    valid_mode: Literal["window", "trigger", "confirmed", "branched"] = "window"
    trigger_words_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TauConfig:
    """tau_rollout, the threshold that branching uses while rolling out; it comes from earlier steps: state.py.

    ``rollout_update``: the last step's value, or an EMA that keeps ``ema`` of its past. ``cold_start``, before any step
    was measured: the group's own quantiles, no branching, or ``fixed`` nats.
    """

    rollout_update: Literal["ema", "prev"] = "ema"
    ema: BelowOne = 0.9
    cold_start: Literal["group", "disable", "fixed"] = "group"
    fixed: Amount | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DifficultyConfig:
    """Bins of the base rollouts' accuracy: easy from ``easy`` on, hard below ``hard``, medium between: difficulty.py.

    A question with fewer than ``min_valid`` base rollouts is medium. The defaults are the paper's 6 and 3 of 8.
    """

    easy: Share = 2 / 3
    hard: Share = 1 / 3
    min_valid: Count = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchConfig:
    """Forks at high-entropy windows: branching.py.

    ``mode``: ``off``; ``extra``: forks on top of all ``rollout.n`` base rollouts; ``budget``: ``n_base`` base rollouts,
    forks and then fresh samples up to exactly ``max_trajectories``. ``max_trajectories``: rows of one prompt, base and
    forks. ``min_prefix``: tokens a fork keeps at least; ``min_new_tokens``: that it can still write at least.
    ``position``: fork at the window's first flagged token or at its highest. ``prefix_loss``: whether a fork's
    inherited tokens are trained through the fork, too. ``entropy_source``, ``topk``: whence rollout-time entropy.
    """

    mode: Literal["off", "extra", "budget"] = "off"
    n_base: Count | None = None
    max_per_rollout: Count = 2
    max_per_prompt: Count = 8
    max_trajectories: Count = 16
    min_prefix: Count = 1
    min_new_tokens: Count = 16
    position: Literal["first", "peak"] = "first"
    from_truncated: bool = False
    prefix_loss: Literal["mask", "keep"] = "mask"
    entropy_source: Literal["server_topk", "rescore", "surprisal", "exact"] = "server_topk"
    topk: Count = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """The reward: reward.py, target.py, released.py.

    ``mode``: ``hier`` (E9), ``accuracy`` (the stock reward), ``released`` (the released code's), ``length``
    (difficulty-blind control, acc (1 - ``length_coef`` len / response_length)).
    ``target_mode``: N_target(d), see target.py; ``coef`` multiplies it; ``fixed_targets`` is for ``fixed``, ``ema`` for
    ``ema``, ``bootstrap_steps`` for ``bootstrap``. ``lambda_sign``: numerator of lambda as printed, or towards each
    bin's own penalty. ``fixed_lambda`` takes the place of the closed form; ``group`` needs it. ``eps``, ``var_floor``:
    in lambda's denominator. ``min_count``: answers that a bin needs for a lambda and for moving its target.
    ``shape_correct``: right answers of which bins are penalised, too. ``max_penalty``: cap of lambda times g.
    """

    mode: Literal["hier", "accuracy", "released", "length"] = "hier"
    target_mode: Literal["ema", "batch_mean", "prev_batch", "bootstrap", "fixed", "group"] = "ema"
    lambda_sign: Literal["paper", "directional"] = "paper"
    fixed_lambda: Amount | None = None
    eps: Annotated[float, Meta(gt=0.0)] = 1e-6
    lam_max: Amount = 1.0
    var_floor: Amount = 0.0
    min_count: Count = 8
    max_penalty: BelowOne = 0.5
    shape_correct: Literal["none", "easy", "all"] = "none"
    ema: BelowOne = 0.9
    bootstrap_steps: Count = 5
    coef: PerBin = PerBin()
    fixed_targets: PerBin | None = None
    length_coef: BelowOne = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """Per-bin KL controller (paper E17), driven by the KL of tokens outside windows: kl.py.

    kappa_d <- clip(kappa_d (1 + ``rate`` (KL_d / ``target`` - 1)), ``lowest``, ``highest``), once a step.
    """

    enabled: bool = False
    target: Annotated[float, Meta(gt=0.0)] = 0.01
    rate: Inside = 0.05
    lowest: Annotated[float, Meta(gt=0.0)] = 1e-4
    highest: Annotated[float, Meta(gt=0.0)] = 1e2


@dataclass(frozen=True, slots=True, kw_only=True)
class KLConfig:
    """Weights of the KL loss, token by token (paper E10): kl.py.

    ``mode``: ``dynamic``: beta_d, times ``rho`` inside valid windows; ``uniform``: one everywhere; ``off``: none.
    ``normalise``: ``mean_one`` scales the weights so that their mean over the trained tokens is one.
    """

    mode: Literal["dynamic", "uniform", "off"] = "dynamic"
    rho: Amount = 0.67
    beta: PerBin = PerBin()
    normalise: Literal["none", "mean_one"] = "none"
    controller: ControllerConfig = ControllerConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageConfig:
    """Group-relative advantages (``ares_grpo``): advantage.py.

    ``std``: the deviation that divides: of the rewards, of the accuracies, or none. ``std_floor``: its least value.
    ``group``: rows that give a row's mean and deviation.
    """

    std: Literal["reward", "accuracy", "none"] = "reward"
    std_floor: Amount = 0.0
    group: Literal["all", "base_baseline", "siblings"] = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterConfig:
    """DAPO's dynamic sampling: a question is kept where the mean of ``metric`` lies strictly between the bounds."""

    metric: Literal["none", "accuracy", "reward"] = "none"
    low: float = 0.01
    high: float = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlongConfig:
    """DAPO's soft penalty on the last ``buffer`` tokens before the limit, up to ``factor``; ``buffer`` 0 is off.

    DAPO's factor of 1 is for rewards of -1 and 1; on rewards of 0 and 1 the like of it is 0.5.
    """

    buffer: Annotated[int, Meta(ge=0)] = 0
    factor: BelowOne = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class AEPOConfig:
    """All of AEPO. ``response_length``: most tokens of an answer, for ``reward.mode=length`` and ``overlong``."""

    response_length: Count | None = None
    window: WindowConfig = WindowConfig()
    tau: TauConfig = TauConfig()
    difficulty: DifficultyConfig = DifficultyConfig()
    branch: BranchConfig = BranchConfig()
    reward: RewardConfig = RewardConfig()
    overlong: OverlongConfig = OverlongConfig()
    kl: KLConfig = field(default_factory=KLConfig)
    advantage: AdvantageConfig = AdvantageConfig()
    filter: FilterConfig = FilterConfig()

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> AEPOConfig:
        """The configuration that nested plain mappings amount to; what they leave out has its default.

        ConfigError for unknown names, wrong types, values out of range, and contradictions.
        """
        _refuse_unknown(settings, cls, "")
        try:
            made = msgspec.convert(_yaml_off(settings), cls, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"aepo: {error}") from None
        _refuse_infinite(made, "")
        made.check()
        return made

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries; ``from_dict`` of them is equal to this."""
        return dataclasses.asdict(self)

    def check(self) -> None:
        """ConfigError for settings that contradict each other."""
        for holds, complaint in _contradictions(self):
            if holds:
                raise ConfigError(complaint)

    @property
    def lambda_is_zero(self) -> bool:
        """Whether lambda is identically zero: the target is the very mean that it is compared with (E5 in E6)."""
        reward = self.reward
        literal = reward.target_mode == "batch_mean" and reward.coef == PerBin() and reward.fixed_lambda is None
        return reward.mode == "hier" and literal


def _contradictions(config: AEPOConfig) -> list[tuple[bool, str]]:
    """Each rule as (is broken, what to say)."""
    branch, reward, advantage, overlong = config.branch, config.reward, config.advantage, config.overlong
    forks = branch.mode != "off"
    budget = branch.mode == "budget"
    needs_length = reward.mode == "length" or overlong.buffer > 0
    # The most that can be taken from a right answer: a wrong one has 0 at best, so this must stay below 1.
    taken = {"hier": reward.max_penalty, "length": reward.length_coef}.get(reward.mode, 0.0)
    return [
        (
            config.difficulty.hard > config.difficulty.easy,
            f"difficulty.hard ({config.difficulty.hard}) must not be above difficulty.easy ({config.difficulty.easy})",
        ),
        (
            config.tau.cold_start == "fixed" and config.tau.fixed is None,
            "tau.cold_start=fixed needs tau.fixed, a threshold in nats",
        ),
        (
            config.tau.cold_start != "fixed" and config.tau.fixed is not None,
            "tau.fixed is read only with tau.cold_start=fixed",
        ),
        (budget and branch.n_base is None, "branch.mode=budget needs branch.n_base, the base rollouts of a prompt"),
        (
            branch.n_base is not None and branch.n_base >= branch.max_trajectories and forks,
            f"branch.n_base ({branch.n_base}) leaves no room for forks in branch.max_trajectories "
            f"({branch.max_trajectories})",
        ),
        (
            budget and branch.n_base is not None and branch.n_base < config.difficulty.min_valid,
            f"branch.n_base ({branch.n_base}) below difficulty.min_valid ({config.difficulty.min_valid}) makes every "
            "question medium",
        ),
        (
            forks and config.window.reduce == "pooled",
            "window.reduce=pooled cannot be had while rolling out, where forks are decided group by group; "
            "use mean or median, or branch.mode=off",
        ),
        (
            config.window.valid_mode == "branched" and not forks,
            "window.valid_mode=branched needs forks: set branch.mode to extra or budget",
        ),
        (
            advantage.group != "all" and not forks,
            f"advantage.group={advantage.group} needs forks: set branch.mode to extra or budget",
        ),
        (
            advantage.std == "accuracy" and advantage.std_floor == 0,
            "advantage.std=accuracy needs advantage.std_floor above 0: the accuracies of an all-right or all-wrong "
            "group deviate by nothing, while its rewards do",
        ),
        (
            reward.mode == "hier" and reward.target_mode == "group" and reward.fixed_lambda is None,
            "reward.target_mode=group needs reward.fixed_lambda (0.05 does): its closed form is zero by construction",
        ),
        (
            reward.target_mode == "fixed" and reward.fixed_targets is None,
            "reward.target_mode=fixed needs reward.fixed_targets",
        ),
        (
            reward.target_mode != "fixed" and reward.fixed_targets is not None,
            "reward.fixed_targets is read only with reward.target_mode=fixed",
        ),
        (
            reward.target_mode == "fixed" and reward.coef != PerBin(),
            "reward.coef scales measured targets; with reward.target_mode=fixed write the targets themselves",
        ),
        (
            needs_length and config.response_length is None,
            "response_length is needed by reward.mode=length and by overlong.buffer",
        ),
        (
            config.response_length is not None and overlong.buffer > config.response_length,
            f"overlong.buffer ({overlong.buffer}) is longer than response_length ({config.response_length})",
        ),
        (
            overlong.buffer > 0 and taken + overlong.factor >= 1,
            f"overlong.factor ({overlong.factor}) and the reward's own penalty ({taken}) can take 1 or more in all, so "
            "that a right answer could fall to a wrong one's reward",
        ),
        (
            overlong.buffer > 0 and reward.mode == "released",
            "overlong with reward.mode=released: it pays wrong answers, and an overlong right one could fall below",
        ),
        (
            config.kl.controller.enabled and config.kl.mode != "dynamic",
            f"kl.controller needs kl.mode=dynamic, not {config.kl.mode}",
        ),
        (
            config.kl.controller.lowest > config.kl.controller.highest,
            "kl.controller.lowest must not be above kl.controller.highest",
        ),
        (config.filter.low >= config.filter.high, "filter.low must be below filter.high"),
    ]


def _refuse_unknown(settings: Mapping[str, Any], kind: type[Any], where: str) -> None:
    """ConfigError for the first name that ``kind`` does not have, at any depth."""
    if not isinstance(settings, Mapping):
        raise ConfigError(
            f"aepo: {where.rstrip('.') or 'the configuration'} must be a mapping, not {type(settings).__name__}"
        )
    hints = typing.get_type_hints(kind)
    for name, value in settings.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=3, cutoff=0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; there are {', '.join(hints)}"
            raise ConfigError(f"aepo: unknown setting {where}{name}{hint}")
        inner = [t for t in (hints[name], *typing.get_args(hints[name])) if dataclasses.is_dataclass(t)]
        if inner and value is not None:
            _refuse_unknown(value, typing.cast("type[Any]", inner[0]), f"{where}{name}.")


def _refuse_infinite(made: Any, where: str) -> None:
    """ConfigError for a number that is infinite or none at all."""
    for field_ in dataclasses.fields(made):
        value = getattr(made, field_.name)
        if dataclasses.is_dataclass(value):
            _refuse_infinite(value, f"{where}{field_.name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"aepo: {where}{field_.name} must be finite, not {value}")


def _yaml_off(settings: Mapping[str, Any]) -> dict[str, Any]:
    """YAML reads a bare ``off`` as false; where a mode may be off, that is what was meant."""
    plain = dict(settings)
    for section in ("branch", "kl"):
        part = plain.get(section)
        if isinstance(part, Mapping) and part.get("mode") is False:
            plain[section] = {**part, "mode": "off"}
    return plain
