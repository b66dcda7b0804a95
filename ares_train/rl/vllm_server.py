"""``branch.entropy_source=server_topk``: verl's vLLM server, but that an answer carries an entropy for every token.

verl asks vLLM for the sampled token's log-prob alone. Here the engine behind the server is asked for the K largest, and
what comes back is reduced to one float a token on the server, so that no more travels than before. The entropy takes
the missing mass as one symbol: a lower bound.

Written against verl 0.9.1's server and tested with a stand-in for vLLM's engine. It has not run on a GPU: speed and
memory of the top-K there are not known.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import numpy as np

from ares_train.rl.entropy_sources import SERVER_FIELD, entropy_of_top


class TopKEngine:
    """vLLM's engine, of which ``generate`` asks for K log-probs and keeps the entropies; all else is the engine's
    own."""

    def __init__(self, engine: Any, topk: int) -> None:
        self._engine, self._topk = engine, topk
        self._entropies: dict[str, list[float]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, *, sampling_params: Any, request_id: str, **asked: Any) -> AsyncIterator[Any]:
        """vLLM's outputs, unchanged; ``entropies(request_id)`` then holds the finished answer's."""
        if sampling_params.logprobs is not None:
            sampling_params.logprobs = max(self._topk, sampling_params.logprobs)
        last = None
        async for output in self._engine.generate(sampling_params=sampling_params, request_id=request_id, **asked):
            last = output
            yield output
        if last is not None and last.outputs and last.outputs[0].logprobs is not None:
            self._entropies[request_id] = entropies(last.outputs[0].logprobs, self._topk)

    def entropies(self, request_id: str) -> list[float] | None:
        """Those of a finished request, once; None where no log-probs were asked for or it was aborted."""
        return self._entropies.pop(request_id, None)


class TopKServer:
    """Comes before verl's ``vLLMHttpServer`` among the bases of the server that is started."""

    engine: Any
    topk: int

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **asked: Any
    ) -> Any:
        """verl's TokenOutput with ``extra_fields["ares_entropy"]``."""
        if not isinstance(self.engine, TopKEngine):
            self.engine = TopKEngine(self.engine, self.topk)
        parent: Any = super()
        output = await parent.generate(prompt_ids, sampling_params, request_id, **asked)
        found = self.engine.entropies(request_id)
        if found is not None:
            output.extra_fields[SERVER_FIELD] = found
        return output


def entropies(steps: Iterable[Mapping[int, Any]], topk: int) -> list[float]:
    """One entropy for each step of vLLM's log-probs (token id -> object with ``logprob`` and ``rank``), nats.

    vLLM adds the sampled token to the K largest; where it ranks below them it is part of the rest.
    """
    made = []
    for step in steps:
        known = np.full((1, topk), np.nan)
        best = sorted((entry.logprob for entry in step.values()), reverse=True)[:topk]
        known[0, : len(best)] = best
        made.append(float(entropy_of_top(known)[0]))
    return made


def register(topk: int) -> None:
    """Have ``rollout.name=vllm`` start servers that tell entropies from the ``topk`` largest log-probs.

    To be called in the process that starts the servers. ImportError where vLLM is not installed.
    """
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    RolloutReplicaRegistry.register("vllm", lambda: _replica(topk))


def _replica(topk: int) -> Any:
    import ray
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

    server = type("TopKvLLMHttpServer", (TopKServer, vLLMHttpServer), {"topk": topk})

    class TopKReplica(vLLMReplica):
        """verl's replica that starts our servers."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if not self.is_reward_model and not self.is_teacher_model:
                self.server_class = ray.remote(server)

    return TopKReplica
