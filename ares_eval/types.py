"""The vocabulary of ares_eval, as small frozen dataclasses.

Every room of the package speaks these words and no other: a Task yields Samples, a Sample asked once more is a
draw, a draw with its sampling parameters is a Request, its answer a Reply or a Failure, the decision over it a
Verdict, and all of it together one Record, a line of ``samples.jsonl``. Nothing here does any work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Json: TypeAlias = Any
"""A value that JSON can carry."""


# ---------------------------------------------------------------- questions


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text in a message."""

    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a question. Its bytes are read when they are needed and never kept by the sample.

    ``source`` says where it comes from, for people. ``read`` returns the file's original bytes and may block;
    it raises OSError where the picture cannot be had.
    """

    source: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class PicturePart:
    """A picture in a message, at its place among the texts."""

    picture: Picture


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn; ``parts`` in the order of the source."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[TextPart | PicturePart, ...]


@dataclass(frozen=True, slots=True)
class AnswerSpec:
    """What kind of answer is expected and by which policy it is compared.

    ``type`` is one of number, choice, latex, structured, list, yesno, date, text, multipart, or auto (guessed, and
    the verdict says so). ``policy`` holds the type's options (tolerance, digits, unit, multi, ordered, ...), as
    declared by the task. ``choices`` are the option texts, in the order of their letters A, B, C, ...
    """

    type: str = "auto"
    policy: Mapping[str, Json] = field(default_factory=dict)
    choices: tuple[str, ...] = ()


Ask: TypeAlias = Literal["reply", "likelihood"]
"""What is wanted of the model: a chat reply; or, of each (user, assistant) pair of the messages, the log-likelihood of
the assistant's text after the user's, both as plain text without a chat template. The reply's text is then the JSON
list of ``[log-likelihood in nats, whether greedy decoding would have said it]``, one for each pair."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question of a task.

    ``group`` is shared by the variants of one question and equals ``id`` where there are none. ``level`` is the
    dataset's own difficulty label. ``fields`` keeps the columns that breakdowns use (subject, category, ...).
    ``defaults``: settings of RunConfig that the question brings along, used where the user did not set them.
    """

    task: str
    id: str
    messages: tuple[Message, ...]
    reference: str | tuple[str, ...]
    answer: AnswerSpec
    group: str
    level: str | None = None
    fields: Mapping[str, Json] = field(default_factory=dict)
    ask: Ask = "reply"
    defaults: Mapping[str, Json] = field(default_factory=dict)


# ---------------------------------------------------------------- requests and replies


class PreparedPicture(Protocol):
    """A picture as it will be sent: known by content before it is encoded."""

    @property
    def digest(self) -> str:
        """Hash of the bytes that will be sent, or of the source bytes and the exact transformation."""

    def data_url(self) -> str:
        """``data:<media type>;base64,...``; may block, is memoised by digest, raises PictureError."""


class PictureError(Exception):
    """A picture that cannot be read or decoded."""


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A chat turn ready for the wire: texts and prepared pictures in order."""

    role: str
    parts: tuple[str | PreparedPicture, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of a request. None means: not sent, the server's default holds."""

    max_tokens: int | None = 8192
    temperature: float | None = 0.3
    top_p: float | None = 0.95
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int = 0
    reasoning_effort: str | None = None
    extra_body: Mapping[str, Json] = field(default_factory=dict)
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One draw of one sample. ``key`` is the content hash of everything that changes the reply."""

    task: str
    sample: str
    draw: int
    messages: tuple[WireMessage, ...]
    sampling: Sampling
    key: str
    ask: Ask = "reply"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them; ``estimated`` marks counts that we had to make ourselves."""

    prompt: int | None = None
    completion: int | None = None
    reasoning: int | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """Per generated token, arrays of one length T, in nats.

    ``logprob``: of the sampled token (NaN where the server did not say). ``entropy_low`` and ``entropy_high``: bounds
    of the entropy of the full next-token distribution given its top alternatives; ``entropy_high`` is NaN where
    the vocabulary's size is unknown. ``tail``: probability mass outside the alternatives. ``top``: number of
    alternatives used. ``end``: the last entry is an end-of-text token that is no part of the text.
    """

    tokens: tuple[str, ...]
    logprob: np.ndarray
    entropy_low: np.ndarray
    entropy_high: np.ndarray
    tail: np.ndarray
    top: int
    estimator: str
    vocabulary: int | None = None
    end: bool = False


FinishReason: TypeAlias = str
"""stop, length, content_filter, tool_calls, or the server's own word."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said to one request. ``latency``: seconds of the try that succeeded."""

    text: str
    reasoning: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage = Usage()
    model: str | None = None
    fingerprint: str | None = None
    latency: float = 0.0
    attempts: int = 1
    cached: bool = False
    trace: TokenTrace | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was not answered. ``cause`` is a short word that results count by.

    Causes: rate_limit, server, network, timeout, malformed, empty, refused, context, content_filter, picture,
    unsupported_input, no_logprobs, stopped. ``fatal`` means that no other request can succeed either (key refused,
    model unknown, quota used up) and the run stops.
    """

    cause: str
    message: str
    status: int | None = None
    attempts: int = 1
    fatal: bool = False


# ---------------------------------------------------------------- verdicts


VerdictValue: TypeAlias = Literal["correct", "incorrect", "unverifiable"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is right, and how that was decided.

    ``reason`` (for unverifiable, and for incorrect without an answer): no_answer, ambiguous, unparsed, over_budget,
    timeout, needs_judge, graded (a task's own scorer gave a number). ``method``: extraction rule and comparator, e.g.
    ``box>number:exact``. ``extracted`` and ``span``: the answer and its character range in the response.
    ``normalised``: (answer, reference) as compared.
    """

    value: VerdictValue
    method: str
    reason: str | None = None
    extracted: str | None = None
    span: tuple[int, int] | None = None
    normalised: tuple[str, str] | None = None
    type: str = "auto"
    guessed: bool = False
    version: str = ""
    seconds: float = 0.0


# ---------------------------------------------------------------- records


@dataclass(frozen=True, slots=True)
class TraceRef:
    """Where a token trace lies in the run's ``traces/``."""

    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Record:
    """One draw as it is kept: a line of ``samples.jsonl``. Exactly one of ``text`` and ``cause`` is set."""

    task: str
    sample: str
    draw: int
    group: str
    key: str
    prompt: str
    level: str | None = None
    fields: Mapping[str, Json] = field(default_factory=dict)
    reference: str | tuple[str, ...] = ""
    answer: AnswerSpec = AnswerSpec()
    text: str | None = None
    reasoning: str = ""
    finish_reason: str | None = None
    truncated: bool = False
    usage: Usage = Usage()
    latency: float | None = None
    attempts: int = 1
    cached: bool = False
    served_by: str | None = None
    trace: TraceRef | None = None
    verdict: Verdict | None = None
    cause: str | None = None
    message: str | None = None
    status: int | None = None

    @property
    def measured(self) -> bool:
        """False where the reply failed: such a record is never a wrong answer."""
        return self.cause is None
