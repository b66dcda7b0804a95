"""The trainer's own steps on verl's real ones, with TransferQueue and the actor's workers as stand-ins.

What each ablation must equal: accuracy is the stock reward, the literal target none, everything off verl's GRPO.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict

from ares_train.aepo.config import AEPOConfig
from ares_train.aepo.state import AEPOState
from ares_train.rl.fields import KL_CLASS, KL_WEIGHT, RECORD, session_record

RESPONSE = 12


class Queue:
    """TransferQueue's key-value calls over a dict of columns."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns
        self.puts: list[list[str]] = []

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> Any:
        there = {name: self.columns[name] for name in select_fields if name in self.columns}
        return TensorDict({name: copy.copy(value) for name, value in there.items()}, batch_size=len(keys))

    def kv_batch_put(self, keys: list[str], partition_id: str, fields: Any) -> Any:
        from transfer_queue import KVBatchMeta

        self.puts.append(sorted(fields.keys()))
        for name in fields.keys():  # noqa: SIM118 - a tensordict
            self.columns[name] = fields[name]
        return KVBatchMeta(keys=list(keys), tags=[{} for _ in keys], partition_id=partition_id)


def nested(rows: list[np.ndarray], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.as_tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)


def make_rows(
    seed: int, *, questions: int = 6, n: int = 4, forks: bool = False
) -> tuple[list[str], list[dict[str, Any]], dict[str, Any]]:
    """Random answers of ``questions`` x ``n`` sessions; with forks, session n continues session 0 of each question."""
    random = np.random.default_rng(seed)
    keys, records, columns = [], [], {name: [] for name in ("uid", "mask", "score", "entropy", "acc")}
    for question in range(questions):
        right = random.choice([0.0, 0.3, 0.7, 1.0])
        for session in range(n + forks):
            fork = session == n
            length = int(random.integers(5, RESPONSE + 1))
            mask = np.ones(length, dtype=np.int64)
            if fork:
                mask[:2] = 0
            keys.append(f"q{question}_{session}_0")
            records.append(session_record(base=not fork, parent=0 if fork else -1, fork_at=2 if fork else 0))
            acc = float(random.random() < right)
            columns["uid"].append(f"q{question}")
            columns["mask"].append(mask)
            columns["acc"].append(acc)
            columns["score"].append(np.concatenate([np.zeros(length - 1), [acc]]))
            columns["entropy"].append(random.gamma(1.0, 0.7, length))
    extra = [
        {RECORD: record, "reward_extra_info": {"acc": acc}} for record, acc in zip(records, columns["acc"], strict=True)
    ]
    fields = {
        "uid": NonTensorStack.from_list([NonTensorData(uid) for uid in columns["uid"]]),
        "response_mask": nested(columns["mask"], torch.int64),
        "rm_scores": nested(columns["score"]),
        "entropy": nested(columns["entropy"]),
        "rollout_log_probs": nested([-np.ones(len(row)) for row in columns["mask"]]),
        "old_log_probs": nested([-np.ones(len(row)) for row in columns["mask"]]),
        "ref_log_prob": nested([-np.ones(len(row)) for row in columns["mask"]]),
        "extra_fields": NonTensorStack.from_list([NonTensorData(value) for value in extra]),
    }
    return keys, [{} for _ in keys], fields


def trainer(aepo: dict[str, Any], queue: Queue, monkeypatch: pytest.MonkeyPatch, state: AEPOState | None = None) -> Any:
    from omegaconf import OmegaConf
    from verl.trainer.ppo.v1 import trainer_base

    from ares_train.rl import trainer as module

    monkeypatch.setattr(trainer_base, "tq", queue)
    monkeypatch.setattr(module, "tq", queue)
    made = object.__new__(module.AEPOTrainer)
    made.config = OmegaConf.create(
        {
            "algorithm": {"adv_estimator": "grpo", "use_kl_in_reward": False, "gamma": 1.0, "lam": 1.0,
                          "norm_adv_by_std_in_grpo": True},
            "actor_rollout_ref": {"rollout": {"n": 4}},
        }
    )  # fmt: skip
    made.aepo = AEPOConfig.from_dict({"window": {"size": 2, "quantile": 0.7}, "response_length": RESPONSE, **aepo})
    made.state = state or AEPOState()
    made.timing_raw, made.global_steps, made._warned, made._words = {}, 5, set(), None
    return made


def advantage(made: Any, keys: list[str], tags: list[dict[str, Any]]) -> dict[str, float]:
    from transfer_queue import KVBatchMeta

    metrics: dict[str, float] = {}
    made._compute_advantage(KVBatchMeta(keys=keys, tags=tags, partition_id="train"), metrics)
    return metrics


def stock(keys: list[str], tags: list[dict[str, Any]], queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """verl's own step on the same rows."""
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    made = trainer(OFF, queue, monkeypatch)
    PPOTrainerSync._compute_advantage(made, KVBatchMeta(keys=keys, tags=tags, partition_id="train"), {})


OFF: dict[str, Any] = {"branch": {"mode": "off"}, "reward": {"mode": "accuracy"}, "kl": {"mode": "off"}}
HIER: dict[str, Any] = {
    "reward": {"mode": "hier", "lambda_sign": "directional", "shape_correct": "all", "min_count": 1}
}


def remembered() -> AEPOState:
    """A state with low targets, so that many answers are above them."""
    from dataclasses import replace

    from ares_train.aepo.state import BinMemory

    memory = BinMemory(ema=0.5, previous=0.5, batches=3)
    return replace(AEPOState(), step=3, bins=(memory, memory, memory), tau_rollout=1.0)


def test_everything_off_is_verls_grpo_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(5):
        keys, tags, fields = make_rows(seed)
        ours, theirs = Queue(dict(fields)), Queue(dict(fields))
        advantage(trainer(OFF, ours, monkeypatch), keys, tags)
        stock(keys, tags, theirs, monkeypatch)
        assert set(ours.columns) == set(theirs.columns), "no field more, none less"
        for name in ("advantages", "returns", "rm_scores"):
            assert torch.equal(ours.columns[name].values(), theirs.columns[name].values())


@pytest.mark.parametrize(
    "same",
    [
        {"reward": {"mode": "accuracy"}},
        {"reward": {"mode": "hier", "target_mode": "batch_mean", "min_count": 1}},
        {"reward": {"mode": "hier", "target_mode": "group", "fixed_lambda": 0.0}},
        # No target before the first batch, so no lambda.
        {"reward": {"mode": "hier", "target_mode": "ema"}},
    ],
    ids=["accuracy", "literal", "lambda 0", "first batch"],
)
def test_rewards_that_must_be_the_stock_ones(same: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    keys, tags, fields = make_rows(1)
    ours, theirs = Queue(dict(fields)), Queue(dict(fields))
    metrics = advantage(trainer({**OFF, **same}, ours, monkeypatch), keys, tags)
    stock(keys, tags, theirs, monkeypatch)
    assert torch.equal(ours.columns["advantages"].values(), theirs.columns["advantages"].values())
    assert metrics["aepo/lambda_identically_zero"] == float(same["reward"].get("target_mode") == "batch_mean")


def test_without_a_kl_there_is_no_reference_pass() -> None:
    from verl.trainer.ppo.utils import need_reference_policy

    from ares_train import launching
    from ares_train.rl import compose

    off = ["aepo.kl.mode=off", "actor_rollout_ref.actor.use_kl_loss=false"]
    wanted = [
        need_reference_policy(compose.compose(compose.preset(name), words, launching.Device("cuda", 8)))
        for name, words in (("dapo", []), ("grpo", []), ("aepo_adaptive", []), ("aepo_adaptive", off))
    ]
    assert wanted == [False, True, True, False]


def test_shaped_rewards_act_and_the_score_stays_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, tags, fields = make_rows(2)
    queue = Queue(dict(fields))
    made = trainer({**OFF, **HIER}, queue, monkeypatch, remembered())
    metrics = advantage(made, keys, tags)
    assert torch.equal(queue.columns["rm_scores"].values(), fields["rm_scores"].values())
    score = fields["rm_scores"].to_padded_tensor(0.0).sum(dim=1)
    reward = queue.columns["token_level_rewards"].to_padded_tensor(0.0).sum(dim=1)
    assert (reward <= score).all() and (reward < score).any()
    assert metrics["aepo/reward/penalty_mean/hard"] > 0 or metrics["aepo/reward/penalty_mean/easy"] > 0
    assert made.state.step == 4


def test_a_std_floor_writes_our_advantages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small penalties in an all-wrong question stay small instead of being blown up to full size."""
    keys, tags, fields = make_rows(3)
    results = {}
    for floor in (0.0, 0.1):
        queue = Queue(dict(fields))
        settings = {**OFF, **HIER, "advantage": {"std_floor": floor}}
        advantage(trainer(settings, queue, monkeypatch, remembered()), keys, tags)
        results[floor] = queue.columns["advantages"].to_padded_tensor(0.0)
    assert results[0.1].abs().max() <= results[0.0].abs().max() + 1e-6
    assert not torch.equal(results[0.0], results[0.1])


@pytest.mark.parametrize("forks", [False, True])
def test_our_advantages_without_a_floor_are_verls(forks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """base_baseline on rows without forks, and a filter that drops nothing, go through our own code."""
    keys, tags, fields = make_rows(4, forks=forks)
    ours, theirs = Queue(dict(fields)), Queue(dict(fields))
    own = {"filter": {"metric": "reward", "low": -1.0, "high": 2.0}}
    advantage(trainer({**OFF, **own}, ours, monkeypatch), keys, tags)
    stock(keys, tags, theirs, monkeypatch)
    assert "advantages" in ours.puts[-1]
    assert torch.allclose(ours.columns["advantages"].values(), theirs.columns["advantages"].values(), atol=1e-5)
    # A masked prefix gets none.
    assert not ours.columns["advantages"].values()[fields["response_mask"].values() == 0].any()


def test_a_filter_takes_questions_out(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, tags, fields = make_rows(5)
    queue = Queue(dict(fields))
    settings = {**OFF, "kl": {"mode": "uniform"}, "filter": {"metric": "accuracy", "low": 0.0, "high": 1.0}}
    metrics = advantage(trainer(settings, queue, monkeypatch), keys, tags)
    uids = [value.data for value in fields["uid"]] if hasattr(fields["uid"][0], "data") else list(fields["uid"])
    score = fields["rm_scores"].to_padded_tensor(0.0).sum(dim=1)
    for uid in set(uids):
        rows = [number for number, other in enumerate(uids) if other == uid]
        flat = 0 < float(score[rows].mean()) < 1
        for row in rows:
            assert bool(queue.columns[KL_WEIGHT][row].any()) is flat
    assert metrics["aepo/filter/dropped_frac"] > 0


@pytest.mark.parametrize(("kl", "values"), [({"mode": "uniform"}, {1.0}), ({"mode": "dynamic", "rho": 1.0}, {1.0}),
                                            ({"mode": "dynamic", "rho": 0.5}, {0.5, 1.0})])  # fmt: skip
def test_kl_weights_of_the_modes(kl: dict[str, Any], values: set[float], monkeypatch: pytest.MonkeyPatch) -> None:
    keys, tags, fields = make_rows(6, forks=True)
    queue = Queue(dict(fields))
    advantage(trainer({**OFF, "kl": kl}, queue, monkeypatch), keys, tags)
    mask = fields["response_mask"].values() > 0
    assert set(queue.columns[KL_WEIGHT].values()[mask].tolist()) == values
    assert not queue.columns[KL_WEIGHT].values()[~mask].any()
    assert queue.columns[KL_CLASS].values()[mask].all()


def test_warnings_come_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    keys, tags, fields = make_rows(7)
    made = trainer({**OFF, "reward": {"mode": "hier", "target_mode": "batch_mean"}}, Queue(dict(fields)), monkeypatch)
    for _ in range(2):
        advantage(made, keys, tags)
    assert sum("lambda is identically zero" in record.message for record in caplog.records) == 1


def test_the_parts_of_the_step_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, tags, fields = make_rows(8)
    made = trainer({**OFF, **HIER}, Queue(dict(fields)), monkeypatch, remembered())
    advantage(made, keys, tags)
    parts = {"aepo", "aepo_read", "aepo_shape", "aepo_write", "aepo_write_back"}
    assert parts <= set(made.timing_raw)
    assert made.timing_raw["aepo"] >= made.timing_raw["aepo_shape"] > 0


def test_state_is_saved_before_the_checkpoint_is_named_and_restored_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omegaconf import OmegaConf
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from ares_train.rl import trainer as module

    seen: list[bool] = []
    monkeypatch.setattr(
        PPOTrainerSync, "_save_checkpoint",
        lambda self: seen.append((tmp_path / "global_step_3" / "aepo_state.json").is_file()),
    )  # fmt: skip
    made = object.__new__(module.AEPOTrainer)
    made.config = OmegaConf.create({"trainer": {"default_local_dir": str(tmp_path), "resume_mode": "auto"}})
    made._run, made.global_steps, made.state = tmp_path, 3, remembered()
    made._save_checkpoint()
    assert seen == [True]

    def load(self: Any) -> None:
        self.global_steps = 3

    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", load)
    other = object.__new__(module.AEPOTrainer)
    other.config, other._run, other.state = made.config, tmp_path, AEPOState()
    other._load_checkpoint()
    assert other.state == remembered()


def test_a_checkpoint_of_another_trainer_starts_the_state_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from omegaconf import OmegaConf
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from ares_train.rl import trainer as module

    def load(self: Any) -> None:
        self.global_steps = 7

    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", load)
    other = object.__new__(module.AEPOTrainer)
    other.config = OmegaConf.create({"trainer": {"default_local_dir": str(tmp_path), "resume_mode": "auto"}})
    other._run, other.state = tmp_path, AEPOState()
    other._load_checkpoint()
    assert other.state == AEPOState()
    assert "aepo_state.json" in caplog.text


def test_data_that_name_agent_loops_are_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from ares_train.aepo.config import ConfigError
    from ares_train.rl import trainer as module

    monkeypatch.setattr(PPOTrainerSync, "_init_dataloader", lambda self: None)
    made = object.__new__(module.AEPOTrainer)
    made.train_dataset = SimpleNamespace(dataframe=SimpleNamespace(column_names=["prompt", "agent_name"]))
    made.aepo = AEPOConfig.from_dict({"branch": {"mode": "off"}})
    made._init_dataloader()
    made.aepo = AEPOConfig.from_dict({"branch": {"mode": "extra"}})
    with pytest.raises(ConfigError, match="agent_name"):
        made._init_dataloader()


def test_a_stop_file_ends_training(tmp_path: Path) -> None:
    from ares_train.loop import queue
    from ares_train.rl import trainer as module

    made = object.__new__(module.AEPOTrainer)
    made._run = tmp_path
    made.on_step_begin()
    (tmp_path / queue.STOP).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / queue.STOP).write_text("{}")
    with pytest.raises(module.TrainingStopped):
        made.on_step_begin()


def test_prompts_have_names_that_a_resumed_run_gives_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
    from verl.utils import tensordict_utils as tu

    from ares_train.rl import trainer as module
    from ares_train.rl.fields import TAU

    sent: list[Any] = []

    def submit(self: Any, batch: Any) -> int:
        sent.append(batch)
        return len(batch)

    monkeypatch.setattr(PPOTrainerSync, "_submit_batch_to_rollout", submit)
    made = object.__new__(module.AEPOTrainer)
    made.aepo = AEPOConfig.from_dict({"branch": {"mode": "extra"}})
    made.state, made.global_steps, made._prompts = remembered(), 12, 0
    for size in (2, 1):
        made._submit_batch_to_rollout(tu.get_tensordict({"uid": np.array(["x"] * size, dtype=object)}))
    names = [getattr(value, "data", value) for batch in sent for value in batch["uid"]]
    assert names == ["00000012p000000", "00000012p000001", "00000012p000002"]
    assert sent[0][TAU] == 1.0
