"""``hf_cpu``: a rollout engine of verl on a transformers model, for CPUs.

Three parts, as verl wants them: the server, a Ray actor (``HFServer``); the replica that starts it (``HFReplica``); and
the adapter in the trainer's worker that hands it new weights (``ServerAdapter``). Answers carry log-probabilities and,
in ``extra_fields["token_entropy"]``, the exact entropy of each token; ``stop_reason`` is "completed" or "length".
Draws are reproducible (ares_train.verl_cpu.streams). Weights must match by name and shape, or the update fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray
import torch
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput
from verl.workers.rollout.utils import ensure_async_iterator

from ares_train.verl_cpu.generation import Answer, Ask, Generator
from ares_train.verl_cpu.registration import NAME
from ares_train.verl_cpu.sampling import Settings
from ares_train.verl_cpu.streams import PARAMETER, Streams, picture_digest

GATHER_SECONDS = 0.01
"""Requests are batched when none has come for this long: those of one step come together."""

ENVIRONMENT = ("VERL_PLATFORM", "VERL_USE_EXTERNAL_MODULES", "PYTHONPATH", "OMP_NUM_THREADS", "HF_HUB_OFFLINE")
"""What a server's process needs of its parent's environment."""


class HFServer:
    """Answers token ids with token ids. All settings come from verl's rollout and model configuration."""

    def __init__(self, rollout: Any, model: Any, replica: int) -> None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        rollout, model = omega_conf_to_dataclass(rollout), omega_conf_to_dataclass(model)
        self.generator = load(model, str(rollout.dtype), ignore_ends=rollout.ignore_eos)
        self.response_length = int(rollout.response_length)
        self.context = int(rollout.max_model_len or rollout.prompt_length + rollout.response_length)
        self.max_batch = int(rollout.max_num_seqs)
        self.streams = Streams(int(rollout.seed), replica)
        self.global_steps: int | None = None
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._arrived = asyncio.Event()
        self._model_in_use = asyncio.Lock()
        self._loop: asyncio.Task[None] | None = None

    async def ready(self) -> int:
        """The server's process id, once the model is loaded."""
        return os.getpid()

    async def generate(
        self,
        request_id: str,  # noqa: ARG002
        *,
        prompt_ids: Sequence[int],
        sampling_params: Mapping[str, Any],
        image_data: Sequence[Any] | None = None,
        video_data: Sequence[Any] | None = None,
        **other: Any,
    ) -> Any:
        """verl's TokenOutput for one prompt; ``sampling_params`` may name the request's stream (``ares_stream``)."""
        unknown = [name for name, value in {"video_data": video_data, **other}.items() if value]
        if unknown:
            raise ValueError(f"hf_cpu does not take {', '.join(unknown)}")
        params = {name: value for name, value in sampling_params.items() if name != PARAMETER}
        settings = Settings.of(params, self.response_length, self.context - len(prompt_ids))
        pictures = list(image_data or ())
        stream = self.streams.open(self.global_steps, prompt_ids, map(picture_digest, pictures), sampling_params)
        answer = await self._answer(Ask(list(prompt_ids), settings, stream, pictures))
        return TokenOutput(
            token_ids=answer.tokens,
            log_probs=answer.log_probs if settings.log_probs else None,
            stop_reason="completed" if answer.ended else "length",
            extra_fields={"global_steps": self.global_steps, "token_entropy": answer.entropies},
        )

    async def update_weights(self, weights: Mapping[str, torch.Tensor], global_steps: int | None = None) -> None:
        """Take ``weights``, whose names and shapes must be the model's own; ``global_steps`` is their version."""
        async with self._model_in_use:
            copy_weights(self.generator.model, weights)
            if global_steps is not None:
                self.global_steps = global_steps

    async def set_global_steps(self, global_steps: int) -> None:
        self.global_steps = global_steps

    # Device memory, which these are about, is not what a CPU is short of.
    async def wake_up(self, tags: Sequence[str] | None = None) -> None: ...

    async def sleep(self) -> None: ...

    async def clear_kv_cache(self) -> None: ...

    async def release_kv_cache(self) -> None: ...

    async def resume_kv_cache(self) -> None: ...

    async def start_profile(self, **_: Any) -> None: ...

    async def stop_profile(self) -> None: ...

    async def abort_all_requests(self, reject_request: bool = False) -> None:
        """Refused: only verl's asynchronous trainers interrupt answers."""
        raise NotImplementedError("hf_cpu cannot interrupt answers: use trainer.v1.trainer_mode=sync")

    async def resume_generation(self) -> None: ...

    async def _answer(self, ask: Ask) -> Answer:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop.create_task(self._serve())
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((ask, answer))
        self._arrived.set()
        return await answer

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            count = 0
            while count < len(self._waiting):
                count = len(self._waiting)
                await asyncio.sleep(GATHER_SECONDS)
            # Who asked may have gone meanwhile.
            taken, self._waiting = [each for each in self._waiting if not each[1].done()], []
            self._arrived.clear()
            async with self._model_in_use:
                asks = [ask for ask, _ in taken]
                try:
                    answers = await loop.run_in_executor(None, self.generator.answer, asks, self.max_batch)
                except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                    for _, future in taken:
                        if not future.done():
                            future.set_exception(error)
                    continue
            for (_, future), answer in zip(taken, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


class HFReplica(RolloutReplica):
    """One server, in this machine's memory."""

    async def launch_servers(self) -> None:
        if self.is_reward_model or self.is_teacher_model:
            raise NotImplementedError("hf_cpu serves the policy only, no reward or teacher model")
        if self.world_size != 1:
            raise ValueError("hf_cpu runs in one process: set tensor_model_parallel_size=1 and data_parallel_size=1")
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        server = (
            ray.remote(HFServer)
            .options(
                name=server_name(self.replica_rank),
                num_cpus=0,
                max_concurrency=self.max_concurrency,
                runtime_env={"env_vars": environment},
            )
            .remote(self.config, self.model_config, self.replica_rank)
        )
        await server.ready.remote()
        self.servers = [server]
        self._server_handle = server
        self._server_address = f"{NAME}:{self.replica_rank}"


class ServerAdapter(BaseRollout):
    """Hands the trainer's weights to the server of this rank's replica."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self.replica_rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Any,
        global_steps: int | None = None,
        wire_format: str = "named_tensors",
        peft_config: Any = None,
        **_: Any,
    ) -> None:
        if wire_format != "named_tensors" or peft_config is not None:
            raise ValueError(
                "hf_cpu takes whole weights: set checkpoint_engine.backend=naive, and model.lora.merge=True with LoRA"
            )
        # Every rank reads all of them: gathering a shard is a collective call.
        whole = {name: value.detach().cpu().clone() async for name, value in ensure_async_iterator(weights)}
        await ray.get_actor(server_name(self.replica_rank)).update_weights.remote(whole, global_steps)


def server_name(replica: int) -> str:
    """The Ray name of a replica's server."""
    return f"ares_{NAME}_{replica}"


def load(model: Any, dtype: str, *, ignore_ends: bool = False) -> Generator:
    """The checkpoint of verl's HFModelConfig ``model`` as a Generator, in ``dtype`` ("float32", "bfloat16")."""
    from verl.utils.model import get_hf_auto_model_class

    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"rollout.dtype={dtype} is no torch dtype: set rollout.dtype=float32")
    module = get_hf_auto_model_class(hf_config=model.hf_config).from_pretrained(
        model.local_path, config=model.hf_config, dtype=kind, trust_remote_code=model.trust_remote_code
    )
    ends = {model.tokenizer.eos_token_id}
    also = getattr(model.generation_config, "eos_token_id", None)
    ends |= {also} if isinstance(also, int) else set(also or ())
    return Generator(
        module.eval(),
        ends=frozenset() if ignore_ends else frozenset(end for end in ends if end is not None),
        pad=int(model.tokenizer.pad_token_id),
        processor=model.processor,
    )


def copy_weights(module: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy ``weights`` into ``module``. Names are those of verl's actor. Raises ValueError, before anything is copied,
    where a name is missing (but for a tensor that is tied to one that is there), unexpected, or of another shape."""
    from verl.utils.model import convert_weight_keys

    own = convert_weight_keys(module.state_dict(), module)
    given = {own[name].data_ptr() for name in weights if name in own}
    missing = sorted(name for name, tensor in own.items() if name not in weights and tensor.data_ptr() not in given)
    unexpected = sorted(set(weights) - set(own))
    shapes = sorted(name for name in weights if name in own and own[name].shape != weights[name].shape)
    if missing or unexpected or shapes:
        told = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        raise ValueError(
            "the trainer's weights are not the rollout model's: "
            + "; ".join(f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in told.items() if names)
        )
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
