"""What each server refuses or cuts, and in which words: contexts, log-probs, pictures, unsupported parameters.

Sources: OpenAI's error bodies as users report them; vLLM's `renderers/params.py`, `serving_engine.py` and
`sampling_params.py`; llama.cpp's server; lmdeploy's `validation.py`. A stub of their words, not of their minds.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.loopback import shapes
from tests.loopback.errors import refusal
from tests.loopback.http import Response
from tests.loopback.options import Options

NO_MMPROJ = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"


@dataclass(frozen=True, slots=True)
class Room:
    """How long an answer may be: the request's own limit and the context's, in tokens; None is no limit."""

    most: int | None
    context: int | None


def check(options: Options, chat: shapes.Chat, prompt_tokens: int) -> Response | None:
    """The error reply that the dialect gives to a well-shaped request, or None."""
    return (
        _unsupported(options, chat)
        or _pictures(options, chat)
        or _logprobs(options, chat)
        or _context(options, chat, prompt_tokens)
    )


def room(options: Options, chat: shapes.Chat, prompt_tokens: int) -> Room:
    """The limits on an accepted request's answer. llama.cpp and lmdeploy cut at the context without a word."""
    context = max(0, options.context - prompt_tokens) if options.context else None
    return Room(chat.max_completion_tokens or chat.max_tokens, context)


def _unsupported(options: Options, chat: shapes.Chat) -> Response | None:
    for name in filter(None, options.unsupported.split(",")):
        value = getattr(chat, name, None)
        if value is None or (name == "temperature" and value == 1):
            continue
        if name == "temperature":
            message = (
                f"Unsupported value: 'temperature' does not support {value:g} with this model. "
                "Only the default (1) value is supported."
            )
            return refusal(options.dialect, 400, message, param=name, code="unsupported_value")
        message = f"Unsupported parameter: '{name}' is not supported with this model."
        if name == "max_tokens":
            message += " Use 'max_completion_tokens' instead."
        return refusal(options.dialect, 400, message, param=name, code="unsupported_parameter")
    return None


def _pictures(options: Options, chat: shapes.Chat) -> Response | None:
    if not options.text_only or not shapes.pictures_of(chat.messages):
        return None
    match options.dialect:
        case "llamacpp":
            return refusal("llamacpp", 500, NO_MMPROJ, kind="server_error")
        case "vllm":
            return refusal("vllm", 400, "At most 0 image(s) may be provided in one prompt.")
        case _:
            message = "Invalid content type. image_url is only supported by certain models."
            return refusal(options.dialect, 400, message, param="messages", code=None)


def _logprobs(options: Options, chat: shapes.Chat) -> Response | None:
    asked = chat.top_logprobs or 0
    match options.dialect:
        case "lmdeploy" if not options.logprobs_mode and (chat.logprobs or asked):
            message = (
                f"Logprobs({chat.logprobs})/top_logprobs({asked}) requested but not enabled logprobs_mode in engine "
                "configuration"
            )
            return refusal("lmdeploy", 400, message)
        case "vllm" if asked > options.top_logprobs:
            message = f"Requested sample logprobs of {asked}, which is greater than max allowed: {options.top_logprobs}"
            return refusal("vllm", 400, message, param="logprobs")
        case "openai" | "lmdeploy" if asked > options.top_logprobs:
            message = (
                f"Invalid value for 'top_logprobs': must be less than or equal to {options.top_logprobs}, "
                f"got {asked} instead."
            )
            return refusal(options.dialect, 400, message, param="top_logprobs", code="integer_above_max_value")
    return None


def _context(options: Options, chat: shapes.Chat, prompt: int) -> Response | None:
    limit = options.context
    if not limit:
        return None
    asked = chat.max_completion_tokens or chat.max_tokens or 0
    match options.dialect:
        case "openai" if prompt > limit:
            message = (
                f"This model's maximum context length is {limit} tokens. However, your messages resulted in {prompt} "
                "tokens. Please reduce the length of the messages."
            )
            return refusal("openai", 400, message, param="messages", code="context_length_exceeded")
        case "openai" if asked > limit:
            name = "max_tokens" if chat.max_tokens else "max_completion_tokens"
            message = (
                f"{name} is too large: {asked}. This model supports at most {limit} completion tokens, whereas you "
                f"provided {asked}."
            )
            return refusal("openai", 400, message, param=name, code="invalid_value")
        case "openai" if prompt + asked > limit:
            message = _requested(limit, prompt, asked)
            return refusal("openai", 400, message, param="messages", code="context_length_exceeded")
        case "vllm" if asked > limit:
            if options.older_words:
                message = (
                    f"'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context "
                    f"length is {limit} tokens and your request has {prompt} input tokens "
                    f"({asked} > {limit} - {prompt})."
                )
                return refusal("vllm", 400, message)
            message = (
                f"max_tokens={asked} cannot be greater than max_model_len={limit}. Please request fewer output tokens."
            )
            return refusal("vllm", 400, message, param="max_tokens")
        case "vllm" if prompt + asked > limit or prompt >= limit:
            if options.older_words:
                return refusal("vllm", 400, _requested(limit, prompt, asked))
            message = (
                f"You passed {prompt} input tokens and requested {asked} output tokens. However, the model's context "
                f"length is only {limit} tokens, resulting in a maximum input length of {limit - asked} tokens. Please "
                "reduce the length of the input prompt."
            )
            return refusal("vllm", 400, message, param="input_tokens")
        case "llamacpp" if prompt >= limit:
            message = (
                f"request ({prompt} tokens) exceeds the available context size ({limit} tokens), try increasing it"
            )
            more = {"n_prompt_tokens": prompt, "n_ctx": limit}
            return refusal("llamacpp", 400, message, kind="exceed_context_size_error", more=more)
    return None


def _requested(limit: int, prompt: int, asked: int) -> str:
    return (
        f"This model's maximum context length is {limit} tokens. However, you requested {prompt + asked} tokens "
        f"({prompt} in the messages, {asked} in the completion). Please reduce the length of the messages or "
        "completion."
    )
