"""Branching while rolling out, on verl's own agent-loop worker with a server and a queue that are stand-ins."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from ares_train.rl.fields import AGENT_LOOP, RECORD, TAU

PROMPT = "Question 1."
LENGTH = 16
"""Response length."""

HIGH = range(4, 8)
"""Where every base answer's entropy is high."""


class Queue:
    """TransferQueue's key-value calls: tags merge, and the order of all calls is kept."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, Any]] = defaultdict(dict)
        self.fields: dict[str, Any] = {}
        self.log: list[tuple[str, dict[str, Any]]] = []

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        self.tags[key] |= tag
        self.log.append((key, dict(tag)))

    async def async_kv_batch_put(
        self, keys: list[str], fields: Any, tags: list[dict[str, Any]], partition_id: str
    ) -> None:
        for number, (key, tag) in enumerate(zip(keys, tags, strict=True)):
            self.tags[key] |= tag
            self.fields[key] = fields[number]
            self.log.append((key, dict(tag)))

    def rows(self) -> list[str]:
        return sorted(self.fields, key=lambda key: int(key.rsplit("_", 2)[1]))

    def record(self, key: str) -> dict[str, Any]:
        extra = self.fields[key]["extra_fields"]
        found: dict[str, Any] = getattr(extra, "data", extra)[RECORD]
        return found


class Server:
    """Answers with counted tokens; ``broken`` says which calls fail, ``slow`` which take longer."""

    def __init__(self, end: int, broken: Any = lambda call: False) -> None:
        self.end, self.broken = end, broken
        self.calls: list[dict[str, Any]] = []

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **more: Any
    ) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        call = {"request": request_id, "prompt": list(prompt_ids), "sampling": dict(sampling_params), "more": more}
        self.calls.append(call)
        number = len(self.calls)
        # The last to be asked is the first to answer.
        await asyncio.sleep(0.02 / number)
        if self.broken(call):
            raise RuntimeError("no answer")
        count = min(12, sampling_params.get("max_tokens", LENGTH))
        tokens = [100 + number * 20 % 200 + at for at in range(count - 1)] + [self.end]
        entropy = [2.0 if at in HIGH else 0.1 for at in range(count)]
        extra = {"token_entropy": entropy, "global_steps": 7, "min_global_steps": 7, "max_global_steps": 7}
        return TokenOutput(
            token_ids=tokens,
            log_probs=[-0.5 - at / 100 for at in range(count)],
            stop_reason="completed",
            extra_fields=extra,
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``world(aepo=..., rollout=..., broken=...)`` -> (worker, server, queue)."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.v1 import agent_loop_tq
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from ares_train.aepo.config import AEPOConfig
    from ares_train.rl import agent_loop, rollout
    from tests.models import tiny_tokenizer

    tokenizer = tiny_tokenizer.build(256)

    def make(aepo: dict[str, Any], broken: Any = lambda call: False, name: str = "hf_cpu") -> Any:
        config = OmegaConf.create(
            {
                "aepo": {"window": {"size": 2, "quantile": 0.5}, **aepo},
                "data": {},
                "distillation": {"enabled": False},
                "actor_rollout_ref": {
                    "rollout": {
                        "n": 4, "name": name, "prompt_length": 64, "response_length": LENGTH, "temperature": 1.0,
                        "val_kwargs": {"n": 1}, "multi_turn": {},
                    }
                },
            }
        )  # fmt: skip
        queue, server = Queue(), Server(tokenizer.eos_token_id, broken)
        monkeypatch.setattr(agent_loop_tq, "tq", queue)
        monkeypatch.setattr(rollout, "tq", queue)
        worker = object.__new__(rollout.BranchingWorker)
        worker.config = config
        worker.aepo = AEPOConfig.from_dict(agent_loop.plain(config.aepo))
        worker.llm_client, worker.tokenizer, worker.processor = server, tokenizer, None
        worker.rollout_config, worker.hf_model_type, worker.tools = config.actor_rollout_ref.rollout, None, []
        worker.dataset_cls, worker.reward_loop_worker_handles = RLHFDataset, None
        worker.distillation_enabled, worker.mm_processor_kwargs = False, {}
        return worker, server, queue

    return make


def run(worker: Any, *, tau: float = math.nan, validate: bool = False, **prompt: Any) -> None:
    row = {
        "uid": "00000003p000001", "raw_prompt": [{"role": "user", "content": PROMPT}], "agent_name": AGENT_LOOP,
        "global_steps": 3, "index": 0, **prompt,
    }  # fmt: skip
    if not validate:
        row[TAU] = tau
    trajectory = {"step": 3, "sample_index": 0, "rollout_n": 0, "validate": validate}
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}

    async def go() -> None:
        await worker._run_prompt(row, sampling, trajectory)

    asyncio.run(go())


EXTRA = {"branch": {"mode": "extra", "max_per_rollout": 1, "max_per_prompt": 3, "min_new_tokens": 4,
                    "entropy_source": "exact"}}  # fmt: skip
BUDGET = {"branch": {"mode": "budget", "n_base": 2, "max_trajectories": 4, "max_per_rollout": 1, "min_new_tokens": 4,
                     "entropy_source": "exact"}}  # fmt: skip


def test_forks_are_sessions_of_their_own_asked_by_token_ids(world: Any) -> None:
    worker, server, queue = world(EXTRA)
    run(worker, tau=1.0)
    rows = queue.rows()
    assert rows == [f"00000003p000001_{session}_0" for session in range(7)]
    assert queue.tags["00000003p000001"]["status"] == "finished"
    for key in rows[4:]:
        record = queue.record(key)
        # The first window whose mean reaches 1.0: (0.1 + 2.0) / 2.
        assert record["base"] is False and record["fork_at"] == HIGH[0] - 1
        parent, fork = queue.fields[f"00000003p000001_{record['parent']}_0"], queue.fields[key]
        at = record["fork_at"]
        assert fork["responses"][:at].tolist() == parent["responses"][:at].tolist()
        assert fork["prompts"].tolist() == parent["prompts"].tolist()
        assert fork["rollout_log_probs"][:at].tolist() == parent["rollout_log_probs"][:at].tolist()
        # The inherited prefix is trained once, through the parent.
        assert fork["response_mask"].tolist() == [0] * at + [1] * (len(fork["responses"]) - at)
        assert fork["loss_mask"].tolist() == fork["response_mask"].tolist()
        call = next(
            c for c in server.calls if c["prompt"] == fork["prompts"].tolist() + parent["responses"][:at].tolist()
        )
        assert call["sampling"]["max_tokens"] == LENGTH - at
        assert call["request"] == queue.record(f"00000003p000001_{record['parent']}_0")["request"], "same replica"
        assert len(fork["responses"]) <= LENGTH


def test_every_row_has_the_same_fields(world: Any) -> None:
    """verl stacks the rows of a partition; what is private to the agent loop must not be stored."""
    worker, _, queue = world(EXTRA)
    run(worker, tau=1.0)
    names = [set(queue.fields[key].keys()) for key in queue.rows()]
    assert all(found == names[0] for found in names)
    assert not names[0] & {"fork", TAU}


def test_the_terminal_status_comes_after_every_row(world: Any) -> None:
    worker, _, queue = world(EXTRA)
    run(worker, tau=1.0)
    assert queue.log[0] == ("00000003p000001", {"status": "running"})
    assert queue.log[-1] == ("00000003p000001", {"status": "finished"})


def test_keeping_the_prefix_in_the_loss(world: Any) -> None:
    worker, _, queue = world({"branch": {**EXTRA["branch"], "prefix_loss": "keep"}})
    run(worker, tau=1.0)
    assert all(queue.fields[key]["response_mask"].all() for key in queue.rows())


def test_a_failed_fork_is_dropped_and_counted(world: Any) -> None:
    failed: list[int] = []

    def broken(call: dict[str, Any]) -> bool:
        if "max_tokens" in call["sampling"] and not failed:
            failed.append(1)
            return True
        return False

    worker, _, queue = world(EXTRA, broken)
    run(worker, tau=1.0)
    assert len(queue.rows()) == 6
    assert queue.tags["00000003p000001"]["status"] == "finished"
    counts = queue.tags["00000003p000001_0_0"][RECORD]
    assert (counts["planned"], counts["done"], counts["failed"], counts["fresh"]) == (3, 2, 1, 0)


def test_a_failed_base_session_is_verls_failure_and_the_rest_is_kept(world: Any) -> None:
    seen: list[int] = []

    def broken(call: dict[str, Any]) -> bool:
        seen.append(1)
        return len(seen) == 2

    worker, _, queue = world(EXTRA, broken)
    run(worker, tau=1.0)
    assert queue.tags["00000003p000001"]["status"] == "failure"
    assert len(queue.rows()) == 3 + 3
    assert queue.log[-1] == ("00000003p000001", {"status": "failure"})


@pytest.mark.parametrize("tau", [1.0, 5.0])
def test_a_budget_is_exact(world: Any, tau: float) -> None:
    """Two forks at tau 1, none at tau 5: four rows either way."""
    worker, _, queue = world(BUDGET)
    run(worker, tau=tau)
    assert len(queue.rows()) == 4
    counts = queue.tags["00000003p000001_0_0"][RECORD]
    forks = sum(not queue.record(key)["base"] for key in queue.rows())
    assert (counts["done"], counts["fresh"]) == ((2, 0) if tau == 1.0 else (0, 2))
    assert forks == counts["done"]


def test_a_budget_is_exact_when_a_fork_fails(world: Any) -> None:
    worker, _, queue = world(BUDGET, lambda call: "max_tokens" in call["sampling"])
    run(worker, tau=1.0)
    assert len(queue.rows()) == 4
    counts = queue.tags["00000003p000001_0_0"][RECORD]
    assert (counts["failed"], counts["fresh"]) == (2, 2)
    assert queue.tags["00000003p000001"]["status"] == "finished"


def test_without_a_threshold_the_group_gives_its_own(world: Any) -> None:
    worker, _, queue = world(EXTRA)
    run(worker)
    # Half of the tokens are at 0.1, so the median of 12 with four at 2.0 is 0.1: every window reaches it.
    assert queue.tags["00000003p000001_0_0"][RECORD]["tau"] == pytest.approx(0.1)


@pytest.mark.parametrize(("cold", "rows"), [({"cold_start": "disable"}, 4), ({"cold_start": "fixed", "fixed": 1.0}, 7)])
def test_other_cold_starts(world: Any, cold: dict[str, Any], rows: int) -> None:
    worker, _, queue = world({**EXTRA, "tau": cold})
    run(worker)
    assert len(queue.rows()) == rows


def test_base_rows_carry_their_quantile_and_the_first_its_entropies(world: Any) -> None:
    worker, _, queue = world(EXTRA)
    run(worker, tau=1.0)
    records = [queue.record(key) for key in queue.rows()]
    assert [record["quantile"] for record in records[:4]] == pytest.approx([0.1] * 4)
    assert [record["quantile"] for record in records[4:]] == [None] * 3
    assert isinstance(records[0]["entropy"], np.ndarray) and len(records[0]["entropy"]) == 12
    assert all(record["entropy"] is None for record in records[1:])
    extra = queue.fields[queue.rows()[0]]["extra_fields"]
    assert "token_entropy" not in getattr(extra, "data", extra)


def test_what_a_group_passed_over_and_asked_for_reaches_the_metrics(world: Any) -> None:
    """Four answers with one window each and room for three forks, whose prompts are half in the cache."""
    from ares_train.rl.metrics import branch_metrics

    worker, _, queue = world(EXTRA)
    run(worker, tau=1.0)
    rows = queue.rows()
    records = [queue.record(key) for key in rows]
    for record, key in zip(records, rows, strict=True):
        inherited = 0 if record["base"] else record["fork_at"]
        assert record["asked"] == len(queue.fields[key]["prompts"]) + inherited
        record["cached"] = None if record["base"] else record["asked"] // 2
    logged = branch_metrics([queue.tags[key] for key in rows], records)
    assert logged["aepo/branch/skipped_caps"] == 1
    assert [logged[f"aepo/branch/skipped_{reason}"] for reason in ("prefix", "new_tokens", "truncated")] == [0, 0, 0]
    forks = records[4:]
    assert logged["aepo/branch/cached_token_frac"] == sum(f["cached"] for f in forks) / sum(f["asked"] for f in forks)
    assert logged["timing_s/aepo_grow"] > 0 and logged["timing_s/aepo_plan"] > 0
    assert not [name for name in logged for word in ("max", "min", "sum") if word in name.removeprefix("timing_s")]
    # Without the server's word there is no share.
    for record in records:
        record["cached"] = None
    assert "aepo/branch/cached_token_frac" not in branch_metrics([queue.tags[key] for key in rows], records)


def test_without_branching_rows_are_verls_sessions(world: Any) -> None:
    """`branch.mode=off` leaves verl's own worker in place (test_rl_config): n rows, sessions 0 to n - 1, each once."""
    from ares_train.rl.fields import STOCK_AGENT_LOOP
    from ares_train.rl.rollout import BranchingWorker

    worker, server, queue = world({"branch": {"mode": "off"}})
    worker.__class__ = BranchingWorker.__mro__[1]
    row = {
        "uid": "00000003p000001",
        "raw_prompt": [{"role": "user", "content": PROMPT}],
        "agent_name": STOCK_AGENT_LOOP,
        "global_steps": 3,
        "index": 0,
    }
    trajectory = {"step": 3, "sample_index": 0, "rollout_n": 0, "validate": False}
    asyncio.run(worker._run_prompt(row, {"temperature": 1.0, "logprobs": True}, trajectory))
    assert queue.rows() == [f"00000003p000001_{session}_0" for session in range(4)]
    assert len(server.calls) == 4


def test_streams_are_named_on_the_cpu_and_nowhere_else(world: Any) -> None:
    """vLLM's SamplingParams would refuse the name."""
    worker, server, _ = world(EXTRA)
    run(worker, tau=1.0)
    names = [call["sampling"]["ares_stream"] for call in server.calls]
    assert len(set(names)) == 7 and all(name.startswith("00000003p000001/") for name in names)
    worker, server, _ = world({"branch": {**EXTRA["branch"], "entropy_source": "surprisal"}}, name="vllm")
    run(worker, tau=0.55)
    assert server.calls and not any("ares_stream" in call["sampling"] for call in server.calls)


def test_validation_is_verls_own(world: Any) -> None:
    worker, server, queue = world(EXTRA)
    run(worker, validate=True)
    assert queue.rows() == ["00000003p000001_0_0"]
    extra = queue.fields["00000003p000001_0_0"]["extra_fields"]
    assert RECORD not in getattr(extra, "data", extra)
    assert "ares_stream" not in server.calls[0]["sampling"]


def test_a_row_with_another_agent_loop_is_refused_and_the_prompt_ends(world: Any) -> None:
    worker, _, queue = world(EXTRA)
    with pytest.raises(ValueError, match="tool_agent"):
        run(worker, tau=1.0, agent_name="tool_agent")
    assert queue.tags["00000003p000001"]["status"] == "failure"


def test_a_truncated_answer_is_marked_and_not_forked(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, _, queue = world(EXTRA)
    worker.config.actor_rollout_ref.rollout.response_length = 8
    run(worker, tau=1.0)
    assert len(queue.rows()) == 4
    assert all(queue.record(key)["truncated"] for key in queue.rows())


def test_the_manager_starts_our_workers() -> None:
    from verl.utils.import_utils import load_class_from_fqn

    from ares_train.rl.fields import AGENT_LOOP_MANAGER
    from ares_train.rl.rollout import BranchingManager, BranchingWorker

    assert load_class_from_fqn(AGENT_LOOP_MANAGER, "AgentLoopManager") is BranchingManager
    made = object.__new__(BranchingManager)

    class Anything:
        actor_rollout_ref = type("", (), {"rollout": None, "model": None})()

    BranchingManager.__init__(made, Anything(), None)
    assert made.agent_loop_workers_class.__ray_metadata__.modified_class.__bases__[0] is BranchingWorker or issubclass(
        made.agent_loop_workers_class.__ray_metadata__.modified_class, BranchingWorker
    )
