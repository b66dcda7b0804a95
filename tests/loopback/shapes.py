"""The shape of a request as OpenAI's API reference gives it, checked by types; `ShapeError` names the parameter."""

from __future__ import annotations

import base64
import io
import re
from typing import Annotated, Any

import msgspec

MOST_STOPS = 4
MAGIC = {
    "image/png": (b"\x89PNG",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/jpg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF8",),
    "image/webp": (b"RIFF",),
}


class ShapeError(Exception):
    """A body that the API refuses."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class TextPart(msgspec.Struct, tag="text", tag_field="type"):
    text: str


class ImageUrl(msgspec.Struct):
    url: str
    detail: str = "auto"


class PicturePart(msgspec.Struct, tag="image_url", tag_field="type"):
    image_url: ImageUrl


class Message(msgspec.Struct):
    role: str
    content: str | list[TextPart | PicturePart] | None = None
    name: str | None = None
    reasoning_content: str | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool = False


PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class Sampling(msgspec.Struct):
    """What chat and plain completions have in common."""

    model: str
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None


class Chat(Sampling, kw_only=True):
    messages: list[Message]
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None


class OpenAIChat(Chat, kw_only=True, forbid_unknown_fields=True):
    """OpenAI refuses what it does not know; the others pass over it."""


class OpenChat(Chat, kw_only=True):
    """With the parameters that the open servers add."""

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    prompt_logprobs: int | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    return_logprob: bool | None = None
    mm_processor_kwargs: dict[str, Any] | None = None


class Completion(Sampling, kw_only=True):
    prompt: str | list[Any]
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None


class LlamaChat(OpenChat, kw_only=True):
    """llama.cpp takes any temperature."""

    temperature: float | None = None
    top_p: float | None = None


_chat = {
    "openai": msgspec.json.Decoder(OpenAIChat),
    "vllm": msgspec.json.Decoder(OpenChat),
    "llamacpp": msgspec.json.Decoder(LlamaChat),
    "lmdeploy": msgspec.json.Decoder(OpenChat),
}
_completion = msgspec.json.Decoder(Completion)
_where = re.compile(r"^(.*?)(?: - at `\$\.?(.*?)`)?$", re.DOTALL)
_unknown = re.compile(r"unknown field `(\w+)`")


def _decode(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        unknown = _unknown.search(str(error))
        if unknown:
            raise ShapeError(f"Unrecognized request argument supplied: {unknown[1]}") from None
        found = _where.match(str(error))
        assert found is not None
        param = found[2] or None
        raise ShapeError(f"Invalid type or value for '{param}': {found[1]}.", param, "invalid_type") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ShapeError(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
        ) from None


def read_chat(body: bytes, dialect: str) -> Chat:
    """A chat request; raises ShapeError. OpenAI refuses unknown parameters, the others pass over them."""
    chat: Chat = _decode(_chat[dialect], body)
    if not chat.messages:
        raise ShapeError("Invalid 'messages': empty array. Expected an array with minimum length 1.", "messages")
    for number, message in enumerate(chat.messages):
        _check_message(message, number)
    if chat.top_logprobs is not None and not chat.logprobs:
        raise ShapeError(
            "The 'logprobs' parameter must be true when 'top_logprobs' is given.", "top_logprobs", "invalid_value"
        )
    if chat.max_tokens is not None and chat.max_completion_tokens is not None and dialect == "openai":
        raise ShapeError(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            "max_tokens",
            "invalid_parameter_combination",
        )
    _check_common(chat)
    return chat


def read_completion(body: bytes) -> Completion:
    """A request for a plain completion; raises ShapeError."""
    completion: Completion = _decode(_completion, body)
    _check_common(completion)
    return completion


def _check_common(sampling: Sampling) -> None:
    if isinstance(sampling.stop, list) and len(sampling.stop) > MOST_STOPS:
        raise ShapeError("Invalid 'stop': array too long. Expected at most 4 items.", "stop", "array_above_max_length")
    if sampling.stream_options is not None and not sampling.stream:
        raise ShapeError("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")


def _check_message(message: Message, number: int) -> None:
    where = f"messages[{number}]"
    if message.role not in ("system", "developer", "user", "assistant", "tool"):
        raise ShapeError(f"Invalid value: '{message.role}'.", f"{where}.role", "invalid_value")
    if message.content is None and message.role != "assistant":
        raise ShapeError("Invalid value for 'content': expected a string, got null.", f"{where}.content")
    if isinstance(message.content, list):
        if not message.content:
            raise ShapeError("Invalid 'content': empty array.", f"{where}.content", "empty_array")
        for part in message.content:
            if isinstance(part, PicturePart):
                if message.role != "user":
                    raise ShapeError("Image URLs are only allowed for messages with role 'user'.", where)
                check_picture(part.image_url.url)


def check_picture(url: str) -> str:
    """Media type of a data URL whose head fits it; raises ShapeError for what the API would not take."""
    if not url.startswith("data:"):
        raise ShapeError(f"Error while downloading {url[:80]}.", "url", "invalid_image_url")
    head, comma, data = url.partition(",")
    media = head[5:].removesuffix(";base64")
    if not comma or not head.endswith(";base64") or media not in MAGIC:
        raise ShapeError(
            "You uploaded an unsupported image. Please make sure your image is valid.", code="invalid_image_format"
        )
    try:
        start = base64.b64decode(data[:32], validate=True)
    except ValueError:
        raise ShapeError("Invalid base64 image_url.", code="invalid_base64") from None
    if len(data) % 4 or not start.startswith(MAGIC[media]):
        raise ShapeError(f"The picture is not of the type {media}.", code="invalid_image_format")
    return media


def picture_size(url: str) -> tuple[str, int, int]:
    """Media type, width and height of a data URL's picture, decoded in full; raises ShapeError where it is broken."""
    from PIL import Image, UnidentifiedImageError

    media = check_picture(url)
    try:
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as picture:
            picture.load()
            actual = Image.MIME[picture.format or ""]
            size = picture.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        raise ShapeError("You uploaded an unsupported image.", code="invalid_image_format") from None
    if actual != media.replace("jpg", "jpeg"):
        raise ShapeError(f"The picture is {actual}, not {media}.", code="invalid_image_format")
    return media, *size


def prompt_text(messages: list[Message]) -> str:
    """All text of all turns."""
    return "\n".join(text_of(message) for message in messages)


def text_of(message: Message) -> str:
    """The text parts of a turn, joined."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content or () if isinstance(part, TextPart))


def pictures_of(messages: list[Message]) -> list[str]:
    """Data URLs of all pictures, in order."""
    return [
        part.image_url.url
        for message in messages
        if isinstance(message.content, list)
        for part in message.content
        if isinstance(part, PicturePart)
    ]
