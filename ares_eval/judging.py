"""The judge's part of a run: what rules could not verify is put to an LLM judge, and its decisions are kept apart.

The judge's requests go through the same engine as the model's: cache, retries, permits. Rules' verdicts are never
changed: ``judged.json`` holds the judge's, and the results are given without and with them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ares_eval import records, results
from ares_eval.inference.cache import Cache
from ares_eval.inference.engine import Engine, EngineOptions
from ares_eval.inference.transport import Endpoint
from ares_eval.inference.transport_aiohttp import AiohttpTransport
from ares_eval.tasks.scoring import JudgeModel
from ares_eval.types import Failure, Json, Record, Request, Sampling, Verdict, VerdictValue, WireMessage
from ares_eval.verify.judge import PROMPT_HASH, decision_in, needs_judge, prompt_for

if TYPE_CHECKING:
    from ares_eval.config import RunConfig

JUDGED = "judged.json"

JUDGE_SAMPLING = Sampling(max_tokens=4096, temperature=0.0, top_p=None)
"""Temperature 0, and room for a judge that thinks before it says its one word."""

Key = tuple[str, str, int]
"""Task, sample and draw."""


def judge_run(
    config: RunConfig, writer: records.RunWriter, metas: Mapping[str, results.TaskMeta], warn: Callable[[str], None]
) -> dict[str, Json]:
    """Ask the judge about every unverifiable record; the ``judged`` part of the results.

    A question to the judge that fails leaves its record unverifiable and is counted.
    """
    assert config.judge_model is not None
    path = writer.folder / records.SAMPLES
    decided: dict[Key, VerdictValue] = {}
    failed = 0
    with ExitStack() as stack:
        engine = _engine(config, stack, warn)
        for request, outcome in engine.run(_requests(config.judge_model, writer.folder)):
            if isinstance(outcome, Failure):
                failed += 1
            else:
                decided[request.task, request.sample, request.draw] = decision_in(outcome.text)
        if engine.fatal is not None:
            warn(f"the judge could not be asked: {engine.fatal.message}")
    with_judge = results.summarise(_with_verdicts(records.read_records(path), decided, config.judge_model), metas)
    head: dict[str, Json] = {
        "model": config.judge_model,
        "prompt": PROMPT_HASH,
        "asked": len(decided) + failed,
        "decided": sum(value != "unverifiable" for value in decided.values()),
        "failed": failed,
    }
    verdicts = [
        {"task": task, "sample": sample, "draw": draw, "value": value}
        for (task, sample, draw), value in sorted(decided.items())
    ]
    writer.write(JUDGED, {**head, "verdicts": verdicts})
    return {**head, **with_judge}


def judge_model(config: RunConfig, warn: Callable[[str], None]) -> JudgeModel | None:
    """The judge for tasks whose own scorers ask one (tasks/scoring.py), through the engine; None where none is set."""
    name = config.judge_model
    if name is None:
        return None

    def complete(questions: Sequence[tuple[str | None, str]]) -> list[str | None]:
        asked = [_question(name, number, system, prompt) for number, (system, prompt) in enumerate(questions)]
        replies: dict[str, str] = {}
        with ExitStack() as stack:
            for request, outcome in _engine(config, stack, warn).run(asked):
                if not isinstance(outcome, Failure):
                    replies[request.sample] = outcome.text.rpartition("</think>")[2].strip()
        return [replies.get(str(number)) for number in range(len(questions))]

    return JudgeModel(name, complete)


def _question(model: str, number: int, system: str | None, prompt: str) -> Request:
    messages = (*([WireMessage("system", (system,))] if system else []), WireMessage("user", (prompt,)))
    content = ["judge", model, system, prompt, JUDGE_SAMPLING]
    return Request(
        "", str(number), 0, messages, JUDGE_SAMPLING, hashlib.sha256(msgspec.json.encode(content)).hexdigest()
    )


def _engine(config: RunConfig, stack: ExitStack, warn: Callable[[str], None]) -> Engine:
    """An engine that asks the judge, closed with ``stack``."""
    assert config.judge_model is not None
    cache = None if config.no_cache else stack.enter_context(closing(Cache(config.cache_folder())))
    endpoint = _endpoint(config)
    return stack.enter_context(
        Engine(
            config.judge_model,
            lambda: AiohttpTransport(endpoint, connections=config.eval_threads, timeout=config.timeout),
            EngineOptions(config.eval_threads, config.max_retries, secrets=endpoint.secrets()),
            cache=cache,
            note=warn,
        )
    )


def _requests(model: str, folder: Path) -> Iterator[Request]:
    questions = dict(_questions(folder / records.PROMPTS))
    for record in records.latest(records.read_records(folder / records.SAMPLES)):
        if record.text is None or record.verdict is None or not needs_judge(record.verdict):
            continue
        references = (record.reference,) if isinstance(record.reference, str) else record.reference
        prompt = prompt_for(questions.get((record.task, record.sample)), record.text, references)
        key = hashlib.sha256(msgspec.json.encode(["judge", model, prompt, JUDGE_SAMPLING])).hexdigest()
        yield Request(record.task, record.sample, record.draw, (WireMessage("user", (prompt,)),), JUDGE_SAMPLING, key)


class _Prompt(msgspec.Struct):
    task: str
    sample: str
    messages: list[_Message]


class _Message(msgspec.Struct):
    role: str
    parts: list[str | dict[str, str]]


def _questions(path: Path) -> Iterator[tuple[tuple[str, str], str]]:
    """The text of each question's last user turn."""
    decoder = msgspec.json.Decoder(_Prompt)
    with path.open("rb") as lines:
        for line in lines:
            prompt = decoder.decode(line)
            turns = [message for message in prompt.messages if message.role == "user"]
            text = "".join(part for part in turns[-1].parts if isinstance(part, str)) if turns else ""
            yield (prompt.task, prompt.sample), text


def _with_verdicts(kept: Iterable[Record], decided: Mapping[Key, VerdictValue], model: str) -> Iterator[Record]:
    """The records with the judge's decision in place of ``unverifiable``."""
    for record in kept:
        value = decided.get((record.task, record.sample, record.draw), "unverifiable")
        if value != "unverifiable" and record.verdict is not None and needs_judge(record.verdict):
            verdict: Verdict = dataclasses.replace(record.verdict, value=value, method=f"judge:{model}", reason=None)
            yield dataclasses.replace(record, verdict=verdict)
        else:
            yield record


def _endpoint(config: RunConfig) -> Endpoint:
    from ares_eval.connection import OPENAI_URL

    url = config.judge_base_url or config.openai_base_url or OPENAI_URL
    # The model's key goes to the model's own endpoint only.
    key = config.judge_api_key or (config.openai_api_key if config.judge_base_url is None else None)
    return Endpoint(url, key.value if key else None)
