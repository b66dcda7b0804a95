"""The actor's loss with token-weighted KL (paper eq. 1-2): verl's ``ppo_loss`` plus a weighted KL term of our own.

Given to the workers once through ``set_loss_fn``: a function that workers import by name, bound to plain settings. At
weight one it is verl's own KL loss, bit for bit, in every aggregation mode: the same ``kl_penalty``, the same
``agg_loss``, the same denominators (the weighted sum is over all tokens of the mini-batch: a budget, not a weighted
mean). Beside it the loss sums the unweighted KL per bin, inside and outside windows, which drives the controller.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
from verl.trainer.ppo.core_algos import agg_loss, kl_penalty
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from ares_train.rl.fields import KL_CLASS, KL_CLASSES, KL_WEIGHT


def weighted_kl_loss(
    config: Any, model_output: dict[str, Any], data: Any, dp_group: Any = None, *, coefficient: float, kind: str
) -> tuple[torch.Tensor, dict[str, Any]]:
    """verl's policy loss plus ``coefficient`` times the weighted KL against the reference.

    ``config`` is an ActorConfig with ``use_kl_loss`` off (``kl_loss`` makes it), ``kind`` verl's name of the KL
    estimator. ``data`` holds ``ref_log_prob``, ``ares_kl_weight`` and ``ares_kl_class``, nested, one per response
    token.
    """
    loss, metrics = ppo_loss(config, model_output, data, dp_group)
    log_prob = no_padding_2_padding(model_output["log_probs"], data)
    rows = data.select("response_mask", "ref_log_prob", KL_WEIGHT, KL_CLASS).to_padded_tensor()
    mask = rows["response_mask"].to(bool)
    kl = kl_penalty(logprob=log_prob, ref_logprob=rows["ref_log_prob"], kl_penalty=kind)
    weighted = agg_loss(
        loss_mat=kl * rows[KL_WEIGHT], loss_mask=mask, loss_agg_mode=config.loss_agg_mode, **config.global_batch_info
    )
    loss += weighted * coefficient
    metrics["kl_loss"] = Metric(value=weighted, aggregation=AggregationType.SUM)
    metrics["kl_coef"] = coefficient
    metrics.update(kl_sums(kl.detach(), rows[KL_CLASS], mask))
    total = torch.where(mask, kl.detach() * rows[KL_WEIGHT], torch.zeros_like(kl)).sum()
    metrics["ares_kl/weighted"] = Metric(value=total, aggregation=AggregationType.SUM)
    return loss, metrics


def kl_sums(kl: torch.Tensor, classes: torch.Tensor, mask: torch.Tensor) -> dict[str, Metric]:
    """Sum of the unweighted KL and number of tokens of each class, as ``ares_kl/{kl,tokens}_CLASS``; all [B, T]."""
    chosen = torch.where(mask, classes, torch.zeros_like(classes)).long().flatten()
    sums = torch.zeros(KL_CLASSES + 1, dtype=torch.float32, device=kl.device)
    kls = sums.scatter_add(0, chosen, kl.float().flatten()).tolist()
    tokens = torch.bincount(chosen, minlength=KL_CLASSES + 1).tolist()
    metrics = {}
    for index in range(1, KL_CLASSES + 1):
        metrics[f"ares_kl/kl_{index}"] = Metric(value=kls[index], aggregation=AggregationType.SUM)
        metrics[f"ares_kl/tokens_{index}"] = Metric(value=float(tokens[index]), aggregation=AggregationType.SUM)
    return metrics


def kl_loss(actor: Any) -> partial[Any]:
    """The loss for ``set_loss_fn``, bound to verl's actor settings ``actor`` (an ActorConfig with ``use_kl_loss``
    on)."""
    base = dataclasses.replace(actor, use_kl_loss=False)
    return partial(weighted_kl_loss, config=base, coefficient=float(actor.kl_loss_coef), kind=str(actor.kl_loss_type))
