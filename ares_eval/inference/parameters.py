"""What a server refuses of a request's parameters, and what is sent instead.

Servers differ in the parameters they know: a reasoning model wants ``max_completion_tokens`` and refuses
``temperature``, a small context does not hold ``max_tokens``. A refusal that names a parameter renames or drops exactly
that one, for every later request to the model; a token limit is lowered for its request alone. Nothing else is
changed, nothing twice, and nothing that would silently change what is measured (log-probs, messages, ``extra_body``).
All functions are pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ares_eval.inference.failures import Fault
    from ares_eval.types import Sampling, WireMessage

RENAMES = {"max_tokens": "max_completion_tokens"}

DROPPABLE = frozenset({"temperature", "top_p", "top_k", "seed", "stop", "reasoning_effort", "stream_options"})
"""Without these a request still asks the same question; log-probs and token limits are not among them."""


@dataclass(frozen=True, slots=True)
class ContextLimit:
    """What a refusal says about size, in tokens: ``limit`` of prompt and completion together, ``prompt`` as counted
    (``exact``, or only "at least"), ``completion``: the most that may be asked for."""

    limit: int | None = None
    prompt: int | None = None
    completion: int | None = None
    exact: bool = True


@dataclass(frozen=True, slots=True)
class ParameterChanges:
    """What is sent otherwise than the sampling says.

    ``renamed`` and ``dropped`` hold for a model, ``max_tokens`` (None: as the sampling says) for one request.
    """

    renamed: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    max_tokens: int | None = None

    def __bool__(self) -> bool:
        return bool(self.renamed or self.dropped or self.max_tokens is not None)

    def __or__(self, other: ParameterChanges) -> ParameterChanges:
        """Both changes: requests in flight may each have learnt something. The smaller token limit holds."""
        limits = [limit for limit in (self.max_tokens, other.max_tokens) if limit is not None]
        return ParameterChanges(
            self.renamed | other.renamed, self.dropped | other.dropped, min(limits) if limits else None
        )

    def name(self, parameter: str) -> str:
        """The name under which a parameter is sent."""
        return RENAMES[parameter] if parameter in self.renamed else parameter

    def describe(self) -> Iterator[str]:
        """One clause a change, for people and for ``run.json``."""
        for parameter in sorted(self.renamed):
            yield f"{parameter} sent as {RENAMES[parameter]}"
        for parameter in sorted(self.dropped):
            yield f"{parameter} not sent"
        if self.max_tokens is not None:
            yield f"max_tokens lowered to {self.max_tokens}"


def adapt(fault: Fault, changes: ParameterChanges, sampling: Sampling) -> ParameterChanges | None:
    """What to change after a refused parameter, or None where nothing may be.

    ``changes`` are those that the refused request was sent with. The result differs from them by one parameter.
    """
    parameter = fault.parameter
    if parameter is None or parameter in sampling.extra_body or parameter in changes.dropped:
        return None
    if parameter in RENAMES and parameter not in changes.renamed and sampling.max_tokens is not None:
        return ParameterChanges(changes.renamed | {parameter}, changes.dropped, changes.max_tokens)
    if parameter in DROPPABLE and is_sent(parameter, sampling):
        return ParameterChanges(changes.renamed, changes.dropped | {parameter}, changes.max_tokens)
    return None


def is_sent(parameter: str, sampling: Sampling) -> bool:
    """Whether the sampling sends a parameter at all."""
    if parameter == "stream_options":
        return sampling.stream
    value: Any = getattr(sampling, parameter)
    return value is not None and value != ()


TOKENS_PER_TURN = 32
"""For the chat template, its default system prompt included."""

TOKENS_PER_PICTURE = 1500
"""A picture of the default largest area (1,048,576 pixels) takes 1,338 tokens of 28 x 28 pixels, and some around it."""


def estimate_prompt_tokens(messages: Sequence[WireMessage]) -> int:
    """An estimate from above of a prompt's tokens: two ASCII characters a token, and one and a half tokens for any
    other character (formulas and scripts that the tokenizer knows badly)."""
    tokens = 0.0
    for message in messages:
        tokens += TOKENS_PER_TURN
        for part in message.parts:
            if isinstance(part, str):
                ascii_only = len(part.encode("ascii", "ignore"))
                tokens += ascii_only / 2 + (len(part) - ascii_only) * 1.5
            else:
                tokens += TOKENS_PER_PICTURE
    return math.ceil(tokens)


def fit_max_tokens(
    fault: Fault, sampling: Sampling, changes: ParameterChanges | None = None, prompt_tokens: int | None = None
) -> int | None:
    """The largest ``max_tokens`` that fits after a refusal over the context's size, or None where nothing fits.

    Exact where the server counted the prompt. Where it only says "at least" (vLLM stops counting at what the asked
    tokens leave), ``prompt_tokens``, an estimate from above, is trusted once; without one, or when it was too small,
    the limit halves. The result is always at least 1 and smaller than what was asked, so trying again comes to an end.
    """
    asked = changes.max_tokens if changes is not None and changes.max_tokens is not None else sampling.max_tokens
    context = fault.context
    if asked is None or context is None:
        return None
    fits = asked
    if context.completion is not None:
        fits = min(fits, context.completion)
    if context.limit is not None:
        if context.prompt is not None and context.exact:
            fits = min(fits, context.limit - context.prompt)
        elif context.prompt is not None and context.prompt >= context.limit:
            return None
        elif prompt_tokens is not None and 0 < context.limit - prompt_tokens < asked:
            fits = min(fits, context.limit - prompt_tokens)
        elif asked >= context.limit:
            fits = min(fits, context.limit // 2)
        else:
            fits = min(fits, asked // 2)
    return fits if 1 <= fits < asked else None


# ---------------------------------------------------------------- reading a refusal

UNSUPPORTED_CODES = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter", "extra_forbidden"})
UNSUPPORTED = re.compile(
    r"unsupported (parameter|value|argument|field)|(does not|doesn't|do not) support|(is|are) not supported"
    r"|is unsupported|unrecognized (request )?argument|unknown (parameter|field|name|argument)|is deprecated"
    r"|unexpected (keyword|field|parameter|argument)|extra (inputs|fields) (are )?not permitted"
    r"|cannot both be specified",
    re.I,
)
KNOWN = (
    "max_completion_tokens", "max_tokens", "temperature", "top_p", "top_k", "top_logprobs", "logprobs", "seed",
    "stop", "reasoning_effort", "stream_options",
)  # fmt: skip


def refused_parameter(said: Mapping[str, Any], raw: str, codes: set[str]) -> str | None:
    """The parameter that is refused as such (not for its value), or None.

    ``param`` of the body where it names one, else the first parameter of ours in the message, quoted before bare.
    """
    if not (codes & UNSUPPORTED_CODES or UNSUPPORTED.search(raw)):
        return None
    if "cannot both be specified" in raw:  # Anthropic: temperature and top_p; the second is the finer knob
        return "top_p" if "top_p" in raw else None
    param = said.get("param")
    if isinstance(param, str) and param.rpartition(".")[2] in KNOWN:
        return param.rpartition(".")[2]
    for frame in (r"['\"`]{}['\"`]", r"(?<![\w.]){}(?!\w)"):
        found = [(match.start(), name) for name in KNOWN if (match := re.search(frame.format(name), raw))]
        if found:
            return min(found)[1]
    if isinstance(param, str) and re.fullmatch(r"[A-Za-z_][\w.]{0,60}", param):
        return param
    match = re.search(r"(?:argument|parameter|field|name)[^:'\"`]{0,40}[:\s]\s*['\"`]?([A-Za-z_]\w{0,60})['\"`]?", raw)
    return match[1] if match else None


CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
NUMBER = r"([\d,]+)"
LIMIT = [
    rf"maximum context (?:length|size|window)[^.;\d]{{0,40}}?{NUMBER}",
    rf"max_(?:model_len|total_tokens|seq_len)\w*\s*(?:=\s*max_total_tokens\s*)?[=:]\s*{NUMBER}",
    rf"available context size \({NUMBER}",
    rf"(?:session_len|context (?:window|limit|length|size))[^.;\d]{{0,30}}?{NUMBER}",
    rf"configured limit of {NUMBER}",
    rf"max_new_tokens`? must be <= {NUMBER}",
]
PROMPT = [
    rf"(?:you passed|contains)(?: at least)? {NUMBER} input tokens",
    rf"your (?:request|prompt) has {NUMBER} input tokens",
    rf"\({NUMBER} (?:tokens )?in (?:the|your) (?:messages|prompt|input)",
    rf"{NUMBER} tokens (?:from|in) the (?:input|messages|prompt)",
    rf"messages resulted in {NUMBER}",
    rf"request \({NUMBER} tokens\) exceeds",
    rf"given: {NUMBER} `?inputs`? tokens",
]
COMPLETION = [
    rf"supports at most {NUMBER} completion tokens",
    rf"valid range of max_tokens is \[\d+,\s*{NUMBER}\]",
    rf"max_tokens: \d+ > {NUMBER}, which is the maximum",
    rf"max(?:_completion)?_tokens\S* (?:must|should) be (?:<=|less than or equal to|at most) {NUMBER}",
]


def context_limit(said: Mapping[str, Any], raw: str, codes: set[str]) -> ContextLimit | None:
    """What a refusal says about sizes, or None where it is about something else."""
    limit, prompt, completion = (_first_number(patterns, raw) for patterns in (LIMIT, PROMPT, COMPLETION))
    own = (said.get("n_ctx"), said.get("n_prompt_tokens"))
    limit = own[0] if isinstance(own[0], int) else limit
    prompt = own[1] if isinstance(own[1], int) else prompt
    if limit is None and completion is None and not codes & CONTEXT_CODES:
        return None
    return ContextLimit(limit, prompt, completion, exact="at least" not in raw)


def _first_number(patterns: list[str], text: str) -> int | None:
    for pattern in patterns:
        match = re.search(pattern, text[:8192], re.I)
        if match and len(match[1]) <= 15 and match[1].strip(","):
            return int(match[1].replace(",", ""))
    return None
