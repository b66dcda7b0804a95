"""Branching while rolling out (paper 3.2.1): verl's agent-loop manager and worker, with forks at windows of high
entropy.

A prompt's base sessions are sampled first; ``plan_branches`` looks at their entropies; forks run as sessions of their
own under the same uid (a list of outputs from one session would share one score), and fresh sessions fill a budget. A
fork that fails is dropped and counted, never its group. The prompt's terminal status is published only after every
session has settled, so that nothing is written behind the replay buffer's back. Validation is verl's own.

Counts of a group go into the tag ``ares`` of its first row: planned, done, failed, fresh, windows skipped by reason,
the seconds that planning and then growing took, and the threshold used.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import ray
import transfer_queue as tq
from verl.experimental.agent_loop import AgentLoopManager
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ, apply_greedy_sampling_params

from ares_train.aepo.branching import Planned, plan_branches, top_up
from ares_train.aepo.config import AEPOConfig
from ares_train.aepo.entropy import group_tau, rollout_quantile
from ares_train.rl.agent_loop import Fork, plain
from ares_train.rl.fields import AGENT_LOOP, RECORD, STOCK_AGENT_LOOP, TAU
from ares_train.verl_cpu.registration import NAME as HF_CPU
from ares_train.verl_cpu.streams import PARAMETER as STREAM

logger = logging.getLogger(__name__)

# verl decorates the class for Ray, and Ray forbids to inherit from what it has decorated.
_Undecorated: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class BranchingWorker(_Undecorated):
    """Runs the sessions of its share of the prompts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aepo = AEPOConfig.from_dict(plain(self.config.aepo))

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        tau = float(prompt.pop(TAU, math.nan))
        if trajectory["validate"]:
            if prompt["agent_name"] == AGENT_LOOP:
                prompt["agent_name"] = STOCK_AGENT_LOOP
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
            return
        uid = prompt["uid"]
        await tq.async_kv_put(key=uid, partition_id="train", tag={"status": "running"})
        # Whatever goes wrong, the prompt must end: the trainer waits for it.
        status = "failure"
        try:
            if prompt["agent_name"] != AGENT_LOOP:
                raise ValueError(
                    f"a row names the agent loop {prompt['agent_name']}, which cannot fork: drop the column, "
                    "or set aepo.branch.mode=off"
                )
            if not prompt.pop("__do_sample__", True):
                sampling_params = dict(sampling_params)
                apply_greedy_sampling_params(sampling_params)
            group = _Group(self, prompt, sampling_params, trajectory, trace)
            if await group.grow(tau):
                status = "finished"
        finally:
            await tq.async_kv_put(key=uid, partition_id="train", tag={"status": status})

    async def _agent_loop_postprocess(self, output: AgentLoopOutput, validate: bool, **kwargs: Any) -> AgentLoopOutput:
        """Score and store a session as verl does, and hand its output back to the group."""
        kwargs.pop("fork", None)
        record = output.extra_fields.get(RECORD)
        entropy = None if record is None else record["entropy"]
        if entropy is not None:
            record["quantile"] = rollout_quantile(entropy, self.aepo.window)
            # One answer a prompt is enough to judge the estimator by, and 1/n of the traffic.
            record["entropy"] = entropy if kwargs["session_id"] == 0 else None
        await super()._agent_loop_postprocess(output, validate, **kwargs)
        if entropy is not None:
            record["entropy"] = entropy
        return output


class _Group:
    """The sessions of one prompt."""

    def __init__(
        self,
        worker: BranchingWorker,
        prompt: dict[str, Any],
        sampling: dict[str, Any],
        trajectory: dict[str, Any],
        trace: bool,
    ) -> None:
        self.worker, self.prompt, self.sampling = worker, dict(prompt), sampling
        self.trajectory, self.trace = trajectory, trace
        rollout = worker.config.actor_rollout_ref.rollout
        self.size = int(self.prompt.pop("__rollout_n__", rollout.n))
        self.response_length = int(rollout.response_length)
        self.named_streams = rollout.name == HF_CPU
        self.sessions = 0

    async def grow(self, tau: float) -> bool:
        """Base sessions, forks and fresh ones; whether no session but forks failed."""
        aepo = self.worker.aepo
        wanted = min(aepo.branch.n_base or self.size, self.size) if aepo.branch.mode == "budget" else self.size
        base = await self._run([None] * wanted)
        outputs = {session: output for session, output in base.items() if isinstance(output, AgentLoopOutput)}
        used = threshold(tau, list(outputs.values()), aepo)
        begun = time.perf_counter()
        planned = self._planned(outputs, used)
        forks = self._forks(outputs, planned)
        decided = time.perf_counter()
        fresh = [None] * top_up(len(outputs), len(forks), aepo.branch)
        later = await self._run([*forks, *fresh])
        settled = list(later.values())
        failed = sum(not isinstance(output, AgentLoopOutput) for output in settled[: len(forks)])
        # A budget is exact: what a failed fork left open is filled as well.
        replaced = [None] * failed if aepo.branch.mode == "budget" else []
        settled += (await self._run(replaced)).values()
        whole = [*base.values(), *settled[len(forks) :]]
        if outputs:
            counts = {
                "planned": len(forks),
                "done": len(forks) - failed,
                "failed": failed,
                "fresh": len(fresh) + len(replaced),
                **{f"skipped_{reason}": count for reason, count in planned.skipped.items()},
                "plan_s": decided - begun,
                "grow_s": time.perf_counter() - decided,
                "tau": None if math.isnan(used) else used,
            }
            first = f"{self.prompt['uid']}_{next(iter(outputs))}_0"
            await tq.async_kv_put(key=first, partition_id="train", tag={RECORD: counts})
        return all(isinstance(output, AgentLoopOutput) for output in whole)

    def _planned(self, outputs: dict[int, AgentLoopOutput], tau: float) -> Planned:
        aepo = self.worker.aepo
        records = [output.extra_fields[RECORD] for output in outputs.values()]
        return plan_branches(
            [record["entropy"] for record in records],
            tau,
            aepo.branch,
            aepo.window,
            self.response_length,
            [record["truncated"] for record in records],
        )

    def _forks(self, outputs: dict[int, AgentLoopOutput], planned: Planned) -> list[Fork]:
        numbered = list(outputs.items())
        return [Fork(numbered[plan.parent][1], numbered[plan.parent][0], plan.position) for plan in planned.plans]

    async def _run(self, forks: Sequence[Fork | None]) -> dict[int, AgentLoopOutput | BaseException]:
        """One session for each entry (None: a fresh one), all settled; session numbers to outputs or errors."""
        numbers = range(self.sessions, self.sessions + len(forks))
        self.sessions += len(forks)
        tasks = [self._session(number, fork) for number, fork in zip(numbers, forks, strict=True)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in zip(numbers, results, strict=True):
            if not isinstance(result, AgentLoopOutput):
                logger.error("session %d of prompt %s failed", number, self.prompt["uid"], exc_info=result)
        return dict(zip(numbers, results, strict=True))

    async def _session(self, number: int, fork: Fork | None) -> AgentLoopOutput:
        sampling = dict(self.sampling)
        if self.named_streams:
            sampling[STREAM] = f"{self.prompt['uid']}/{number}"
        extra = {} if fork is None else {"fork": fork}
        output: AgentLoopOutput = await self.worker._run_agent_loop(
            sampling, trajectory=self.trajectory, trace=self.trace, session_id=number, **extra, **self.prompt
        )
        return output


def threshold(tau: float, outputs: Sequence[AgentLoopOutput], aepo: AEPOConfig) -> float:
    """The threshold that a group branches at: ``tau`` of earlier steps, or what ``tau.cold_start`` says; nan for
    none."""
    if not math.isnan(tau):
        return tau
    match aepo.tau.cold_start:
        case "group":
            return group_tau([output.extra_fields[RECORD]["entropy"] for output in outputs], aepo.window)
        case "fixed":
            return math.nan if aepo.tau.fixed is None else aepo.tau.fixed
        case "disable":
            return math.nan


class BranchingManager(AgentLoopManagerTQ):
    """verl's manager with our workers; named by ``rollout.agent.agent_loop_manager_class``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.agent_loop_workers_class = ray.remote(BranchingWorker)
        # AgentLoopManagerTQ's own would put verl's worker back.
        AgentLoopManager.__init__(self, *args, **kwargs)
