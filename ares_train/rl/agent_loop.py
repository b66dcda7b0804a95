"""``ares_single_turn``: verl's single-turn agent loop, which can also go on from a prefix of another answer (a fork).

A fork is asked by token ids, never by text, under its parent's request id: the same replica then finds prompt and
prefix in its cache. It may write what its prefix leaves of the response length. Its inherited tokens are masked out of
the loss (``branch.prefix_loss=mask``) or trained once more (``keep``, as ARPO does); log-probs there are the parent's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.utils.profiler import simple_timer

from ares_train.aepo.config import AEPOConfig
from ares_train.rl import entropy_sources
from ares_train.rl.fields import AGENT_LOOP, RECORD, session_record


class ForkFailed(RuntimeError):
    """A fork got nothing to train on; its group goes on without it."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Continue ``parent`` (the output of session ``session``) after its first ``position`` response tokens."""

    parent: AgentLoopOutput
    session: int
    position: int


@register(AGENT_LOOP)
class BranchingAgentLoop(SingleTurnAgentLoop):
    """One session: a fresh answer, or a fork where ``fork`` is given."""

    server_manager: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aepo = AEPOConfig.from_dict(plain(self.config.aepo))

    async def run(self, sampling_params: dict[str, Any], fork: Fork | None = None, **fields: Any) -> AgentLoopOutput:
        """The session's output; ``extra_fields["ares"]`` is its record (ares_train.rl.fields)."""
        if fork is not None:
            return await self._continue(sampling_params, fork)
        listener = _Listener(self.server_manager)
        self.server_manager = listener
        output = await super().run(sampling_params, **fields)
        extra = output.extra_fields
        entropy = await self._entropies(output, listener, sampling_params)
        entropy_sources.forget(extra)
        extra[RECORD] = session_record(
            base=True,
            truncated=self._truncated(output.response_ids),
            request=listener.request,
            asked=len(output.prompt_ids),
            cached=extra.get("num_cached_tokens"),
            source=self.aepo.branch.entropy_source,
            entropy=entropy,
        )
        return output

    async def _entropies(
        self, output: AgentLoopOutput, listener: _Listener, sampling_params: Mapping[str, Any]
    ) -> np.ndarray:
        async def ask(prompt_ids: list[int], **sampling: Any) -> Any:
            return await listener.again(prompt_ids, {**sampling_params, **sampling})

        if not output.response_ids:
            return np.zeros(0, dtype=np.float32)
        return await entropy_sources.SOURCES[self.aepo.branch.entropy_source](
            entropy_sources.Answered(
                prompt=output.prompt_ids,
                tokens=output.response_ids,
                log_probs=output.response_logprobs,
                extra=output.extra_fields,
                topk=self.aepo.branch.topk,
                ask=ask,
            )
        )

    async def _continue(self, sampling_params: dict[str, Any], fork: Fork) -> AgentLoopOutput:
        parent, position = fork.parent, fork.position
        prefix = parent.response_ids[:position]
        record = parent.extra_fields[RECORD]
        media = parent.multi_modal_data or {}
        timing: dict[str, Any] = {}
        with simple_timer("generate_sequences", timing):
            answer = await self.server_manager.generate(
                request_id=record["request"],
                prompt_ids=[*parent.prompt_ids, *prefix],
                sampling_params={**sampling_params, "max_tokens": self.response_length - position},
                image_data=media.get("images"),
                video_data=media.get("videos"),
                audio_data=media.get("audios"),
                mm_processor_output=parent.mm_processor_output,
                mm_processor_kwargs=parent.mm_processor_kwargs,
            )
        own = list(answer.token_ids)[: self.response_length - position]
        if not own:
            raise ForkFailed(f"the server returned no token for a fork at {position} ({answer.stop_reason})")
        log_probs = None
        if parent.response_logprobs is not None:
            if answer.log_probs is None:
                raise ForkFailed("the server returned no log-probs for a fork")
            log_probs = [*parent.response_logprobs[:position], *answer.log_probs[: len(own)]]
        timing["num_preempted"] = answer.num_preempted if answer.num_preempted is not None else -1
        extra = dict(answer.extra_fields)
        entropy_sources.forget(extra)
        for name, choose in (("min_global_steps", min), ("max_global_steps", max)):
            versions = [value for value in (parent.extra_fields.get(name), extra.get(name)) if value is not None]
            extra[name] = choose(versions, default=None)
        extra |= {"turn_scores": [], "tool_rewards": []}
        extra[RECORD] = session_record(
            base=False,
            parent=fork.session,
            fork_at=position,
            truncated=self._truncated([*prefix, *own]),
            asked=len(parent.prompt_ids) + position,
            cached=extra.get("num_cached_tokens"),
        )
        inherited = 0 if self.aepo.branch.prefix_loss == "mask" else 1
        return AgentLoopOutput(
            prompt_ids=parent.prompt_ids,
            response_ids=[*prefix, *own],
            response_mask=[inherited] * position + [1] * len(own),
            response_logprobs=log_probs,
            multi_modal_data=parent.multi_modal_data,
            mm_processor_kwargs=parent.mm_processor_kwargs,
            mm_processor_output=parent.mm_processor_output,
            num_turns=parent.num_turns,
            metrics=AgentLoopMetrics(**timing),
            extra_fields=extra,
        )

    def _truncated(self, response_ids: list[int]) -> bool:
        """Cut off at the limit: full length, and the last token does not end an answer."""
        return len(response_ids) >= self.response_length and response_ids[-1] != int(self.tokenizer.eos_token_id)


class _Listener:
    """Passes one session's request on, and remembers how it was asked so that it can be asked again."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._asked: dict[str, Any] = {}
        self.request = ""

    async def generate(self, request_id: str, **asked: Any) -> Any:
        self.request, self._asked = request_id, asked
        return await self._server.generate(request_id=request_id, **asked)

    async def again(self, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        """The same pictures and replica, another prompt and other sampling parameters."""
        changed = {"prompt_ids": prompt_ids, "sampling_params": sampling_params}
        return await self._server.generate(request_id=self.request, **{**self._asked, **changed})


def plain(node: Any) -> dict[str, Any]:
    """A node of verl's configuration as plain nested dictionaries."""
    from omegaconf import OmegaConf

    made: dict[str, Any] = OmegaConf.to_container(node, resolve=True)
    return made
