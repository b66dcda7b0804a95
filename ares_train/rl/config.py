"""AEPO's settings and verl's, bound together: what follows from what, and what cannot go together, said at the start.

A run's configuration is verl's own (``ppo_trainer``) with one node more, ``aepo:`` (ares_train.aepo.config). ``bind``
reads it, fills in what follows from it and refuses contradictions with their reasons; ``hints`` are settings that work
but are seldom meant. Imports neither verl nor torch, so that a dry run is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ares_eval.analysis.words import DEFAULT_LIST, TriggerWords, read_words
from ares_train.aepo.config import AdvantageConfig, AEPOConfig, ConfigError, WindowConfig
from ares_train.rl.fields import AGENT_LOOP, AGENT_LOOP_MANAGER, CHECKPOINT_CALLBACK, STOCK_AGENT_LOOP

STOCK_ADVANTAGE = AdvantageConfig()
"""Settings at which the advantages are left to verl's own GRPO."""


class RefusedConfig(ConfigError):
    """Settings that cannot go together: one line for each, with its reason."""


def bind(config: Any) -> AEPOConfig:
    """AEPO's settings of ``config`` (a DictConfig, changed in place: what follows from them is filled in).

    RefusedConfig or ConfigError where something cannot be.
    """
    from omegaconf import OmegaConf, open_dict

    if OmegaConf.select(config, "aepo") is None:
        raise ConfigError("the configuration has no node aepo: start from a preset (ares-train launch --config ...)")
    with open_dict(config):
        if config.aepo.get("response_length") is None:
            config.aepo.response_length = config.data.max_response_length
        aepo = AEPOConfig.from_dict(OmegaConf.to_container(config.aepo, resolve=True))
        _fill(config, aepo)
    found = refusals(config, aepo)
    if found:
        raise RefusedConfig("\n".join(found))
    return aepo


def own_advantages(aepo: AEPOConfig) -> bool:
    """Whether the advantages are ours (std floor, base rows as baseline, filter) or verl's GRPO on the rewards."""
    return aepo.advantage != STOCK_ADVANTAGE or aepo.filter.metric != "none"


def own_rewards(aepo: AEPOConfig) -> bool:
    """Whether the rewards differ from the reward function's."""
    return aepo.reward.mode != "accuracy" or aepo.overlong.buffer > 0


def trigger_words(window: WindowConfig) -> TriggerWords | None:
    """The list that windows are judged by; None where neither mode asks for one. ConfigError for a file that is none,
    even where no mode asks for it."""
    file = DEFAULT_LIST if window.trigger_words_file is None else Path(window.trigger_words_file).expanduser()
    try:
        words = read_words(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"aepo.window.trigger_words_file={file}: {reason}; one word or phrase a line") from None
    return words if "trigger" in (window.count_mode, window.valid_mode) else None


def _fill(config: Any, aepo: AEPOConfig) -> None:
    """What follows: the agent loop that can fork, as many log-probs as its entropy source asks for, and the callback
    that queues checkpoints where there is a ``trainer.eval``."""
    trainer = config.trainer
    if trainer.get("eval") and trainer.get("checkpoint_callback_class") is None:
        trainer.checkpoint_callback_class = CHECKPOINT_CALLBACK
    agent = config.actor_rollout_ref.rollout.agent
    if aepo.branch.mode == "off":
        return
    if agent.get("agent_loop_manager_class") is None:
        agent.agent_loop_manager_class = AGENT_LOOP_MANAGER
    if agent.default_agent_loop == STOCK_AGENT_LOOP:
        agent.default_agent_loop = AGENT_LOOP
    if aepo.branch.entropy_source in ("server_topk", "rescore"):
        vllm = config.actor_rollout_ref.rollout.engine_kwargs.vllm
        vllm.max_logprobs = max(int(vllm.get("max_logprobs") or 0), aepo.branch.topk)


def refusals(config: Any, aepo: AEPOConfig) -> list[str]:
    """One line for each pair of settings that cannot go together."""
    return [
        reason for holds, reason in (*_trainer(config, aepo), *_loss(config, aepo), *_rollout(config, aepo)) if holds
    ]


def _trainer(config: Any, aepo: AEPOConfig) -> list[tuple[bool, str]]:
    algorithm, trainer = config.algorithm, config.trainer
    correction = algorithm.get("rollout_correction") or {}
    return [
        (
            not trainer.get("use_v1", True),
            "trainer.use_v1=false: verl's old trainer takes a fixed number of rows a prompt; set it to true",
        ),
        (
            trainer.v1.trainer_mode != "sync",
            f"trainer.v1.trainer_mode={trainer.v1.trainer_mode}: thresholds and targets belong to one version of the "
            "weights; set it to sync",
        ),
        (
            algorithm.adv_estimator != "grpo",
            f"algorithm.adv_estimator={algorithm.adv_estimator}: rewards are shaped per answer and compared within a "
            "question; set it to grpo (std floor and baselines: aepo.advantage)",
        ),
        (
            not algorithm.get("norm_adv_by_std_in_grpo", True) and own_advantages(aepo),
            "algorithm.norm_adv_by_std_in_grpo=false with settings of aepo.advantage: set aepo.advantage.std=none",
        ),
        (
            bool(algorithm.get("use_kl_in_reward", False)),
            "algorithm.use_kl_in_reward=true: the KL is a loss here (paper appendix E); set actor.use_kl_loss=true",
        ),
        (
            bool(correction.get("bypass_mode", False)),
            "algorithm.rollout_correction.bypass_mode=true leaves out the pass with exact entropies; set it to false",
        ),
        (
            bool((config.get("distillation") or {}).get("enabled", False)),
            "distillation.enabled=true sets a loss of its own in place of this one; set it to false",
        ),
        (
            bool((config.critic or {}).get("enable")),
            "critic.enable=true: group-relative advantages have no critic; leave it unset",
        ),
        (
            config.actor_rollout_ref.actor.ppo_mini_batch_size > config.data.train_batch_size
            or config.data.train_batch_size % config.actor_rollout_ref.actor.ppo_mini_batch_size != 0,
            f"data.train_batch_size={config.data.train_batch_size} is not a multiple of actor.ppo_mini_batch_size="
            f"{config.actor_rollout_ref.actor.ppo_mini_batch_size}: their ratio is the number of optimizer steps",
        ),
        (
            config.actor_rollout_ref.actor.strategy == "megatron",
            "actor.strategy=megatron: the entropies of its vocabulary-parallel loss were never tried here; set fsdp2",
        ),
    ]


def _loss(config: Any, aepo: AEPOConfig) -> list[tuple[bool, str]]:
    actor = config.actor_rollout_ref.actor
    return [
        (
            aepo.kl.mode != "off" and not actor.use_kl_loss,
            f"aepo.kl.mode={aepo.kl.mode} with actor.use_kl_loss=false: no reference log-probs; set "
            "actor.use_kl_loss=true or aepo.kl.mode=off",
        ),
        (
            aepo.kl.mode == "off" and bool(actor.use_kl_loss),
            "aepo.kl.mode=off with actor.use_kl_loss=true: verl would add a KL loss of its own; set it to false",
        ),
        (
            actor.use_prefix_grouper and aepo.branch.mode != "off",
            "actor.use_prefix_grouper=true groups rows by rollout.n, and forks make other groups; set it to false",
        ),
    ]


def _rollout(config: Any, aepo: AEPOConfig) -> list[tuple[bool, str]]:
    rollout, branch = config.actor_rollout_ref.rollout, aepo.branch
    forks = branch.mode != "off"
    limit = config.data.max_response_length
    return [
        (
            aepo.response_length != rollout.response_length,
            f"aepo.response_length={aepo.response_length} is not rollout.response_length={rollout.response_length}",
        ),
        (
            branch.mode == "budget" and branch.max_trajectories != rollout.n,
            f"aepo.branch.mode=budget fills max_trajectories={branch.max_trajectories} rows a prompt, rollout.n is "
            f"{rollout.n}: set them alike",
        ),
        (
            branch.mode == "budget" and (branch.n_base or 0) >= rollout.n,
            f"aepo.branch.n_base={branch.n_base} leaves nothing of rollout.n={rollout.n} to forks",
        ),
        (
            branch.mode == "extra" and branch.max_trajectories <= rollout.n,
            f"aepo.branch.max_trajectories={branch.max_trajectories} leaves no fork beside rollout.n={rollout.n}",
        ),
        (
            forks and branch.min_new_tokens >= limit,
            f"aepo.branch.min_new_tokens={branch.min_new_tokens} is no less than data.max_response_length={limit}",
        ),
        (
            forks and rollout.agent.get("agent_loop_manager_class") != AGENT_LOOP_MANAGER,
            f"rollout.agent.agent_loop_manager_class={rollout.agent.get('agent_loop_manager_class')} cannot fork; "
            "leave it unset or set aepo.branch.mode=off",
        ),
        (
            forks and rollout.agent.default_agent_loop != AGENT_LOOP,
            f"rollout.agent.default_agent_loop={rollout.agent.default_agent_loop} cannot fork; leave it unset or set "
            "aepo.branch.mode=off",
        ),
        (
            forks and rollout.multi_turn.enable,
            "rollout.multi_turn.enable=true: forks continue one answer, not a dialogue; set aepo.branch.mode=off",
        ),
        (
            forks and branch.entropy_source == "exact" and rollout.name != "hf_cpu",
            f"aepo.branch.entropy_source=exact needs rollout.name=hf_cpu, not {rollout.name}: set server_topk",
        ),
        (
            forks and branch.entropy_source in ("server_topk", "rescore") and rollout.name != "vllm",
            f"aepo.branch.entropy_source={branch.entropy_source} needs rollout.name=vllm, not {rollout.name}: set "
            f"{'exact' if rollout.name == 'hf_cpu' else 'surprisal'}",
        ),
        (
            forks and not rollout.calculate_log_probs,
            "rollout.calculate_log_probs=false: a fork inherits its parent's log-probs; set it to true",
        ),
        (
            forks and bool((rollout.get("mtp") or {}).get("enable", False)) and branch.entropy_source == "server_topk",
            "speculative decoding (mtp) with aepo.branch.entropy_source=server_topk was never tried; set surprisal",
        ),
    ]


def hints(config: Any, aepo: AEPOConfig) -> list[str]:
    """Settings that work, but are seldom meant; one line each."""
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    return [
        hint
        for holds, hint in (
            (
                rollout.top_p < 1.0 or rollout.top_k not in (-1, 0),
                f"rollout.top_p={rollout.top_p}, top_k={rollout.top_k}: the actor's log-probs are of the whole "
                "distribution, so ratios are off by what was cut away; 1.0 and -1 agree",
            ),
            (
                aepo.branch.entropy_source == "rescore" and aepo.branch.mode != "off" and rollout.temperature != 1.0,
                f"aepo.branch.entropy_source=rescore is of temperature 1, the rollouts of {rollout.temperature}",
            ),
            (
                aepo.reward.mode in ("hier", "released") and config.algorithm.filter_groups.enable,
                "algorithm.filter_groups.enable=true drops all-right and all-wrong questions before rewards are "
                "shaped, most of where the entropy term acts alone",
            ),
            (
                aepo.lambda_is_zero,
                "aepo.reward.target_mode=batch_mean: lambda is identically zero, the reward is the accuracy",
            ),
            (
                actor.loss_agg_mode.startswith("seq-mean") and aepo.branch.mode == "extra",
                f"actor.loss_agg_mode={actor.loss_agg_mode} counts padding rows as rows; token-mean does not",
            ),
        )
        if holds
    ]
