"""What is compared: each arm is a setting of `AEPOConfig` and nothing else.

All arms of a seed see the same questions and train on eight answers to each. Two tokens and the 0.8 quantile define HWE
here: answers have 8 to 144 tokens and reflections are two tokens long, so that the paper's four tokens and 0.95 flag
next to nothing (the window grid shows it; the row `paper_window` trains with them).
"""

from __future__ import annotations

from typing import Any

from ares_train.aepo.config import AEPOConfig

Settings = dict[str, Any]

WINDOW: Settings = {"size": 2, "quantile": 0.8}
BRANCHING: Settings = {"mode": "budget", "n_base": 4, "max_trajectories": 8, "entropy_source": "exact"}
DYNAMIC_KL: Settings = {"mode": "dynamic", "rho": 0.67}
OFF: Settings = {"mode": "off"}

GROUP_REWARD: Settings = {
    "mode": "hier",
    "target_mode": "group",
    "fixed_lambda": 0.05,
    "lambda_sign": "directional",
    "shape_correct": "easy",
}

GRPO: Settings = {"reward": {"mode": "accuracy"}, "branch": OFF, "kl": OFF}
WRITTEN: Settings = {"reward": {"mode": "hier"}, "branch": BRANCHING, "kl": DYNAMIC_KL}
ADAPTIVE: Settings = {
    "reward": GROUP_REWARD,
    "branch": BRANCHING,
    "kl": DYNAMIC_KL,
    "advantage": {"std_floor": 0.1},
}

MAIN: dict[str, Settings] = {
    "grpo": GRPO,
    "aepo_adaptive": ADAPTIVE,
    "grpo_length": {"reward": {"mode": "length"}, "branch": OFF, "kl": OFF},
    "aepo": WRITTEN,
    "aepo_adaptive_no_branch": {**ADAPTIVE, "branch": OFF},
    "aepo_adaptive_no_kl": {**ADAPTIVE, "kl": OFF},
}
"""Several seeds, paired. `aepo` is the reward as written (E9: wrong answers only; the target is the EMA of earlier
batches; lambda as printed), `aepo_adaptive` the recommended preset; both branch within the budget and weight the KL."""

SINGLE: dict[str, Settings] = {
    "literal": {"reward": {"mode": "hier", "target_mode": "batch_mean"}, "branch": OFF, "kl": OFF},
    "released": {"reward": {"mode": "released"}, "branch": OFF, "kl": OFF},
    "all_bins": {**ADAPTIVE, "reward": {**GROUP_REWARD, "shape_correct": "all"}},
    "no_std_floor": {**ADAPTIVE, "advantage": {"std_floor": 0.0}},
    "grpo_kl": {**GRPO, "kl": {"mode": "uniform"}},
    "grpo_branch": {**GRPO, "branch": BRANCHING},
    "written_reward_only": {"reward": {"mode": "hier"}, "branch": OFF, "kl": OFF},
    "paper_window": {**ADAPTIVE, "window": {"size": 4, "quantile": 0.95}},
}
"""One seed: what each part does. `literal` must equal GRPO to the last bit, for its lambda is zero."""

LONG = {**dict.fromkeys(MAIN, 1), "grpo": 3, "aepo_adaptive": 3, "grpo_length": 3}
"""Arms and their number of seeds, trained longer: what stays of the differences once GRPO, too, has had time to shed
what is useless."""

LENGTH_COEFFICIENTS = (0.15, 0.3, 0.6)
"""Among these the control's is chosen, on the tuning seed and split, by the tokens it leaves on easy questions."""


def config_of(settings: Settings, answer_length: int, length_coefficient: float | None = None) -> AEPOConfig:
    """The arm's configuration for a task; ``length_coefficient`` is read by the length penalty alone."""
    reward = dict(settings["reward"])
    if reward["mode"] == "length":
        if length_coefficient is None:
            raise ValueError("the length penalty needs its coefficient")
        reward["length_coef"] = length_coefficient
    return AEPOConfig.from_dict(
        {"window": WINDOW, **settings, "reward": reward, "response_length": answer_length},
    )
