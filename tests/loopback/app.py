"""The loopback server: routes, and the way of a model request through limits, faults, latency and the model."""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from tests.loopback import chat as bodies
from tests.loopback import shapes
from tests.loopback.errors import refusal
from tests.loopback.faults import AT_ONCE, fault_plan
from tests.loopback.http import Answer, Cut, Drip, HttpRequest, Reset, Response, Silence, Stream, serving
from tests.loopback.journal import Journal
from tests.loopback.limits import Bucket
from tests.loopback.model import Model, Plan
from tests.loopback.options import Options
from tests.loopback.text import count, joined, unit

DRIP_PIECES = 20


class Refused(Exception):
    """A request that is answered with an error reply."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Loopback:
    """One server: settings, model, journal."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.models = [name for name in options.model.split(",") if name]
        self.model = Model(options)
        self.journal = Journal(options.journal, options.keep_bodies)
        self.faults = fault_plan(options.fault_seed, options.fault, options.script, options.fault_when)
        self.unsupported = frozenset(name for name in options.unsupported.split(",") if name)
        self.bucket = Bucket(options.rate, options.burst)
        self.seats = asyncio.Semaphore(options.capacity) if options.capacity else None
        self.made = 0

    # ------------------------------------------------------------ routes

    async def handle(self, request: HttpRequest) -> Answer:
        """Answer one request."""
        path = request.path.rstrip("/")
        match (request.method, path):
            case ("POST", "/v1/chat/completions"):
                return await self.ask(request)
            case ("GET", "/loopback/stats"):
                return _json(self.journal.stats(bodies="bodies" in request.query))
            case ("POST", "/loopback/reset"):
                self.journal.reset()
                self.bucket = Bucket(self.options.rate, self.options.burst)
                return _json({"reset": True})
            case ("GET", "/loopback/requests"):
                return _json(self.journal.kept)
        self.journal.other[f"{request.method} {path}"] += 1
        match (request.method, path):
            case ("GET", "/health"):
                return _json({"status": "ok"})
            case ("GET", "/v1/models"):
                return self._check_key(request) or _json({"object": "list", "data": list(map(self._card, self.models))})
            case ("GET", _) if path.startswith("/v1/models/"):
                name = path.removeprefix("/v1/models/")
                return _json(self._card(name)) if name in self.models else self._unknown_model(name)
        return refusal(
            self.options.dialect, 404, f"Invalid URL ({request.method} {path})", kind="invalid_request_error"
        )

    def _card(self, name: str) -> dict[str, Any]:
        card: dict[str, Any] = {"id": name, "object": "model", "created": bodies.CREATED, "owned_by": "loopback"}
        match self.options.dialect:
            case "vllm":
                card |= {
                    "owned_by": "vllm",
                    "root": name,
                    "parent": None,
                    "max_model_len": self.options.context or 8192,
                }
            case "llamacpp":
                card |= {"owned_by": "llamacpp", "meta": {"n_ctx": self.options.context or 8192, "n_vocab": 49152}}
            case "lmdeploy":
                card |= {"owned_by": "lmdeploy", "root": name, "parent": None}
        return card

    def _check_key(self, request: HttpRequest) -> Response | None:
        if not self.options.api_key or request.headers.get("authorization") == f"Bearer {self.options.api_key}":
            return None
        return self._bad_key()

    def _bad_key(self) -> Response:
        return refusal(
            self.options.dialect,
            401,
            "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
            code="invalid_api_key",
            kind="invalid_request_error",
        )

    def _unknown_model(self, name: str) -> Response:
        return refusal(
            self.options.dialect,
            404,
            f"The model `{name}` does not exist or you do not have access to it.",
            code="model_not_found",
            kind="invalid_request_error",
        )

    # ------------------------------------------------------------ a model request

    async def ask(self, request: HttpRequest) -> Answer:
        """The whole way of a model request, noted in the journal whatever becomes of it."""
        body = hashlib.blake2b(request.body, digest_size=12).digest()
        attempt = self.journal.ask(body)
        if self.journal.keep_bodies:
            self.journal.kept.append(
                {
                    "headers": request.headers,
                    "body": msgspec.Raw(request.body),
                    "attempt": attempt,
                    "peer": request.peer,
                }
            )
        note = _Note(self.journal, body)
        try:
            answer = await self._answer(request, body, attempt, note)
        except Refused as refused:
            answer = refused.response
        except BaseException:
            note.close(None)
            raise
        match answer:
            case Response():
                note.close(answer.status)
            case Stream():
                answer.chunks = _noted(answer.chunks, note)
            case _:
                note.close(None)
        return answer

    async def _answer(self, request: HttpRequest, body: bytes, attempt: int, note: _Note) -> Answer:
        options = self.options
        denied = self._check_key(request)
        if denied is not None:
            return denied
        if options.overload and self.journal.in_flight > options.overload:
            return self._too_busy(503, options.retry_after_form)
        if not self.bucket.take():
            return self._too_busy(429, options.retry_after_form)
        fault = self.faults.decide(body, attempt)
        if fault in AT_ONCE:
            return self._fault(fault, note)
        chat, prompt = self._read(request.body)
        fault = fault or self.faults.for_prompt(prompt)
        if fault in AT_ONCE:
            return self._fault(fault, note)
        if self.seats is not None:
            async with self.seats:
                return await self._work(chat, prompt, body, attempt, fault, note)
        return await self._work(chat, prompt, body, attempt, fault, note)

    def _read(self, body: bytes) -> tuple[shapes.Chat, str]:
        """The request and the text of its last turn; raises Refused."""
        options = self.options
        try:
            chat = shapes.read_chat(body, options.dialect)
        except shapes.ShapeError as error:
            raise Refused(refusal(options.dialect, 400, str(error), param=error.param, code=error.code)) from None
        if chat.model not in self.models and options.dialect != "llamacpp":
            raise Refused(self._unknown_model(chat.model))
        return chat, shapes.text_of(chat.messages[-1])

    async def _work(
        self, chat: shapes.Chat, prompt: str, body: bytes, attempt: int, fault: str | None, note: _Note
    ) -> Answer:
        """Think, then answer or fail."""
        options = self.options
        asked = chat.seed if chat.seed is not None else attempt if options.draws == "successive" else 0
        choices = [self._choice(chat, self.model.plan(prompt, asked + number)) for number in range(chat.n or 1)]
        self.made += 1
        form = bodies.Form(
            dialect=options.dialect,
            model=chat.model,
            reply_id=f"chatcmpl-{self.made}",
            reasoning=options.reasoning,
            logprobs=bool(chat.logprobs) and not options.no_logprobs,
            top=chat.top_logprobs,
            key=str(options.seed),
            hidden_reasoning=options.hidden_reasoning,
            prompt_tokens=count(shapes.prompt_text(chat.messages)),
            chunk_tokens=options.chunk_tokens,
        )
        delay = options.latency + options.jitter * unit(options.seed, "jitter", body.hex(), attempt)
        if chat.stream and fault is None:
            include_usage = chat.stream_options is not None and chat.stream_options.include_usage
            await asyncio.sleep(delay)
            return Stream(self._paced(form, choices, include_usage))
        if options.token_rate:
            delay += max(choice.tokens for choice in choices) / options.token_rate
        if delay:
            await asyncio.sleep(delay)
        good = Response(200, bodies.whole(form, choices))
        if fault is None:
            note.good = True
            return good
        return self._fault(fault, note, good, form)

    def _choice(self, chat: shapes.Chat, plan: Plan) -> bodies.Choice:
        """The plan cut at the stop sequences and at the most tokens allowed."""
        reasoning, filler, tail, finish = plan.reasoning, plan.filler, plan.tail, "stop"
        stops = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
        if stops:
            text = joined([*filler, *tail])
            at = min((found for stop in stops if stop and (found := text.find(stop)) >= 0), default=None)
            if at is not None:
                filler, tail = (), (text[:at].encode(),)
        most = chat.max_completion_tokens or chat.max_tokens
        if most is not None and len(reasoning) + len(filler) + len(tail) > most:
            finish = "length"
            reasoning = reasoning[:most]
            filler = filler[: most - len(reasoning)]
            tail = tail[: most - len(reasoning) - len(filler)]
        return bodies.Choice(reasoning, filler, tail, finish)

    async def _paced(
        self, form: bodies.Form, choices: list[bodies.Choice], include_usage: bool
    ) -> AsyncIterator[bytes]:
        """The events of a stream at the token rate; without one, as fast as they are taken."""
        start, tokens = time.monotonic(), 0
        for event, size in bodies.chunks(form, choices, include_usage):
            tokens += size
            if self.options.token_rate:
                ahead = start + tokens / self.options.token_rate - time.monotonic()
                if ahead > 0:
                    await asyncio.sleep(ahead)
            yield event

    # ------------------------------------------------------------ what goes wrong

    def _too_busy(self, status: int, form: str) -> Response:
        seconds = self.options.retry_after
        headers = {}
        if form == "seconds":
            headers["Retry-After"] = f"{seconds:g}"
        elif form == "date":
            headers["Retry-After"] = email.utils.formatdate(time.time() + seconds, usegmt=True)
        if status == 429:
            message = "Rate limit reached for requests. Please try again later."
            return refusal(
                self.options.dialect, 429, message, code="rate_limit_exceeded", kind="requests", headers=headers
            )
        message = "The engine is currently overloaded, please try again later."
        return refusal(self.options.dialect, status, message, headers=headers)

    def _fault(self, kind: str, note: _Note, good: Response | None = None, form: bodies.Form | None = None) -> Answer:
        """What is answered in place of a good reply."""
        note.fault = kind
        dialect = self.options.dialect
        match kind:
            case "429" | "429-date" | "429-bare":
                return self._too_busy(429, {"429": "seconds", "429-date": "date", "429-bare": "none"}[kind])
            case "503" | "503-date":
                return self._too_busy(503, "date" if kind.endswith("date") else "seconds")
            case "408":
                return refusal(dialect, 408, "Request timed out.")
            case "quota":
                message = "You exceeded your current quota, please check your plan and billing details."
                return refusal(dialect, 429, message, code="insufficient_quota", kind="insufficient_quota")
            case "401":
                return self._bad_key()
            case "403":
                return refusal(dialect, 403, "You are not allowed to use this model.", code="permission_denied")
            case "no-model":
                return self._unknown_model(self.models[0])
            case "hang":
                return Silence()
            case "409":
                return refusal(dialect, 409, "The resource is busy.", code="conflict")
            case "500":
                return refusal(dialect, 500, "The server had an error while processing your request. Sorry about that!")
            case "502-html":
                return Response(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", content_type="text/html")
            case "reset":
                return Reset()
            case "empty-body":
                return Response(200, b"")
            case "filter-400":
                message = "The response was filtered due to the prompt triggering the content management policy."
                return refusal(dialect, 400, message, code="content_filter", param="prompt")
        assert good is not None
        assert form is not None
        assert isinstance(good.body, bytes)
        match kind:
            case "reset-mid":
                return Reset(good)
            case "empty":
                return Response(200, bodies.empty(form))
            case "malformed":
                return Response(200, good.body[: len(good.body) * 2 // 3])
            case "truncated":
                return Cut(good)
            case "drip":
                note.good = True
                return Drip(good, DRIP_PIECES, self.options.drip_pause)
            case "filter":
                return Response(200, bodies.whole(form, [bodies.Choice((), (), (), "content_filter")]))
        raise AssertionError(kind)


class _Note:
    """What the journal is told at the end of a request, once."""

    def __init__(self, journal: Journal, body: bytes) -> None:
        self.journal = journal
        self.body = body
        self.fault: str | None = None
        self.good = False
        self.open = True

    def close(self, status: int | None) -> None:
        """Tell the journal."""
        if self.open:
            self.open = False
            self.journal.answer(self.body, status, self.fault, self.good)


async def _noted(chunks: AsyncIterator[bytes], note: _Note) -> AsyncIterator[bytes]:
    """The chunks; the journal is told when all were taken, or that the client went away."""
    try:
        async for chunk in chunks:
            yield chunk
        note.good = note.fault is None
        note.close(200)
    finally:
        note.close(None)


def _json(value: Any) -> Response:
    return Response(200, msgspec.json.encode(value))


async def run(options: Options) -> None:
    """Serve until cancelled; prints the URL on the first line."""
    server = Loopback(options)
    async with serving(server.handle, options.host, options.port, server.journal.traffic) as (host, port):
        print(f"http://{host}:{port}", flush=True)
        await asyncio.Event().wait()
