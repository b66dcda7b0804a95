"""Every setting of the loopback server, once: the command line and `start()` are made from this table."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DIALECTS = ("openai", "vllm", "llamacpp", "lmdeploy")
REASONING = ("none", "reasoning_content", "reasoning", "think")
DRAWS = ("fixed", "successive")
RETRY_AFTER = ("seconds", "date", "none")


def _option(default: Any, text: str, **more: Any) -> Any:
    """A field with its help; ``choices``, ``type`` and ``repeat`` go to argparse."""
    if more.get("repeat"):
        return dataclasses.field(default_factory=tuple, metadata={"help": text, **more})
    return dataclasses.field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one server. Times are in seconds, rates are probabilities from 0 to 1."""

    host: str = _option("127.0.0.1", "address to listen on")
    port: int = _option(0, "port; 0 takes a free one")
    seed: int = _option(0, "of everything that looks like chance")
    model: str = _option("m", "names of the models served, comma-separated")
    dialect: str = _option("openai", "whose quirks to show", choices=DIALECTS)
    api_key: str = _option("", "key that requests must carry")

    latency: float = _option(0.0, "seconds to the first token")
    jitter: float = _option(0.0, "seconds added to the latency at most, by seed")
    token_rate: float = _option(0.0, "tokens a second after the first; 0 is no limit")
    capacity: int = _option(0, "requests worked on at once, the others wait; 0 is no limit")
    overload: int = _option(0, "requests in flight beyond which 503 is the answer; 0 is no limit")

    tokens: int = _option(64, "length of an answer in tokens, reasoning apart")
    answers: str = _option("", "JSON lines with `question` and `answer`: the questions the model knows")
    reply: str = _option("", "a fixed reply to everything")
    answer_format: str = _option("The answer is \\boxed{{{answer}}}.", "how an answer is put, a format string")
    wrong: float = _option(0.0, "rate of wrong answers, by seed and question")
    draws: str = _option("fixed", "fixed: the reply depends on the body; successive: also on how often it was asked",
                         choices=DRAWS)  # fmt: skip
    recorded: tuple[str, ...] = _option((), "FILE.jsonl of recorded replies; FILE.jsonl=FOLDER joins their ids with a "
                                        "benchmark's native folder", repeat=True)  # fmt: skip
    reasoning: str = _option("none", "where the reasoning goes", choices=REASONING)
    reasoning_length: int = _option(16, "length of the reasoning in tokens")
    hidden_reasoning: int = _option(0, "reasoning tokens that are counted in the usage and not shown")
    chunk_tokens: int = _option(1, "tokens an event when streaming")

    context: int = _option(0, "context length in tokens; 0 is no limit")
    older_words: bool = _option(False, "vllm: say an overflow in the words of versions before 0.20")
    top_logprobs: int = _option(20, "most alternatives a token that may be asked for")
    no_logprobs: bool = _option(False, "log-probs are left out without a word, as some servers do")
    logprobs_mode: bool = _option(False, "lmdeploy: launched with log-probs enabled")
    text_only: bool = _option(False, "pictures are refused as the dialect does")
    check_pictures: bool = _option(False, "decode every picture, refuse what is broken, note its size")
    unsupported: str = _option("", "parameters refused with 400, comma-separated (max_tokens,temperature,...)")

    fault: tuple[str, ...] = _option((), "KIND=RATE, by seed, body and try (kinds: faults.py)", repeat=True)
    fault_seed: int = _option(0, "of the faults")
    fault_when: tuple[str, ...] = _option((), "TEXT=KIND: a prompt with this text always gets this fault", repeat=True)
    script: str = _option("", "faults of the first tries of every body, comma-separated; `good` is none")
    retry_after: float = _option(0.2, "seconds that 429 and 503 name")
    retry_after_form: str = _option("seconds", "how Retry-After is said", choices=RETRY_AFTER)
    drip_pause: float = _option(0.2, "seconds between the twenty pieces of a slow drip")
    rate: float = _option(0.0, "requests a second that are let through (token bucket); 0 is no limit")
    burst: int = _option(100, "requests let through at once by the bucket")

    keep_bodies: bool = _option(False, "keep requests for /loopback/requests")
    journal: str = _option("", "file that gets one JSON line a request")
    hub: str = _option("", "folder served by the Hugging Face hub's protocol: ORG/NAME/files")
    hub_gated: str = _option("", "gated datasets, comma-separated ORG/NAME")
    hub_token: str = _option("", "token that may read the gated datasets")


def parser() -> argparse.ArgumentParser:
    """The command line made from Options."""
    made = argparse.ArgumentParser(
        prog="python -m tests.loopback",
        description="A local stand-in for model servers and the Hugging Face hub. Prints its URL on the first line.",
    )
    for field in dataclasses.fields(Options):
        flag = "--" + field.name.replace("_", "-")
        text = field.metadata["help"]
        if field.metadata.get("repeat"):
            made.add_argument(flag, action="append", default=[], help=text)
        elif field.default is False:
            made.add_argument(flag, action="store_true", help=text)
        else:
            made.add_argument(
                flag, type=type(field.default), default=field.default, choices=field.metadata.get("choices"), help=text
            )
    return made


def parse(words: Sequence[str] | None = None) -> Options:
    """Options from a command line."""
    values: dict[str, Any] = vars(parser().parse_args(words))
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Options(**values | lists)


def command_line(options: dict[str, Any]) -> list[str]:
    """The words that give these options; raises TypeError for a name that is none."""
    fields = {field.name: field for field in dataclasses.fields(Options)}
    words = []
    for name, value in options.items():
        if name not in fields:
            raise TypeError(f"the loopback server has no option {name!r}")
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words += [flag] if value else []
        elif isinstance(value, (list, tuple)):
            words += [f"{flag}={each}" for each in value]
        else:
            words.append(f"{flag}={value}")
    return words
