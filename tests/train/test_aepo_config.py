"""ares_train.aepo.config: what it takes, what it refuses, and how it says so."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import yaml

from ares_train.aepo.config import AEPOConfig, ConfigError

BUDGET = {"mode": "budget", "n_base": 4, "max_trajectories": 8}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"windw": {}}, "unknown setting windw; did you mean window"),
        ({"reward": {"coef": {"esy": 1}}}, "unknown setting reward.coef.esy; did you mean easy"),
        ({"kl": {"controller": {"on": True}}}, "unknown setting kl.controller.on; there are enabled"),
        ({"reward": 3}, "aepo: reward must be a mapping, not int"),
        ({"reward": {"mode": "entropy"}}, "reward.mode"),
        ({"window": {"size": 65}}, "window.size"),
        ({"window": {"quantile": 1.0}}, "window.quantile"),
        ({"reward": {"max_penalty": 1.0}}, "reward.max_penalty"),
        ({"kl": {"rho": float("inf")}}, "kl.rho must be finite"),
        ({"reward": {"fixed_targets": {"easy": float("nan")}}}, "must be finite|Expected"),
        ({"difficulty": {"easy": 0.2}}, "must not be above difficulty.easy"),
        ({"tau": {"cold_start": "fixed"}}, "needs tau.fixed"),
        ({"tau": {"fixed": 1.0}}, "only with tau.cold_start=fixed"),
        ({"branch": {"mode": "budget"}}, "needs branch.n_base"),
        ({"branch": {**BUDGET, "n_base": 8}}, "leaves no room for forks"),
        ({"branch": {**BUDGET, "n_base": 1}}, "makes every question medium"),
        ({"branch": BUDGET, "window": {"reduce": "pooled"}}, "while rolling out"),
        ({"window": {"valid_mode": "branched"}}, "needs forks"),
        ({"advantage": {"group": "siblings"}}, "needs forks"),
        ({"advantage": {"std": "accuracy"}}, "needs advantage.std_floor"),
        ({"reward": {"target_mode": "group"}}, "needs reward.fixed_lambda"),
        ({"reward": {"target_mode": "fixed"}}, "needs reward.fixed_targets"),
        ({"reward": {"fixed_targets": {"easy": 1}}}, "only with reward.target_mode=fixed"),
        (
            {"reward": {"target_mode": "fixed", "fixed_targets": {}, "coef": {"easy": 2}}},
            "write the targets themselves",
        ),
        ({"reward": {"mode": "length"}}, "response_length is needed"),
        ({"overlong": {"buffer": 5}}, "response_length is needed"),
        ({"overlong": {"buffer": 50}, "response_length": 10}, "longer than response_length"),
        (
            {"overlong": {"buffer": 5, "factor": 0.5}, "response_length": 10, "reward": {"max_penalty": 0.5}},
            "could fall",
        ),
        ({"overlong": {"buffer": 5}, "response_length": 10, "reward": {"mode": "released"}}, "it pays wrong answers"),
        ({"kl": {"mode": "uniform", "controller": {"enabled": True}}}, "needs kl.mode=dynamic"),
        ({"kl": {"controller": {"lowest": 3, "highest": 2}}}, "must not be above"),
        ({"filter": {"low": 1.0, "high": 0.0}}, "must be below filter.high"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        AEPOConfig.from_dict(settings)


def test_a_configuration_survives_its_dictionary_pickle_and_yaml() -> None:
    config = AEPOConfig.from_dict({"branch": BUDGET, "reward": {"target_mode": "group", "fixed_lambda": 0.05}})
    assert AEPOConfig.from_dict(config.to_dict()) == config
    assert AEPOConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes


def test_yamls_bare_off_and_numbers_as_text_are_understood() -> None:
    config = AEPOConfig.from_dict(yaml.safe_load("{branch: {mode: off}, kl: {mode: off}, reward: {eps: 1e-6}}"))
    assert (config.branch.mode, config.kl.mode, config.reward.eps) == ("off", "off", 1e-6)


def test_defaults_are_the_method_as_written() -> None:
    config = AEPOConfig.from_dict({})
    assert (config.window.size, config.window.quantile, config.window.quantile_of) == (4, 0.95, "token")
    assert (config.reward.shape_correct, config.reward.lambda_sign) == ("none", "paper")
    assert not config.lambda_is_zero


def test_an_ablation_is_one_override() -> None:
    """Whatever a preset sets besides, these switches can be thrown alone."""
    preset: dict[str, Any] = {
        "branch": BUDGET,
        "reward": {"target_mode": "group", "fixed_lambda": 0.05, "shape_correct": "easy"},
        "advantage": {"std_floor": 0.1},
    }
    for section, mode in (
        ("branch", "off"),
        ("branch", "extra"),
        ("reward", "accuracy"),
        ("reward", "released"),
        ("kl", "uniform"),
        ("kl", "off"),
    ):
        AEPOConfig.from_dict({**preset, section: {**preset.get(section, {}), "mode": mode}})


def test_lambda_is_zero_only_for_the_printed_formula() -> None:
    literal = {"reward": {"target_mode": "batch_mean"}}
    assert AEPOConfig.from_dict(literal).lambda_is_zero
    for change in ({"coef": {"easy": 0.5}}, {"fixed_lambda": 0.1}, {"mode": "accuracy"}):
        assert not AEPOConfig.from_dict({"reward": {**literal["reward"], **change}}).lambda_is_zero
