"""Sampling without a server: vLLM engines in Ray actors, fed in batches by ray.data.llm, where GPUs are.

Parts go in waves, each one dataset through one set of engines, because loading a model takes minutes. Replies go to the
parts' partial files as they come: after a kill, or where much was lost, only what is missing is asked again. A wave's
parts are written at its end. Requests, seeds and keys are those of the server path. vLLM's batches do not say why a
reply ended: one of ``max_tokens`` tokens counts as cut.

Written against Ray 2.60 and tested up to the engine; not run on a GPU.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq

from ares_eval import plan
from ares_eval.config import RunConfig
from ares_eval.inference.logprobs import Alternative, Token, token_trace
from ares_eval.types import PictureError, Sampling, WireMessage
from ares_train.adacs import schemas
from ares_train.adacs.asking import AskedSet, partial_of
from ares_train.adacs.config import AdacsConfig, PoolConfig
from ares_train.adacs.errors import AdacsError, Incomplete
from ares_train.adacs.executor_ray import cluster
from ares_train.adacs.partial import Partial, Sampled
from ares_train.adacs.questions import sample_of
from ares_train.adacs.ticker import Ticker

WAVE = 16
"""Parts that go through the engines together: some hours of work at paper scale."""

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

            def answer(items: list[dict[str, Any]]) -> Iterator[Mapping[str, Any]]:
                return iter(processor(ray.data.from_items(items)).iter_rows())

            lost += ask_wave(asked, wave, answer)
            ticker.add(len(wave))
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


def ask_wave(
    asked: AskedSet, numbers: Sequence[int], answer: Callable[[list[dict[str, Any]]], Iterator[Mapping[str, Any]]]
) -> Counter[str]:
    """Ask and write parts; ``answer`` gives the replies to rows in any order. The causes where too much of a part was
    lost, so that it is not written."""
    lost: Counter[str] = Counter()
    with ExitStack() as stack:
        partials = {number: stack.enter_context(partial_of(asked, number)) for number in numbers}
        rows = {number: rows_of(asked, number) for number in numbers}
        items = [row for number in numbers for row in rows[number] if (row["qid"], row["draw"]) not in partials[number]]
        for reply in answer(items) if items else ():
            partials[reply["part"]].add(_sampled(reply))
        for number in numbers:
            lost += _finish(asked, number, rows[number], partials[number])
    return lost


def _sampled(reply: Mapping[str, Any]) -> Sampled:
    common: dict[str, Any] = {name: reply[name] for name in ("qid", "draw")}
    common |= {"seed": reply.get("seed"), "key": reply.get("key") or ""}
    cause = "server" if reply.get(ERROR) else reply["cause"]
    if cause:
        return Sampled(**common, cause=cause)
    entropy = reply["entropy"]
    return Sampled(
        **common,
        **{name: reply[name] for name in ("text", "reasoning", "finish_reason", "completion_tokens")},
        entropy=None if entropy is None else np.asarray(entropy, dtype="<f4").tobytes(),
    )


def _finish(asked: AskedSet, number: int, rows: Sequence[Mapping[str, Any]], partial: Partial) -> Counter[str]:
    """Write a part in the order of its questions; the causes where too much of it was lost."""
    wanted = [(row["qid"], row["draw"]) for row in rows]
    for qid, draw in wanted:
        if (qid, draw) not in partial:
            partial.add(Sampled(qid=qid, draw=draw, cause="server"))
    lost = Counter(partial.causes.values())
    if lost.total() > asked.max_lost * len(wanted):
        return lost
    table = pq.read_table(asked.questions.path(number), columns=["qid", "source"])
    source = dict(zip(table["qid"].to_pylist(), table["source"].to_pylist(), strict=True))
    asked.stage.write(number, partial.batches(wanted, source), schemas.SAMPLES, asked.inputs(number))
    partial.remove()
    return Counter()


def as_json(config: RunConfig) -> str:
    """The settings as they go to the workers, without keys."""
    return msgspec.json.encode(config.settings()).decode()
