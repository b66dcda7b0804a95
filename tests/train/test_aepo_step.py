"""ares_train.aepo.step: the whole step against the oracle, in every configuration; its order; its state."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ares_train.aepo.config import AEPOConfig
from ares_train.aepo.kl import controlled
from ares_train.aepo.rollouts import Rollouts, rollouts
from ares_train.aepo.state import AEPOState, BinMemory
from ares_train.aepo.step import Shaped, shape
from tests.train.aepo_reference import Memory, random_rollouts
from tests.train.aepo_reference import step as oracle_step


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Any configuration that is not refused."""
    mode = draw(st.sampled_from(["hier", "hier", "hier", "accuracy", "released", "length"]))
    target = draw(st.sampled_from(["ema", "batch_mean", "prev_batch", "bootstrap", "fixed", "group"]))
    branch = draw(st.sampled_from(["off", "extra"]))
    forks = branch != "off"
    std = draw(st.sampled_from(["reward", "accuracy", "none"]))
    per_bin = st.fixed_dictionaries({d: st.sampled_from([0.5, 1.0, 1.5]) for d in ("easy", "medium", "hard")})
    reward: dict[str, Any] = {
        "mode": mode,
        "target_mode": target,
        "lambda_sign": draw(st.sampled_from(["paper", "directional"])),
        "lam_max": draw(st.sampled_from([0.2, 1.0, 50.0])),
        "var_floor": draw(st.sampled_from([0.0, 1.0])),
        "min_count": draw(st.sampled_from([1, 6])),
        "max_penalty": draw(st.sampled_from([0.0, 0.3, 0.49])),
        "shape_correct": draw(st.sampled_from(["none", "easy", "all"])),
        "ema": draw(st.sampled_from([0.0, 0.9])),
        "bootstrap_steps": draw(st.sampled_from([1, 2])),
        "length_coef": draw(st.sampled_from([0.0, 0.4])),
    }
    if target == "fixed":
        reward["fixed_targets"] = draw(per_bin)
    else:
        reward["coef"] = draw(per_bin)
    if target == "group" or draw(st.booleans()):
        reward["fixed_lambda"] = draw(st.sampled_from([0.05, 3.0]))
    kl = draw(st.sampled_from(["dynamic", "uniform", "off"]))
    overlong = mode != "released" and draw(st.booleans())
    return {
        "response_length": 12,
        "window": {
            "size": draw(st.sampled_from([1, 2, 3, 4, 12])),
            "quantile": draw(st.sampled_from([0.3, 0.5, 0.8, 0.95])),
            "quantile_of": draw(st.sampled_from(["token", "window"])),
            "reduce": draw(st.sampled_from(["mean", "median"] + ([] if forks else ["pooled"]))),
            "rows": draw(st.sampled_from(["base", "all"])),
            "count_mode": draw(st.sampled_from(["starts", "covered", "windows", "token", "trigger"])),
            "valid_mode": draw(st.sampled_from(["window", "trigger", "confirmed"] + (["branched"] if forks else []))),
        },
        "difficulty": {"min_valid": draw(st.sampled_from([1, 2, 4, 5]))},
        "branch": {"mode": branch, "prefix_loss": draw(st.sampled_from(["mask", "keep"]))},
        "reward": reward,
        "overlong": {"buffer": 4 if overlong else 0, "factor": 0.5},
        "kl": {
            "mode": kl,
            "rho": draw(st.sampled_from([0.0, 0.67, 1.0])),
            "beta": draw(per_bin),
            "normalise": draw(st.sampled_from(["none", "mean_one"])),
        },
        "advantage": {
            "std": std,
            "std_floor": 0.1 if std == "accuracy" else draw(st.sampled_from([0.0, 0.1])),
            "group": draw(st.sampled_from(["all", "base_baseline", "siblings"])) if forks else "all",
        },
        "filter": {"metric": draw(st.sampled_from(["none", "accuracy", "reward"]))},
    }


def batches(seed: int, config: AEPOConfig, count: int = 4) -> list[Rollouts]:
    """Batches that suit the configuration: forks where it has them, tool spans in every other one."""
    rng = np.random.default_rng(seed)
    return [
        random_rollouts(rng, questions=int(rng.integers(1, 6)), forks=config.branch.mode != "off", holes=n % 2 == 1)
        for n in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(configurations(), st.integers(0, 2**32 - 1))
def test_every_configuration_gives_what_the_formulas_say(settings_: dict[str, Any], seed: int) -> None:
    config = AEPOConfig.from_dict(settings_)
    # There tau can be one of the window means itself, and the last bit of a sum decides whether that one is flagged.
    assume(config.window.reduce != "pooled" or config.window.quantile_of != "window")
    state, memory = AEPOState(), Memory()
    for batch in batches(seed, config):
        shaped = shape(batch, state, config)
        expected = oracle_step(batch, memory, config)
        for name, value in expected.items():
            np.testing.assert_allclose(
                np.asarray(getattr(shaped, name), dtype=np.float64),
                np.asarray(value, dtype=np.float64),
                rtol=1e-6,  # weights are float32
                atol=1e-9,
                err_msg=name,
            )
        state = shaped.state
        np.testing.assert_allclose(state.alphas, memory.alphas, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(configurations(), st.integers(0, 2**32 - 1))
def test_a_wrong_answer_never_outranks_a_right_one(settings_: dict[str, Any], seed: int) -> None:
    """Within a question, in any configuration; the released reward only compares within a bin, as groups do."""
    config = AEPOConfig.from_dict(settings_)
    state = AEPOState()
    for batch in batches(seed, config):
        shaped = shape(batch, state, config)
        state = shaped.state
        right = batch.correct > 0
        for question in np.unique(batch.question):
            here = batch.question == question
            if (here & right).any() and (here & ~right).any():
                assert shaped.reward[here & right].min() > shaped.reward[here & ~right].max()
                if config.advantage.group == "all" and shaped.keep[here].all():
                    assert shaped.advantage[here & right].min() > shaped.advantage[here & ~right].max()


def same(left: Shaped, right: Shaped) -> None:
    """Bit for bit."""
    for field in dataclasses.fields(Shaped):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), field.name
        elif field.name == "tau":
            assert np.float64(a).tobytes() == np.float64(b).tobytes()
        else:
            assert a == b, field.name


@settings(max_examples=20, deadline=None)
@given(configurations(), st.integers(0, 2**32 - 1))
def test_a_resumed_run_goes_on_bit_for_bit(settings_: dict[str, Any], seed: int) -> None:
    config = AEPOConfig.from_dict(settings_)
    five = batches(seed, config, 5)
    state = AEPOState()
    through = []
    for batch in five:
        through.append(shape(batch, state, config))
        state = through[-1].state
    state = AEPOState()
    for batch in five[:2]:
        state = shape(batch, state, config).state
    state = AEPOState.from_json(state.to_json())
    for batch, expected in zip(five[2:], through[2:], strict=True):
        shaped = shape(batch, state, config)
        same(shaped, expected)
        state = AEPOState.from_json(shaped.state.to_json())


def test_shape_changes_neither_its_input_nor_its_state() -> None:
    config = AEPOConfig.from_dict({"window": {"size": 2, "quantile": 0.5}})
    batch = random_rollouts(np.random.default_rng(3), forks=True)
    before = [getattr(batch, f.name).copy() for f in dataclasses.fields(batch) if getattr(batch, f.name) is not None]
    state = AEPOState()
    first = shape(batch, state, config)
    same(first, shape(batch, state, config))
    after = [getattr(batch, f.name) for f in dataclasses.fields(batch) if getattr(batch, f.name) is not None]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert state == AEPOState()


# ---------------------------------------------------------------- order


def counted_batch(n_he: list[list[int]], correct: list[list[int]]) -> Rollouts:
    """One row an answer, in groups; with w = 1 and a threshold of 1 nat, N_HE of each is as given."""
    flat = np.array(n_he).ravel()
    entropy = (np.arange(40) < flat[:, None]) * 2.0
    question = np.repeat(np.arange(len(n_he)), len(n_he[0]))
    return rollouts(entropy, np.ones_like(entropy, dtype=bool), np.array(correct).ravel(), question)


def fixed_tau(**reward: Any) -> AEPOConfig:
    """w = 1 and a quantile that lies between 0 and 2 nats in counted batches of not more than half of the tokens."""
    return AEPOConfig.from_dict({"window": {"size": 1, "quantile": 0.9}, "reward": {"min_count": 1, **reward}})


def test_the_reward_sees_the_bins_of_its_own_batch() -> None:
    """Stale bins (the last batch's, or the default "easy") would turn the hard question's penalty round."""
    config = fixed_tau(
        target_mode="fixed", fixed_targets={"easy": 10.0, "medium": 10.0, "hard": 10.0}, fixed_lambda=0.01
    )
    easy = counted_batch([[20, 5, 20, 5]], [[1, 1, 1, 0]])
    hard = counted_batch([[20, 5, 20, 5]], [[0, 0, 0, 0]])
    state = shape(easy, AEPOState(), config).state
    shaped = shape(hard, state, config)
    assert shaped.bins.tolist() == [2, 2, 2, 2]
    np.testing.assert_allclose(shaped.reward, [0.0, -0.05, 0.0, -0.05])
    np.testing.assert_allclose(shape(easy, shaped.state, config).reward, [1.0, 1.0, 1.0, 0.0])


def test_the_target_is_that_of_the_batches_before() -> None:
    """The batch's own mean moves the target only after the batch is rewarded."""
    config = fixed_tau(target_mode="prev_batch", fixed_lambda=0.01)
    low = counted_batch([[4, 4, 4, 4]], [[1, 1, 1, 0]])
    high = counted_batch([[9, 9, 9, 9]], [[1, 1, 1, 0]])
    first = shape(low, AEPOState(), config)
    assert np.isnan(first.targets).all() and not first.lambdas.any() and not first.penalty.any()
    second = shape(high, first.state, config)
    assert second.targets[0] == 4.0
    np.testing.assert_allclose(second.reward, [1, 1, 1, -0.05])
    third = shape(low, second.state, config)
    assert third.targets[0] == 9.0 and not third.penalty.any()


def test_windows_are_counted_at_the_threshold_of_their_own_batch() -> None:
    config = AEPOConfig.from_dict({"window": {"size": 1, "quantile": 0.5}})
    loud, quiet = np.full((4, 8), 4.0), np.full((4, 8), 1.0)
    ones = np.ones((4, 8), dtype=bool)
    state = shape(rollouts(loud, ones, np.ones(4), np.zeros(4)), AEPOState(), config).state
    shaped = shape(rollouts(quiet, ones, np.ones(4), np.zeros(4)), state, config)
    assert shaped.tau == 1.0 and shaped.n_he.tolist() == [8] * 4


def test_bootstrap_freezes_threshold_and_targets_together() -> None:
    config = AEPOConfig.from_dict(
        {
            "window": {"size": 1, "quantile": 0.5},
            "reward": {"target_mode": "bootstrap", "bootstrap_steps": 2, "min_count": 1, "coef": {"easy": 0.5}},
        }
    )
    ones = np.ones((4, 8), dtype=bool)
    state = AEPOState()
    taus = []
    for level in (4.0, 2.0, 1.0, 3.0):
        shaped = shape(rollouts(np.full((4, 8), level), ones, np.ones(4), np.zeros(4)), state, config)
        state = shaped.state
        taus.append(shaped.tau)
    assert taus == [4.0, 2.0, 3.0, 3.0]
    assert shaped.targets[0] == 0.5 * 8 and shaped.n_he.tolist() == [8] * 4
    assert state.tau_exact == 3.0 and state.bootstrap_tau.count == 2


# ---------------------------------------------------------------- the literal formula, state, metrics


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["paper", "directional"]))
def test_the_printed_lambda_is_zero_and_says_so(seed: int, sign: str) -> None:
    config = AEPOConfig.from_dict(
        {
            "window": {"size": 2, "quantile": 0.5},
            "reward": {"target_mode": "batch_mean", "lambda_sign": sign, "min_count": 1, "shape_correct": "all"},
        }
    )
    plain = AEPOConfig.from_dict({"window": {"size": 2, "quantile": 0.5}, "reward": {"mode": "accuracy"}})
    state = AEPOState()
    for batch in batches(seed, config):
        shaped = shape(batch, state, config)
        state = shaped.state
        assert (shaped.lambdas == 0.0).all()
        assert shaped.reward.tobytes() == batch.correct.astype(np.float64).tobytes()
        assert shaped.advantage.tobytes() == shape(batch, AEPOState(), plain).advantage.tobytes()
        assert shaped.metrics["aepo/lambda_identically_zero"] == 1.0
        assert any("identically zero" in line for line in shaped.warnings)


def test_accuracy_mode_gives_the_stock_rewards_bit_for_bit() -> None:
    batch = random_rollouts(np.random.default_rng(1))
    stock = np.random.default_rng(2).normal(size=batch.rows).astype(np.float32)
    shaped = shape(
        dataclasses.replace(batch, scores=stock), AEPOState(), AEPOConfig.from_dict({"reward": {"mode": "accuracy"}})
    )
    assert shaped.reward.astype(np.float32).tobytes() == stock.tobytes()


def test_the_rollouts_threshold_is_smoothed_over_steps() -> None:
    batch = random_rollouts(np.random.default_rng(5), forks=True)
    config = AEPOConfig.from_dict({"tau": {"ema": 0.75}})
    quantiles = np.where(batch.base, 2.0, 50.0)
    quantiles[0] = np.nan
    first = shape(dataclasses.replace(batch, rollout_quantile=quantiles), AEPOState(), config).state
    assert first.tau_rollout == 2.0
    second = shape(dataclasses.replace(batch, rollout_quantile=np.full(batch.rows, 4.0)), first, config).state
    assert second.tau_rollout == 0.75 * 2.0 + 0.25 * 4.0
    assert shape(batch, second, config).state.tau_rollout == second.tau_rollout
    last = AEPOConfig.from_dict({"tau": {"rollout_update": "prev"}})
    assert (
        shape(dataclasses.replace(batch, rollout_quantile=np.full(batch.rows, 4.0)), first, last).state.tau_rollout
        == 4.0
    )


def test_metrics_count_what_they_name() -> None:
    config = fixed_tau(target_mode="fixed", fixed_targets={"easy": 4.0, "medium": 4.0, "hard": 4.0}, fixed_lambda=0.01)
    batch = counted_batch([[8, 8, 0, 0], [8, 0, 0, 0]], [[1, 1, 1, 0], [0, 0, 0, 0]])
    metrics = shape(batch, AEPOState(), config).metrics
    assert metrics["aepo/hwe/frac_flagged"] == 24 / 320
    assert metrics["aepo/hwe/zero_frac"] == 5 / 8
    assert metrics["aepo/hwe/count_mean/easy"] == 4.0 and metrics["aepo/hwe/count_mean/hard"] == 2.0
    assert metrics["aepo/difficulty/easy/groups"] == 1.0 and metrics["aepo/difficulty/medium/groups"] == 0.0
    assert metrics["aepo/difficulty/easy/acc"] == 0.75 and metrics["aepo/difficulty/easy/len_mean"] == 40.0
    assert metrics["aepo/reward/active_frac/wrong"] == 3 / 5 and metrics["aepo/reward/active_frac/right"] == 0.0
    assert metrics["aepo/reward/lambda/hard"] == 0.01 and metrics["aepo/reward/target/hard"] == 4.0
    assert metrics["aepo/reward/penalty_mean/hard"] == pytest.approx(0.03)
    assert metrics["aepo/rows/real"] == 8.0 and metrics["aepo/branch/done"] == 0.0
    assert all(np.isfinite(value) for value in metrics.values())


def test_metric_names_give_verls_aggregator_no_wrong_hint() -> None:
    batch = random_rollouts(np.random.default_rng(6), forks=True)
    config = AEPOConfig.from_dict({"branch": {"mode": "extra"}})
    names = shape(batch, AEPOState(), config).metrics
    assert not [name for name in names for word in ("max", "min", "sum") if word in name]


def test_forks_are_reported() -> None:
    entropy, mask = np.ones((3, 10)), np.ones((3, 10), dtype=bool)
    batch = rollouts(entropy, mask, [0, 1, 1], [0, 0, 0], parent=[-1, -1, 0], fork_at=[0, 0, 4])
    metrics = shape(batch, AEPOState(), AEPOConfig.from_dict({"branch": {"mode": "extra"}})).metrics
    assert metrics["aepo/branch/per_prompt"] == 1.0 and metrics["aepo/branch/fork_acc_gain"] == 1.0
    assert metrics["aepo/branch/prefix_token_frac"] == 4 / 30


def test_warnings_name_what_makes_shaping_meaningless() -> None:
    silent = rollouts(np.zeros((4, 8)), np.zeros((4, 8), dtype=bool), [0, 0, 0, 0], [0, 0, 1, 1])
    shaped = shape(silent, AEPOState(), AEPOConfig.from_dict({}))
    text = "\n".join(shaped.warnings)
    assert "100% of the answers have N_HE = 0" in text
    assert "0.0000% of the positions are flagged" in text
    assert "no question of this batch is easy or medium" in text
    assert np.isnan(shaped.tau) and shaped.state.tau_exact is None


LAMBDA = "lambda is zero in every bin"


@pytest.mark.parametrize(
    ("reward", "complaint"),
    [
        ({"min_count": 500}, "min_count=500"),
        ({}, "penalised side"),
        ({"fixed_lambda": 0.0}, "fixed_lambda is 0"),
        ({"lam_max": 0.0}, "lam_max is 0"),
        ({"fixed_lambda": 0.1}, None),
        ({"mode": "accuracy"}, None),
    ],
)
def test_a_lambda_that_is_zero_in_every_bin_is_told(reward: dict[str, Any], complaint: str | None) -> None:
    """Targets of easy and hard are known and far above what the batch has: the printed numerator is negative."""
    memory = BinMemory(ema=30.0, previous=30.0, batches=50)
    state = AEPOState(step=50, bins=(memory, BinMemory(), memory))
    batch = counted_batch([[8, 8, 0, 0], [8, 0, 0, 0]], [[1, 1, 1, 0], [0, 0, 0, 0]])
    config = fixed_tau(**{"target_mode": "ema", **reward})
    shaped = shape(batch, state, config)
    assert shaped.lambdas.any() == (reward.get("fixed_lambda") == 0.1)
    told = [line for line in shaped.warnings if LAMBDA in line]
    assert len(told) == (complaint is not None)
    assert complaint is None or complaint in told[0]


def test_a_first_step_without_targets_has_no_lambda_to_warn_of() -> None:
    batch = counted_batch([[8, 8, 0, 0]], [[1, 1, 1, 0]])
    first = shape(batch, AEPOState(), fixed_tau(target_mode="ema"))
    assert not first.lambdas.any() and LAMBDA not in "".join(first.warnings)
    # On the side that is penalised there is one.
    low = AEPOState(bins=(BinMemory(ema=1.0, previous=1.0, batches=1), BinMemory(), BinMemory()))
    second = shape(batch, low, fixed_tau(target_mode="ema"))
    assert second.lambdas[0] > 0 and LAMBDA not in "".join(second.warnings)


@pytest.mark.parametrize("prefix", ["mask", "keep"])
@pytest.mark.parametrize("drop", [False, True])
def test_the_mean_kl_weight_is_over_the_tokens_that_have_one(prefix: str, drop: bool) -> None:
    """A fork's inherited tokens where they are trained, and nothing of a question that the filter dropped."""
    batch = rollouts(
        np.ones((5, 10)), np.ones((5, 10), dtype=bool), [0, 1, 1, 1, 1], [0, 0, 0, 1, 1],
        parent=[-1, -1, 0, -1, -1], fork_at=[0, 0, 4, 0, 0],
    )  # fmt: skip
    settings_ = {"branch": {"mode": "extra", "prefix_loss": prefix}, "kl": {"mode": "uniform"},
                 "filter": {"metric": "accuracy" if drop else "none"}}  # fmt: skip
    shaped = shape(batch, AEPOState(), AEPOConfig.from_dict(settings_))
    assert shaped.keep.all() == (not drop)
    assert shaped.metrics["aepo/kl/weight_mean"] == 1.0


def test_what_the_filter_drops_trains_nothing() -> None:
    config = AEPOConfig.from_dict({"filter": {"metric": "accuracy"}})
    batch = counted_batch([[8, 0], [8, 0]], [[1, 1], [1, 0]])
    shaped = shape(batch, AEPOState(), config)
    assert shaped.keep.tolist() == [False, False, True, True]
    assert not shaped.advantage[:2].any() and not shaped.kl_weight[:2].any()
    assert shaped.advantage[2:].all() and shaped.kl_weight[2:].all()


def test_entropies_that_are_not_finite_are_refused() -> None:
    entropy = np.ones((2, 4))
    entropy[1, 2] = np.nan
    mask = np.ones((2, 4), dtype=bool)
    with pytest.raises(ValueError, match="not finite"):
        shape(rollouts(entropy, mask, [1, 0], [0, 0]), AEPOState(), AEPOConfig.from_dict({}))
    mask[1, 2] = False
    shape(rollouts(entropy, mask, [1, 0], [0, 0]), AEPOState(), AEPOConfig.from_dict({}))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"correct": [0.5, 1.0]}, "correct must be 0 or 1"),
        ({"mask": np.ones((2, 3), dtype=bool)}, "mask has shape"),
        ({"question": [0]}, "question has shape"),
        ({"parent": [-1, 0], "fork_at": [0, 0]}, "inherits 1 to"),
        ({"parent": [-1, -1], "fork_at": [0, 2]}, "inherits 1 to"),
        ({"parent": [-1, 5], "fork_at": [0, 2]}, "beyond the 2 rows"),
        ({"parent": [-1, 1], "fork_at": [0, 2]}, "must be a base row"),
        ({"parent": [-1, 0], "fork_at": [0, 2], "question": [0, 1]}, "must be a base row"),
        ({"scores": [np.nan, 0]}, "not finite"),
    ],
)
def test_rollouts_that_cannot_be_are_refused(change: dict[str, Any], complaint: str) -> None:
    arrays: dict[str, Any] = {
        "entropy": np.ones((2, 4)),
        "mask": np.ones((2, 4), dtype=bool),
        "correct": [1, 0],
        "question": [0, 0],
    }
    with pytest.raises(ValueError, match=complaint):
        rollouts(**{**arrays, **change})


def test_the_controllers_kappa_reaches_the_weights() -> None:
    config = AEPOConfig.from_dict({"kl": {"controller": {"enabled": True, "target": 0.01, "rate": 0.5}}})
    batch = counted_batch([[8, 0]], [[1, 1]])
    before = shape(batch, AEPOState(), config)
    state = controlled(before.state, np.array([0.04, 0.0, 0.0]), np.array([2, 0, 0]), config.kl.controller)
    assert state.kappas == (1.5, 1.0, 1.0)
    np.testing.assert_allclose(shape(batch, state, config).kl_weight, 1.5 * before.kl_weight, rtol=1e-6)


@pytest.mark.parametrize(("rows", "tokens"), [(0, 0), (0, 5), (2, 0), (1, 3)])
@pytest.mark.parametrize(
    "settings_",
    [
        {},
        {"reward": {"target_mode": "group", "fixed_lambda": 0.05}},
        {"reward": {"mode": "released"}, "filter": {"metric": "reward"}},
        {"window": {"reduce": "pooled", "quantile_of": "window"}, "kl": {"normalise": "mean_one"}},
        {"branch": {"mode": "extra"}, "advantage": {"group": "siblings"}, "window": {"valid_mode": "branched"}},
    ],
)
def test_next_to_nothing_is_shaped_like_anything(rows: int, tokens: int, settings_: dict[str, Any]) -> None:
    batch = rollouts(np.zeros((rows, tokens)), np.ones((rows, tokens), dtype=bool), np.ones(rows), np.zeros(rows))
    shaped = shape(batch, AEPOState(), AEPOConfig.from_dict(settings_))
    assert AEPOState.from_json(shaped.state.to_json()) == shaped.state
    assert len(shaped.reward) == rows and np.isfinite(shaped.advantage).all()
