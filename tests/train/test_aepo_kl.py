"""ares_train.aepo.kl and tensors: weights, their loss and its gradient, the controller, and penalty against loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ares_train.aepo import advantage, kl, tensors, windows
from ares_train.aepo.config import AdvantageConfig, ControllerConfig, KLConfig, PerBin
from ares_train.aepo.state import AEPOState
from tests.train import aepo_reference as oracle


def weights_case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bins, valid, trained) of a few rows."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, 6).astype(np.int8), rng.random((6, 9)) < 0.4, rng.random((6, 9)) < 0.7


CONFIGS = st.builds(
    KLConfig,
    mode=st.sampled_from(["dynamic", "uniform", "off"]),
    rho=st.sampled_from([0.0, 0.67, 1.0, 2.0]),
    beta=st.builds(PerBin, easy=st.sampled_from([0.5, 1.0]), hard=st.sampled_from([0.0, 2.0])),
    normalise=st.sampled_from(["none", "mean_one"]),
)
KAPPAS = st.tuples(*[st.sampled_from([0.5, 1.0, 4.0])] * 3)


@given(CONFIGS, KAPPAS, st.integers(0, 1000))
def test_torch_and_numpy_weights_agree(config: KLConfig, kappas: tuple[float, float, float], seed: int) -> None:
    bins, valid, trained = weights_case(seed)
    ours = kl.kl_weights(bins, valid, trained, AEPOState(kappas=kappas), config)
    theirs = tensors.kl_weights(torch.tensor(bins), torch.tensor(valid), torch.tensor(trained), kappas, config)
    assert ours.dtype == np.float32 and theirs.dtype == torch.float32
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-6)
    assert not ours[~trained].any()


def test_weights_by_hand() -> None:
    bins, valid = np.array([0, 2]), np.array([[True, False], [False, True]])
    config = KLConfig(rho=0.5, beta=PerBin(easy=2.0, hard=3.0))
    both = np.ones((2, 2), dtype=bool)
    np.testing.assert_allclose(kl.kl_weights(bins, valid, both, AEPOState(), config), [[1.0, 2.0], [3.0, 1.5]])
    one = kl.kl_weights(bins, valid, both, AEPOState(), KLConfig(rho=0.5, beta=config.beta, normalise="mean_one"))
    np.testing.assert_allclose(one, np.array([[1.0, 2.0], [3.0, 1.5]]) / 1.875, rtol=1e-6)
    kappa = AEPOState(kappas=(10.0, 1.0, 0.1))
    np.testing.assert_allclose(kl.kl_weights(bins, valid, both, kappa, config), [[10, 20], [0.3, 0.15]], rtol=1e-6)


@settings(deadline=None)
@given(CONFIGS.filter(lambda c: c.mode == "dynamic"), st.integers(0, 1000))
def test_mean_one_keeps_the_budget(config: KLConfig, seed: int) -> None:
    bins, valid, trained = weights_case(seed)
    weights = kl.kl_weights(bins, valid, trained, AEPOState(), config)
    if config.normalise == "mean_one" and weights.any():
        assert weights[trained].mean() == pytest.approx(1.0, rel=1e-6)


# ---------------------------------------------------------------- the loss


def loss_of(
    logits: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor, w: torch.Tensor, m: torch.Tensor, **how: Any
) -> torch.Tensor:
    """Weighted KL loss of sampled tokens."""
    picked = [torch.log_softmax(x, -1).gather(-1, tokens[..., None])[..., 0] for x in (logits, reference)]
    return tensors.weighted_kl(
        tensors.token_kl(*picked, how.get("estimator", "k3")), w, m, how.get("aggregate", "token-mean")
    )


@pytest.mark.parametrize("aggregate", ["token-mean", "seq-mean"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_weighted_losss_gradient_is_that_of_finite_differences(estimator: str, aggregate: str) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(3, 5, 4, generator=rng, dtype=torch.float64)
    tokens = torch.randint(0, 4, (3, 5), generator=rng)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    weights = torch.rand(3, 5, generator=rng, dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return loss_of(x, reference, tokens, weights, mask, estimator=estimator, aggregate=aggregate)

    assert torch.autograd.gradcheck(loss, (logits,), eps=1e-6, atol=1e-7)
    loss(logits).backward()
    assert logits.grad is not None and not logits.grad[~mask].any() and logits.grad[mask].any()


def test_the_loss_by_hand() -> None:
    per_token = torch.tensor([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    weights = torch.tensor([[1.0, 0.5, 7.0], [2.0, 7.0, 7.0], [7.0, 7.0, 7.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    assert tensors.weighted_kl(per_token, weights, mask).item() == pytest.approx((1 + 1 + 8) / 3)
    assert tensors.weighted_kl(per_token, weights, mask, "seq-mean").item() == pytest.approx((1 + 8) / 2)
    assert tensors.weighted_kl(per_token * torch.nan, weights, mask & False).item() == 0.0
    for wrong in (
        lambda: tensors.weighted_kl(per_token, weights, mask, "mean"),
        lambda: tensors.token_kl(mask, mask, "k9"),
    ):
        with pytest.raises((ValueError, RuntimeError)):
            wrong()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_estimators_expect_the_full_kl(estimator: str) -> None:
    """Summed over all symbols by their probability, an unbiased estimate of KL is KL."""
    rng = torch.Generator().manual_seed(1)
    logits, reference = (0.5 * torch.randn(2, 3, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    log_p, log_r = torch.log_softmax(logits, -1), torch.log_softmax(reference, -1)
    expected = (log_p.exp() * tensors.token_kl(log_p, log_r, estimator)).sum(-1)
    torch.testing.assert_close(expected, tensors.full_kl(logits, reference))


def test_k2s_gradient_is_the_full_kls_and_k3s_is_not() -> None:
    rng = torch.Generator().manual_seed(2)
    logits = torch.randn(5, generator=rng, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(5, generator=rng, dtype=torch.float64)
    log_r = torch.log_softmax(reference, -1)

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, logits)[0]

    truth = gradient(tensors.full_kl(logits, reference))
    log_p = torch.log_softmax(logits, -1)
    sampled = log_p.detach().exp()  # which token is drawn does not depend on the parameters
    torch.testing.assert_close(gradient((sampled * tensors.token_kl(log_p, log_r, "k2")).sum()), truth)
    log_p = torch.log_softmax(logits, -1)
    assert not torch.allclose(gradient((sampled * tensors.token_kl(log_p, log_r, "k3")).sum()), truth, rtol=1e-3)


# ---------------------------------------------------------------- the controller


def test_the_controller_follows_the_kl_outside_windows() -> None:
    config = ControllerConfig(enabled=True, target=0.01, rate=0.05, lowest=0.5, highest=1.2)
    kl_sum, tokens = np.array([0.4, 0.1, 0.0]), np.array([20, 10, 0])
    state = kl.controlled(AEPOState(), kl_sum, tokens, config)
    assert state.kappas == pytest.approx((1.05, 1.0, 1.0))
    for _ in range(200):
        state = kl.controlled(state, np.array([1.0, 0.0, 0.0]), np.array([10, 10, 0]), config)
    assert state.kappas == (1.2, 0.5, 1.0)
    assert kl.controlled(state, kl_sum, tokens, ControllerConfig()) is state
    with pytest.raises(ValueError, match="KL outside windows"):
        kl.controlled(state, np.array([np.nan, 0, 0]), tokens, config)


def test_what_drives_the_controller_leaves_windows_out() -> None:
    bins, valid, trained = weights_case(3)
    values = np.random.default_rng(0).random(valid.shape)
    total, tokens = tensors.kl_outside(*map(torch.tensor, (values, trained, valid)), torch.tensor(bins))
    for d in range(3):
        chosen = [
            values[r, t] for r in range(6) for t in range(9) if bins[r] == d and trained[r, t] and not valid[r, t]
        ]
        assert total[d].item() == pytest.approx(sum(chosen)) and tokens[d].item() == len(chosen)


# ---------------------------------------------------------------- other twins


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 13))
def test_torch_and_numpy_windows_agree(seed: int, w: int) -> None:
    batch = oracle.random_rollouts(np.random.default_rng(seed), holes=True)
    means, full = windows.window_mean(batch.entropy, batch.mask, w)
    theirs, theirs_full = tensors.window_mean(torch.tensor(batch.entropy), torch.tensor(batch.mask), w)
    np.testing.assert_array_equal(theirs_full.numpy(), full)
    np.testing.assert_allclose(theirs.numpy(), means, atol=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.3])
@pytest.mark.parametrize("std", ["reward", "none"])
def test_torch_and_numpy_advantages_agree(std: Any, floor: float) -> None:
    batch = oracle.random_rollouts(np.random.default_rng(4), questions=7, forks=True)
    reward = np.random.default_rng(5).normal(size=batch.rows)
    _, group = np.unique(batch.question, return_inverse=True)
    for name, counted in (("all", None), ("base_baseline", torch.tensor(batch.base))):
        config = AdvantageConfig(std=std, std_floor=floor, group=name)  # type: ignore[arg-type]
        expected = advantage.group_advantage(reward, batch, config)
        got = tensors.group_advantage(
            torch.tensor(reward), torch.tensor(group), std_floor=floor, normalise=std != "none", counted=counted
        )
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)


def test_entropy_of_logits() -> None:
    logits = torch.randn(7, 3, 11, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 1.0):
        expected = torch.distributions.Categorical(logits=logits / temperature).entropy()
        torch.testing.assert_close(tensors.entropy_from_logits(logits, temperature, rows=4), expected)
    ruled_out = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert tensors.entropy_from_logits(ruled_out).item() == pytest.approx(np.log(2))
    assert tensors.entropy_from_logits(torch.zeros(0, 5)).shape == (0,)
    assert tensors.entropy_from_logits(torch.zeros(2, 3, 5).bfloat16()).dtype == torch.float32


# ---------------------------------------------------------------- appendix E


def test_a_kl_penalty_adds_to_the_advantages_variance_what_the_paper_says() -> None:
    """E15: with A = S - mean(S) over N answers and A' from S - kappa K, Var(A') - Var(A) =
    (1 - 1/N) (kappa^2 Var K - 2 kappa Cov(S, K)); a KL loss leaves A as it is."""
    rng = np.random.default_rng(0)
    n, kappa, groups = 8, 0.5, 200_000
    k = rng.gamma(2.0, 0.5, (groups, n))
    s = rng.normal(size=(groups, n)) + 0.3 * k
    before = s - s.mean(axis=1, keepdims=True)
    penalised = s - kappa * k
    after = penalised - penalised.mean(axis=1, keepdims=True)
    var_k, cov = 2 * 0.25, 0.3 * 2 * 0.25
    expected = (1 - 1 / n) * (kappa**2 * var_k - 2 * kappa * cov)
    assert after.var() - before.var() == pytest.approx(expected, abs=0.01)
    assert abs(expected) > 0.02
