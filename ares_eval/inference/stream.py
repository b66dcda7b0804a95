"""A streamed reply, put together from server-sent events as the bytes come in.

Chunks may be cut anywhere; line ends may be LF, CRLF or CR; comments and other fields are skipped. The end is the same
Reply as that of a plain answer. A stream that stops before the server said that it is done is Malformed, never a
short reply, and an error object among the events is the server's error.
"""

from __future__ import annotations

from ares_eval.inference.logprobs import Token
from ares_eval.inference.wire import Body, Counts, Malformed, assemble, content_text, decode_body
from ares_eval.types import Reply

DONE = b"[DONE]"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseReply:
    """The reply of one streaming request. Feed every chunk, then ask for the reply, once.

    ``logprobs`` and ``vocabulary`` as for ``decode_reply``.
    """

    def __init__(self, *, logprobs: int, vocabulary: int | None) -> None:
        self._logprobs = logprobs
        self._vocabulary = vocabulary
        self._line: list[bytes] = []
        self._after_cr = False
        self._started = False
        self._data: list[bytes] = []
        self._done = False
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._thinking: list[str] = []
        self._refusal: list[str] = []
        self._tokens: list[Token] = []
        self._finish_reason: str | None = None
        self._usage: Counts | None = None
        self._model: str | None = None
        self._fingerprint: str | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; raises Malformed or ServerSaidError as soon as they are seen."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            self._after_cr = False
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._line.append(line)
            whole = b"".join(self._line)
            self._line = []
            self._take(whole)
        if rest:
            self._line.append(rest)

    def reply(self) -> Reply:
        """The whole reply, once the stream has ended; raises as ``decode_reply`` does."""
        self._take(b"".join(self._line))
        self._take(b"")
        self._line = []
        if not self._done and self._finish_reason is None:
            raise Malformed("the stream ended before the reply did")
        return assemble(
            content="".join(self._content) or "".join(self._refusal),
            reasoning="".join(self._reasoning) or "".join(self._thinking),
            finish_reason=self._finish_reason,
            usage=self._usage,
            tokens=self._tokens,
            model=self._model,
            fingerprint=self._fingerprint,
            logprobs=self._logprobs,
            vocabulary=self._vocabulary,
        )

    def _take(self, line: bytes) -> None:
        if not self._started:
            line = line.removeprefix(BYTE_ORDER_MARK)
            self._started = True
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"error:"):  # llama.cpp's field of its own
            self._event(b'{"error":' + line[6:] + b"}", [line])
        elif not line and self._data:
            data, self._data = self._data, []
            self._event(b"\n".join(data), data)

    def _event(self, data: bytes, lines: list[bytes]) -> None:
        if data.strip() == DONE:
            self._done = True
            return
        if self._done or not data.strip():
            return
        try:
            self._add(decode_body(data))
        except Malformed:
            # Some servers end events by one line end instead of two.
            if len(lines) == 1:
                raise
            for line in lines:
                self._event(line, [line])

    def _add(self, chunk: Body) -> None:
        if chunk.usage is not None:
            self._usage = chunk.usage
        self._model = chunk.model or self._model
        self._fingerprint = chunk.system_fingerprint or self._fingerprint
        for choice in chunk.choices or ():
            if choice.index:
                continue
            said = choice.delta or choice.message
            if said is not None:
                text, thinking = content_text(said.content)
                self._content.append(text)
                self._thinking.append(thinking)
                self._reasoning.append(said.reasoning_content or said.reasoning or "")
                self._refusal.append(said.refusal or "")
            if choice.logprobs is not None and choice.logprobs.content:
                self._tokens += choice.logprobs.content
            if choice.finish_reason:
                self._finish_reason = choice.finish_reason
