"""Sampling without a server: vLLM engines in Ray actors, fed in batches by ray.data.llm, where GPUs are.

Parts go in waves, each one dataset through one set of engines, because loading a model takes minutes; what a wave
finished is written at its end. Requests, seeds and keys are those of the server path. vLLM's batch output does not say
why a reply ended: one of ``max_tokens`` tokens counts as cut.

Written against Ray 2.60 and tested up to the engine; not run on a GPU.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ares_eval import plan
from ares_eval.config import RunConfig
from ares_eval.inference.logprobs import Alternative, Token, token_trace
from ares_eval.types import PictureError, Sampling, WireMessage
from ares_train.adacs import schemas
from ares_train.adacs.asking import AskedSet
from ares_train.adacs.config import AdacsConfig, PoolConfig
from ares_train.adacs.errors import AdacsError, Incomplete
from ares_train.adacs.executor_ray import cluster
from ares_train.adacs.questions import sample_of
from ares_train.adacs.ticker import Ticker

WAVE = 16
"""Parts that go through the engines together: some hours of work at paper scale, and what a kill may cost."""

ERROR = "__inference_error__"
"""Ray's column for rows whose inference failed; they pass by the postprocessing."""


def run(
    config: AdacsConfig,
    asked: AskedSet,
    pool: PoolConfig,
    todo: list[int],
    note: Callable[[str], None],
) -> None:
    """Sample the parts ``todo``. Raises AdacsError where there is no vLLM or no GPU, Incomplete for lost replies."""
    if importlib.util.find_spec("vllm") is None:
        raise AdacsError(
            "engine vllm: vLLM is not installed in this environment; mend: pip install vllm on all nodes, or use "
            "engine server with a running vLLM server"
        )
    with cluster(config.sample.ray_address) as ray:
        if not ray.cluster_resources().get("GPU"):
            raise AdacsError("engine vllm: Ray sees no GPU; mend: connect to a cluster that has some, or engine server")
        processor = _processor(pool, asked, config.sample.workers)
        ticker = Ticker(f"sample {asked.name}", "parts", len(todo), note)
        lost: Counter[str] = Counter()
        for start in range(0, len(todo), WAVE):
            wave = todo[start : start + WAVE]
            items = [row for number in wave for row in rows_of(asked, number)]
            replies = processor(ray.data.from_items(items)).take_all()
            for number in wave:
                lost += _write(asked, number, [reply for reply in replies if reply["part"] == number])
                ticker.add(1)
    if lost:
        told = ", ".join(f"{count} {cause}" for cause, count in lost.most_common())
        raise Incomplete(f"sample {asked.name}: parts lost more than sample.max_lost of their draws ({told})")


def _processor(pool: PoolConfig, asked: AskedSet, concurrency: int) -> Any:
    from ray.data.llm import build_processor

    written = as_json(asked.config)
    return build_processor(
        engine_config(pool, asked, concurrency),
        preprocess=lambda row: preprocess(row, written),
        postprocess=lambda row: postprocess(row, asked.config.max_tokens, asked.config.logprobs),
    )


def engine_config(pool: PoolConfig, asked: AskedSet, concurrency: int) -> Any:
    """Ray's configuration of ``concurrency`` vLLM engines."""
    from ray.data.llm import vLLMEngineProcessorConfig

    return vLLMEngineProcessorConfig(
        model_source=asked.config.model_name,
        engine_kwargs=dict(pool.vllm),
        concurrency=concurrency,
        batch_size=64,
        should_continue_on_error=True,
        prepare_multimodal_stage=asked.pictures,
    )


def rows_of(asked: AskedSet, number: int) -> list[dict[str, Any]]:
    """One row for each draw of a part: ``{part, qid, draw, question}``, the question as JSON."""
    only = asked.only(number)
    draws = range(asked.first, asked.first + asked.draws)
    return [
        {"part": number, "qid": row["qid"], "draw": draw, "question": msgspec.json.encode(row).decode()}
        for row in pq.read_table(asked.questions.path(number)).to_pylist()
        if only is None or row["qid"] in only
        for draw in draws
    ]


def preprocess(row: Mapping[str, Any], settings: str) -> dict[str, Any]:
    """A row with what Ray's stages need: OpenAI ``messages`` and vLLM's ``sampling_params``; ``settings``: of
    ``as_json``. A question whose picture cannot be read is asked without it, and its reply is thrown away."""
    from ares_eval.config import load

    decoded = msgspec.json.decode(settings)
    config = load({name: value for name, value in decoded.items() if value is not None})
    sample = sample_of(msgspec.json.decode(row["question"]), "adacs")
    cause = ""
    try:
        prompt = plan.prompt(sample, config)
        messages = [_openai(message) for message in prompt.messages]
        digest = prompt.digest
    except (PictureError, OSError):
        cause, digest, messages = "picture", "", [{"role": "user", "content": "."}]
    sampling = config.sampling(int(row["draw"]))
    identity = plan.ModelIdentity(config.model_name, config.model_revision)
    return {
        "part": row["part"],
        "qid": row["qid"],
        "draw": row["draw"],
        "seed": sampling.seed,
        "key": plan.request_key(identity, digest, sampling, int(row["draw"])),
        "cause": cause,
        "messages": messages,
        "sampling_params": sampling_params(sampling),
    }


def sampling_params(sampling: Sampling) -> dict[str, Any]:
    """vLLM's names for what is set."""
    values = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "logprobs": sampling.logprobs or None,
    }
    return {name: value for name, value in {**values, **sampling.extra_body}.items() if value is not None}


def _openai(message: WireMessage) -> dict[str, Any]:
    parts = message.parts
    if all(isinstance(part, str) for part in parts):
        return {"role": message.role, "content": "".join(str(part) for part in parts)}
    return {
        "role": message.role,
        "content": [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": part.data_url()}}
            for part in parts
        ],
    }


def postprocess(row: Mapping[str, Any], max_tokens: int, logprobs: int) -> dict[str, Any]:
    """A row of vLLM's output as a reply of schema SAMPLES (all but ``source``), and its part."""
    tokens = int(row["num_generated_tokens"])
    text = str(row["generated_text"])
    finish = "length" if tokens >= max_tokens else "stop"
    cause = row["cause"] or None
    return {
        "part": row["part"],
        "qid": row["qid"],
        "draw": row["draw"],
        "text": None if cause else text,
        "reasoning": "",
        "finish_reason": None if cause else finish,
        "completion_tokens": None if cause else tokens,
        "cause": cause,
        "seed": row["seed"],
        "key": row["key"],
        "entropy": None if cause or not logprobs else entropy_of(row, text, finish, logprobs),
    }


def entropy_of(row: Mapping[str, Any], text: str, finish: str, asked: int) -> list[float] | None:
    """Lower bounds of token entropy from vLLM's log-probs, as the evaluator makes them of a server's."""
    found = row.get("logprobs")
    if not found:
        return None
    tokens = []
    for chosen, known in zip(row["generated_tokens"], found, strict=False):
        by_id = {int(token): value for token, value in known.items() if value is not None}
        alternatives = [
            Alternative(str(value.get("decoded_token")), float(value["logprob"]))
            for value in by_id.values()
            if (value.get("rank") or 0) <= asked
        ]
        own = by_id.get(int(chosen), {})
        tokens.append(Token(str(own.get("decoded_token")), own.get("logprob"), None, alternatives))
    trace = token_trace(tokens, text=text, finish_reason=finish, asked=asked, vocabulary=None)
    return [float(value) for value in np.asarray(trace.entropy_low, dtype=np.float32)]


def _write(asked: AskedSet, number: int, replies: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Write a part in the order of its questions; the causes where too much of it was lost and it is not written."""
    rows = pq.read_table(asked.questions.path(number), columns=["qid", "source"]).to_pylist()
    place = {row["qid"]: at for at, row in enumerate(rows)}
    made = []
    for reply in replies:
        failed = {"text": None, "cause": "server"} if reply.get(ERROR) else {}
        made.append({**reply, **failed, "source": rows[place[reply["qid"]]]["source"]})
    made.sort(key=lambda reply: (place[reply["qid"]], reply["draw"]))
    lost = Counter(str(reply["cause"]) for reply in made if reply["cause"] is not None)
    if lost.total() > asked.max_lost * len(made):
        return lost
    table = pa.Table.from_pylist(made, schema=schemas.SAMPLES)
    asked.stage.write(number, table, schemas.SAMPLES, asked.inputs(number))
    return Counter()


def as_json(config: RunConfig) -> str:
    """The settings as they go to the workers, without keys."""
    return msgspec.json.encode(config.settings()).decode()
