"""The weighted KL loss: verl's own at weight one, bit for bit; elsewhere what its formula says; its sums by class."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from ares_train.aepo import tensors
from ares_train.aepo.config import ControllerConfig
from ares_train.aepo.kl import controlled
from ares_train.aepo.state import AEPOState
from ares_train.rl.fields import KL_CLASS, KL_WEIGHT
from ares_train.rl.loss import kl_loss, kl_sums
from ares_train.rl.metrics import kl_by_class, kl_metrics, weighted_kl

AGGREGATIONS = ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")
KINDS = ("low_var_kl", "k1", "abs", "mse", "k3+")
LENGTHS = ((3, 5), (4, 2), (2, 7), (5, 1))
"""Prompt and response of each row."""


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def batch(weights: list[torch.Tensor], classes: list[torch.Tensor], *, seed: int = 0) -> tuple[Any, Any]:
    """A micro-batch with a masked fork prefix and a padding row, and what the model says of it."""
    from verl.utils import tensordict_utils as tu

    random = torch.Generator().manual_seed(seed)

    def draw(count: int) -> torch.Tensor:
        return -torch.rand(count, generator=random) * 3

    masks = [torch.ones(response, dtype=torch.int64) for _, response in LENGTHS]
    masks[2][:3] = 0
    masks[3][:] = 0
    log_probs = draw(sum(prompt + response for prompt, response in LENGTHS)).requires_grad_()
    offsets = torch.tensor([0, *[prompt + response for prompt, response in LENGTHS]]).cumsum(0)
    data = TensorDict(
        {
            "prompts": nested([torch.ones(prompt, dtype=torch.int64) for prompt, _ in LENGTHS]),
            "responses": nested([torch.ones(response, dtype=torch.int64) for _, response in LENGTHS]),
            "response_mask": nested(masks),
            "old_log_probs": nested([draw(response) for _, response in LENGTHS]),
            "ref_log_prob": nested([draw(response) for _, response in LENGTHS]),
            "advantages": nested([draw(response) for _, response in LENGTHS]),
            KL_WEIGHT: nested(weights),
            KL_CLASS: nested(classes),
        },
        batch_size=len(LENGTHS),
    )
    tu.assign_non_tensor(data, dp_size=2, batch_num_tokens=23, global_batch_size=8)
    output = {"log_probs": torch.nested.nested_tensor_from_jagged(log_probs, offsets=offsets), "leaf": log_probs}
    return output, data


def actor(aggregation: str, kind: str) -> Any:
    from verl.workers.config import FSDPActorConfig

    return FSDPActorConfig(
        strategy="fsdp2", rollout_n=4, ppo_micro_batch_size_per_gpu=4, loss_agg_mode=aggregation, use_kl_loss=True,
        kl_loss_coef=0.3, kl_loss_type=kind, clip_ratio_low=0.2, clip_ratio_high=0.3,
    )  # fmt: skip


def ones() -> list[torch.Tensor]:
    return [torch.ones(response) for _, response in LENGTHS]


def unclassed() -> list[torch.Tensor]:
    return [torch.zeros(response, dtype=torch.int8) for _, response in LENGTHS]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_weight_one_is_verls_own_kl_loss(aggregation: str, kind: str) -> None:
    from verl.workers.utils.losses import ppo_loss

    settings = actor(aggregation, kind)
    results = []
    for loss in (partial(ppo_loss, config=settings), kl_loss(settings)):
        output, data = batch(ones(), unclassed())
        value, metrics = loss(model_output=output, data=data)
        value.backward()
        results.append((value.detach(), output["leaf"].grad, metrics["kl_loss"].aggregate(), metrics["kl_coef"]))
    stock, ours = results
    assert torch.equal(stock[0], ours[0])
    assert torch.equal(stock[1], ours[1])
    assert stock[2:] == ours[2:]


def test_the_settings_given_to_verl_have_no_kl_of_its_own() -> None:
    settings = actor("token-mean", "low_var_kl")
    bound = kl_loss(settings)
    assert bound.keywords["config"].use_kl_loss is False
    assert settings.use_kl_loss is True
    # Workers get it by pickle.
    assert pickle.loads(pickle.dumps(bound)).keywords["coefficient"] == 0.3  # noqa: S301 - our own bytes


def test_weights_scale_each_tokens_kl_and_nothing_else() -> None:
    """Against autograd of the formula written out: coef / N sum of w k3, N being the mini-batch's tokens."""
    random = torch.Generator().manual_seed(4)
    weights = [torch.rand(response, generator=random) * 2 for _, response in LENGTHS]
    settings = actor("token-mean", "low_var_kl")
    gradients, values = [], []
    for used in (weights, ones()):
        output, data = batch(used, unclassed())
        value, _ = kl_loss(settings)(model_output=output, data=data)
        value.backward()
        values.append(value.detach())
        gradients.append(output["leaf"].grad)
    output, data = batch(weights, unclassed())
    leaf = output["leaf"]
    expected = torch.zeros(())
    start = 0
    for row, (prompt, response) in enumerate(LENGTHS):
        # The log-prob of a token is the output of the position before it.
        own = leaf[start + prompt - 1 : start + prompt + response - 1]
        difference = data["ref_log_prob"][row] - own
        kl = difference.exp() - difference - 1
        expected = expected + ((weights[row] - 1) * kl * data["response_mask"][row]).sum()
        start += prompt + response
    expected = expected * 0.3 / 23 * 2
    expected.backward()
    assert torch.allclose(values[0] - values[1], expected.detach(), atol=1e-6)
    assert torch.allclose(gradients[0] - gradients[1], leaf.grad, atol=1e-6)


def test_masked_tokens_have_no_weight_whatever_is_written_there() -> None:
    settings = actor("token-mean", "low_var_kl")
    loud = ones()
    loud[2][:3] = 1e6
    loud[3][:] = 1e6
    values = []
    for weights in (ones(), loud):
        output, data = batch(weights, unclassed())
        values.append(kl_loss(settings)(model_output=output, data=data)[0])
    assert torch.equal(*values)


def test_sums_by_class_against_a_loop() -> None:
    random = torch.Generator().manual_seed(7)
    kl = torch.rand((5, 9), generator=random)
    classes = torch.randint(0, 7, (5, 9), generator=random, dtype=torch.int8)
    mask = torch.rand((5, 9), generator=random) > 0.3
    metrics = kl_sums(kl, classes, mask)
    for number in range(1, 7):
        chosen = [
            float(kl[row, at]) for row in range(5) for at in range(9) if mask[row, at] and classes[row, at] == number
        ]
        assert metrics[f"ares_kl/tokens_{number}"].aggregate() == len(chosen)
        assert metrics[f"ares_kl/kl_{number}"].aggregate() == pytest.approx(sum(chosen), abs=1e-5)


def test_what_the_loss_sums_reaches_the_controller_by_bin() -> None:
    """Class 1 + 2 d is bin d outside windows: only that moves kappa_d, towards the target."""
    logged = {"actor/ares_kl/kl_3": 2.0, "actor/ares_kl/tokens_3": 10.0, "actor/ares_kl/kl_4": 99.0,
              "actor/ares_kl/tokens_4": 1.0, "actor/loss": 1.0}  # fmt: skip
    kl, tokens = kl_by_class(logged)
    assert logged == {"actor/loss": 1.0}
    assert kl.tolist() == [[0, 0], [2.0, 99.0], [0, 0]]
    state = controlled(AEPOState(), kl[:, 0], tokens[:, 0], ControllerConfig(enabled=True, target=0.1, rate=0.05))
    assert state.kappas == (1.0, pytest.approx(1.05), 1.0)
    assert kl_metrics(kl, tokens, 50.5) == {
        "aepo/kl/weighted": pytest.approx(50.5 / 11), "aepo/kl/outside": 0.2, "aepo/kl/window": 99.0,
        "aepo/kl/outside/medium": 0.2,
    }  # fmt: skip


# ---------------------------------------------------------------- what runs, against the torch twins


def test_the_sums_that_drive_the_controller_are_the_twins() -> None:
    random = torch.Generator().manual_seed(8)
    kl = torch.rand((6, 9), generator=random)
    bins = torch.tensor([0, 1, 2, 0, 1, 2])
    valid, trained = (torch.rand((6, 9), generator=random) > 0.5 for _ in range(2))
    classes = torch.where(trained, 1 + 2 * bins[:, None] + valid, 0).to(torch.int8)
    sums = kl_sums(kl, classes, trained)
    measured, tokens = kl_by_class({f"actor/{name}": metric.aggregate() for name, metric in sums.items()})
    total, count = tensors.kl_outside(kl, trained, valid, bins)
    assert measured[:, 0] == pytest.approx(total.numpy(), abs=1e-5)
    assert tokens[:, 0].tolist() == count.tolist()


@pytest.mark.parametrize(("kind", "twin"), [("low_var_kl", "k3"), ("k1", "k1"), ("mse", "k2")])
def test_the_weighted_kl_is_the_twins(kind: str, twin: str) -> None:
    """As a loss over the mini-batch's tokens, and as the sum that is logged per token."""
    random = torch.Generator().manual_seed(9)
    weights = [torch.rand(response, generator=random) * 2 for _, response in LENGTHS]
    output, data = batch(weights, [torch.ones(response, dtype=torch.int8) for _, response in LENGTHS])
    _, metrics = kl_loss(actor("token-mean", kind))(model_output=output, data=data)
    start, own = 0, []
    for prompt, response in LENGTHS:
        own.append(output["leaf"].detach()[start + prompt - 1 : start + prompt + response - 1])
        start += prompt + response
    log_prob, reference, weight, mask = (
        torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        for rows in (own, data["ref_log_prob"].unbind(), weights, data["response_mask"].unbind())
    )
    per_token = tensors.token_kl(log_prob, reference, twin)
    expected = float(tensors.weighted_kl(per_token, weight, mask.bool()))
    tokens = int(mask.sum())
    # verl's denominator is the whole mini-batch's tokens, 23, over 2 ranks.
    assert metrics["kl_loss"].aggregate() == pytest.approx(expected * tokens / 23 * 2, abs=1e-6)
    logged = {f"actor/{name}": metric.aggregate() for name, metric in metrics.items() if name.startswith("ares_kl")}
    summed = weighted_kl(logged)
    kl, counted = kl_by_class(logged)
    assert logged == {}
    assert kl_metrics(kl, counted, summed)["aepo/kl/weighted"] == pytest.approx(expected, abs=1e-6)


def test_verls_entropies_are_the_twins() -> None:
    from verl.utils.torch_functional import entropy_from_logits, entropy_from_logits_with_chunking

    logits = torch.randn((7, 11), generator=torch.Generator().manual_seed(10)) * 3
    for measured in (entropy_from_logits(logits), entropy_from_logits_with_chunking(logits, chunk_size=3)):
        torch.testing.assert_close(measured, tensors.entropy_from_logits(logits))
