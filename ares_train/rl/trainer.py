"""AEPO on verl's synchronous V1 trainer: one subclass, and a step reads as it happens.

    submit      prompts go out with the rollout threshold of the steps before
    balance     rows in a fixed order, padded to a constant number of mini-batches
    old, ref    verl: the actor's log-probs and exact entropies, the reference's log-probs
    advantage   rows -> ares_train.aepo.step.shape -> rewards, KL weights, advantages, next state
    update      verl's actor with our loss; its KL outside windows moves the controller
    save        the state first, then verl's checkpoint

The mode's name stays ``sync``: verl compares it with that literal in many places.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import transfer_queue as tq
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.debug import marked_timer
from verl.utils.metric import reduce_metrics
from verl.utils.py_functional import rename_dict

from ares_train.aepo.config import ConfigError
from ares_train.aepo.kl import controlled
from ares_train.aepo.state import AEPOState
from ares_train.aepo.step import Shaped, shape
from ares_train.loop import queue
from ares_train.rl import batches, rows, state_file
from ares_train.rl.config import bind, own_advantages, own_rewards, trigger_words
from ares_train.rl.fields import TAU
from ares_train.rl.loss import kl_loss
from ares_train.rl.metrics import branch_metrics, estimator_metrics, kl_by_class, kl_metrics, weighted_kl

logger = logging.getLogger(__name__)


class TrainingStopped(Exception):
    """Somebody asked this run to stop; the message says who and why."""


class AEPOTrainer(PPOTrainerSync):
    """``config`` is verl's configuration with a node ``aepo``; RefusedConfig where the two contradict each other."""

    def __init__(self, config: Any) -> None:
        self.aepo = bind(config)
        self.state = AEPOState()
        self._run = Path(config.trainer.default_local_dir)
        self._prompts, self._ranks = 0, 1
        self._evaluations: set[str] = set()
        self._warned: set[str] = set()
        self._words = trigger_words(self.aepo.window)
        super().__init__(config=config)

    # ---------------------------------------------------------------- start, save, resume

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        columns = getattr(getattr(self.train_dataset, "dataframe", None), "column_names", None) or ()
        if self.aepo.branch.mode != "off" and "agent_name" in columns:
            raise ConfigError(
                "the training data name agent loops (column agent_name), which cannot fork: drop the column, or set "
                "aepo.branch.mode=off"
            )

    def on_init_end(self) -> None:
        if self.aepo.kl.mode != "off":
            # Once: calls between steps are not reliable.
            actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
            self.actor_rollout_wg.set_loss_fn(kl_loss(actor))
        super().on_init_end()

    def _save_checkpoint(self) -> None:
        state_file.save(self._checkpoint(self.global_steps), self.state)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps == 0:
            return
        given = self.config.trainer.resume_from_path if self.config.trainer.resume_mode == "resume_path" else None
        folder = self._checkpoint(self.global_steps) if given is None else Path(given)
        state = state_file.load(folder)
        if state is None:
            logger.warning("%s has no %s: thresholds and targets start anew", folder, state_file.NAME)
        else:
            self.state = state

    def _checkpoint(self, step: int) -> Path:
        return self._run / f"global_step_{step}"

    # ---------------------------------------------------------------- the loop with the evaluation

    def _consume_sync_metrics(self) -> dict[str, Any]:
        """With what was evaluated meanwhile: ``eval/*`` of the checkpoint ``eval/ckpt_step``."""
        return {**super()._consume_sync_metrics(), **queue.new_results(self._run, self._evaluations)}

    # ---------------------------------------------------------------- rollout

    def on_step_begin(self) -> None:
        reason = queue.stop_requested(self._run)
        if reason is not None:
            raise TrainingStopped(reason)
        self._prompts = 0
        super().on_step_begin()

    def _submit_batch_to_rollout(self, batch: TensorDict) -> int:
        # Names that sort and that a resumed run gives again; verl splits keys at underscores.
        numbers = range(self._prompts, self._prompts + len(batch))
        self._prompts += len(batch)
        tu.assign_non_tensor_stack(batch, "uid", [f"{self.global_steps:08d}p{number:06d}" for number in numbers])
        if self.aepo.branch.mode != "off":
            tau = self.state.tau_rollout
            tu.assign_non_tensor_data(batch, TAU, math.nan if tau is None else tau)
        submitted: int = super()._submit_batch_to_rollout(batch)
        return submitted

    # ---------------------------------------------------------------- rows

    @property
    def _mini_batches(self) -> int:
        """Optimizer steps an epoch, whatever the number of rows."""
        return int(self.config.data.train_batch_size // self.config.actor_rollout_ref.actor.ppo_mini_batch_size)

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        self._ranks = dp_size
        actor, ref, rollout = (self.config.actor_rollout_ref[name] for name in ("actor", "ref", "rollout"))
        packed = actor.use_dynamic_bsz
        inference = [
            None if rollout.log_prob_use_dynamic_bsz else rollout.log_prob_micro_batch_size_per_gpu,
            None if ref.log_prob_use_dynamic_bsz else ref.log_prob_micro_batch_size_per_gpu,
        ]
        micro = None if packed else actor.ppo_micro_batch_size_per_gpu
        return batches.multiple(dp_size, self._mini_batches, micro, inference)

    def _balance_batch(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        batch.reorder(batches.order(batch.keys))
        batch = super()._balance_batch(batch, metrics, *args, **kwargs)
        padding = [bool(tag.get("is_padding", False)) for tag in batch.tags]
        batch.reorder(batches.spread(padding, self._ranks, self._mini_batches))
        metrics["aepo/rows/padding"] = float(sum(padding))
        return batch

    # ---------------------------------------------------------------- reward and advantage

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        with marked_timer("aepo", self.timing_raw):
            with marked_timer("aepo_read", self.timing_raw):
                read = self._read(batch)
            with marked_timer("aepo_shape", self.timing_raw):
                shaped = shape(read.rollouts, self.state, self.aepo)
            self.state = shaped.state
            with marked_timer("aepo_write", self.timing_raw):
                batch = self._put(batch, self._shaped_fields(read, shaped))
        batch = super()._compute_advantage(batch, metrics)
        with marked_timer("aepo_write_back", self.timing_raw):
            batch = self._put(batch, self._after_advantage(batch, read, shaped))
        metrics.update(shaped.metrics)
        metrics.update(branch_metrics(batch.tags, read.records))
        metrics.update(estimator_metrics(read))
        self._warn(shaped)
        return batch

    def _read(self, batch: Any) -> rows.Batch:
        fields = [*rows.READ, *(() if self._words is None else ("responses",))]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        return rows.read(batch.keys, batch.tags, data, words=self._words, texts=self._texts)

    def _shaped_fields(self, read: rows.Batch, shaped: Shaped) -> dict[str, Any]:
        fields = rows.kl_fields(read, shaped) if self.aepo.kl.mode != "off" else {}
        if own_rewards(self.aepo):
            fields["rm_scores"] = rows.rewards(read, shaped.reward)
        return fields

    def _after_advantage(self, batch: Any, read: rows.Batch, shaped: Shaped) -> dict[str, Any]:
        """verl logs ``rm_scores`` as the score and ``token_level_rewards`` as the reward: the score stays what it
        was."""
        fields: dict[str, Any] = {}
        if own_rewards(self.aepo):
            fields["rm_scores"] = rows.rewards(read, read.scores)
            fields["token_level_rewards"] = rows.rewards(read, shaped.reward)
        if own_advantages(self.aepo):
            # Rollout correction may have taken tokens out of the mask by now.
            mask = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask"])
            fields["advantages"] = rows.advantages(read, shaped.advantage, mask["response_mask"])
            fields["returns"] = fields["advantages"]
        return fields

    def _put(self, batch: Any, fields: dict[str, Any]) -> Any:
        if not fields:
            return batch
        data = TensorDict(fields, batch_size=len(batch))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)

    def _texts(self, token_ids: list[int]) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode([[token] for token in token_ids])
        return texts

    def _warn(self, shaped: Shaped) -> None:
        """Each kind of warning once; the metrics tell how it goes on."""
        for warning in shaped.warnings:
            kind = "".join(character for character in warning if not character.isdigit())
            if kind not in self._warned:
                self._warned.add(kind)
                logger.warning("step %d: %s", self.global_steps, warning)

    # ---------------------------------------------------------------- update

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's, but that it names the number of mini-batches and not the rows of one."""
        actor = self.config.actor_rollout_ref.actor
        batch.extra_info.update(
            {
                "calculate_entropy": actor.calculate_entropy or actor.entropy_coeff != 0.0,
                "distillation_use_topk": False,
                "distillation_only": False,
                "global_batch_size": len(batch) // self._mini_batches,
                "num_mini_batch": self._mini_batches,
                "epochs": actor.ppo_epochs,
                "seed": actor.data_loader_seed,
                "dataloader_kwargs": {"shuffle": actor.shuffle},
                "temperature": self.config.actor_rollout_ref.rollout.temperature,
            }
        )
        output = rename_dict(self.actor_rollout_wg.update_actor(batch)["metrics"], "actor/")
        output["perf/mfu/actor"] = output.pop("actor/mfu")
        logged = reduce_metrics(output)
        kl, tokens = kl_by_class(logged)
        weighted = weighted_kl(logged)
        self.state = controlled(self.state, kl[:, 0], tokens[:, 0], self.aepo.kl.controller)
        metrics.update(logged)
        metrics.update(kl_metrics(kl, tokens, weighted))
        return batch
