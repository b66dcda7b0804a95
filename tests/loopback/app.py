"""The loopback server: routes, and the way of a model request through limits, faults, latency and the model."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from tests.loopback import chat as bodies
from tests.loopback import completion, dialects, errors, shapes
from tests.loopback.faults import AT_ONCE, fault_plan
from tests.loopback.http import Answer, HttpRequest, Response, Stream, serving
from tests.loopback.hub import Hub
from tests.loopback.journal import Journal
from tests.loopback.limits import Bucket
from tests.loopback.model import Model, Plan
from tests.loopback.options import Options
from tests.loopback.recorded import Recordings
from tests.loopback.text import count, joined, tokenise, unit

PIXELS_A_TOKEN = 28


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
        self.recordings = Recordings(options.recorded) if options.recorded else None
        self.journal = Journal(options.journal, options.keep_bodies)
        self.faults = fault_plan(options.fault_seed, options.fault, options.script, options.fault_when)
        self.bucket = Bucket(options.rate, options.burst)
        self.seats = asyncio.Semaphore(options.capacity) if options.capacity else None
        self.hub = Hub(options) if options.hub else None
        self.made = 0

    # ------------------------------------------------------------ routes

    async def handle(self, request: HttpRequest) -> Answer:
        """Answer one request."""
        path = request.path.rstrip("/")
        match (request.method, path):
            case ("POST", "/v1/chat/completions"):
                return await self.ask(request, self._chat)
            case ("POST", "/v1/completions"):
                return await self.ask(request, self._complete)
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
                return self._denied(request) or _json({"object": "list", "data": list(map(self._card, self.models))})
            case ("GET", _) if path.startswith("/v1/models/"):
                name = path.removeprefix("/v1/models/")
                known = name in self.models
                return _json(self._card(name)) if known else errors.unknown_model(self.options.dialect, name)
        if self.hub is not None:
            return self.hub.answer(request)
        message = f"Invalid URL ({request.method} {path})"
        return errors.refusal(self.options.dialect, 404, message, kind="invalid_request_error")

    def _card(self, name: str) -> dict[str, Any]:
        card: dict[str, Any] = {"id": name, "object": "model", "created": bodies.CREATED, "owned_by": "loopback"}
        length = self.options.context or 8192
        match self.options.dialect:
            case "vllm":
                card |= {"owned_by": "vllm", "root": name, "parent": None, "max_model_len": length}
            case "llamacpp":
                card |= {"owned_by": "llamacpp", "meta": {"n_ctx": length, "n_vocab": 49152}}
            case "lmdeploy":
                card |= {"owned_by": "lmdeploy", "root": name, "parent": None}
        return card

    def _denied(self, request: HttpRequest) -> Response | None:
        if not self.options.api_key or request.headers.get("authorization") == f"Bearer {self.options.api_key}":
            return None
        return errors.bad_key(self.options.dialect)

    # ------------------------------------------------------------ a model request

    async def ask(self, request: HttpRequest, work: Any) -> Answer:
        """The whole way of a model request, noted in the journal whatever becomes of it."""
        note = _Note(self.journal, request)
        try:
            answer = self._denied(request) or self._limited() or await work(request.body, note)
        except Refused as refused:
            answer = refused.response
        except BaseException:
            note.close(None)
            raise
        if isinstance(answer, Stream):
            answer.chunks = _noted(answer.chunks, note)
        else:
            note.close(answer.status if isinstance(answer, Response) else None, note.good)
        return answer

    def _limited(self) -> Response | None:
        options = self.options
        if options.overload and self.journal.in_flight > options.overload:
            return errors.too_busy(options, 503, options.retry_after_form)
        if not self.bucket.take():
            return errors.too_busy(options, 429, options.retry_after_form)
        return None

    def _fault(self, kind: str | None, note: _Note) -> Answer | None:
        """The answer to a fault that needs no reply to spoil."""
        note.fault = kind
        return None if kind is None else errors.early_fault(kind, self.options)

    async def _chat(self, body: bytes, note: _Note) -> Answer:
        """A chat completion, or what goes wrong with it."""
        options = self.options
        fault = self.faults.decide(note.body, note.attempt)
        if fault in AT_ONCE and (refused := self._fault(fault, note)):
            return refused
        chat, prompt_tokens = self._read(body)
        prompt = shapes.text_of(chat.messages[-1])
        fault = fault or self.faults.for_prompt(prompt)
        if fault in AT_ONCE and (refused := self._fault(fault, note)):
            return refused
        choices = self._choices(chat, prompt, prompt_tokens, note.attempt)
        self.made += 1
        form = self._form(chat, prompt, prompt_tokens)
        streaming = bool(chat.stream) and fault is None
        await self._think(note, 0 if streaming else max(choice.tokens for choice in choices))
        if streaming:
            usage = chat.stream_options is not None and chat.stream_options.include_usage
            return Stream(self._paced(form, choices, usage))
        spoilt = self._fault(fault, note)
        if spoilt is not None:
            return spoilt
        good = bodies.whole(form, choices)
        note.good = fault is None
        return Response(200, good) if fault is None else errors.late_fault(fault, options, good, form)

    async def _complete(self, body: bytes, note: _Note) -> Answer:
        """A plain completion."""
        try:
            asked = shapes.read_completion(body)
        except shapes.ShapeError as error:
            raise Refused(self._shape_refusal(error)) from None
        if asked.model not in self.models and self.options.dialect != "llamacpp":
            raise Refused(errors.unknown_model(self.options.dialect, asked.model))
        if asked.stream:
            raise Refused(errors.refusal(self.options.dialect, 400, "This stub does not stream plain completions."))
        plans = [self.model.plan(prompt, asked.seed or 0) for prompt in completion.prompts_of(asked.prompt)]
        answers = [[*plan.filler, *plan.tail] for plan in plans]
        await self._think(note, max(map(len, answers), default=0))
        fault = self.faults.decide(note.body, note.attempt)
        spoilt = self._fault(fault, note)
        if spoilt is not None:
            return spoilt
        self.made += 1
        reply_id = f"cmpl-{self.made}"
        note.good = True
        return Response(200, completion.whole(asked, answers, self.options.dialect, self.options.seed, reply_id))

    async def _think(self, note: _Note, tokens: int) -> None:
        """Take a seat, then the time that the answer needs."""
        options = self.options
        delay = options.latency
        if options.jitter:
            delay += options.jitter * unit(options.seed, "jitter", note.body.hex(), note.attempt)
        if options.token_rate:
            delay += tokens / options.token_rate
        if self.seats is not None:
            async with self.seats:
                await asyncio.sleep(delay)
        elif delay:
            await asyncio.sleep(delay)

    def _shape_refusal(self, error: shapes.ShapeError) -> Response:
        # A picture that cannot be fetched is vLLM's own fault, as vLLM sees it.
        status = 500 if self.options.dialect == "vllm" and error.code == "invalid_image_url" else 400
        return errors.refusal(self.options.dialect, status, str(error), param=error.param, code=error.code)

    def _read(self, body: bytes) -> tuple[shapes.Chat, int]:
        """The request and the length of its prompt in tokens; raises Refused."""
        options = self.options
        try:
            chat = shapes.read_chat(body, options.dialect)
            tokens = count(shapes.prompt_text(chat.messages))
            if options.check_pictures:
                for url in shapes.pictures_of(chat.messages):
                    media, width, height = shapes.picture_size(url)
                    self.journal.pictures[f"{media} {width}x{height}"] += 1
                    tokens += -(-width // PIXELS_A_TOKEN) * -(-height // PIXELS_A_TOKEN)
        except shapes.ShapeError as error:
            raise Refused(self._shape_refusal(error)) from None
        if chat.model not in self.models and options.dialect != "llamacpp":
            raise Refused(errors.unknown_model(options.dialect, chat.model))
        refused = dialects.check(options, chat, tokens)
        if refused is not None:
            raise Refused(refused)
        return chat, tokens

    def _choices(self, chat: shapes.Chat, prompt: str, prompt_tokens: int, attempt: int) -> list[bodies.Choice]:
        """The answers; raises Refused where recordings know none."""
        room = dialects.room(self.options, chat, prompt_tokens)
        if self.recordings is not None:
            recording = self.recordings.find(prompt, shapes.pictures_of(chat.messages))
            if recording is None:
                raise Refused(errors.refusal(self.options.dialect, 422, "No reply to this question was recorded."))
            texts = [self.recordings.draw(recording, chat.seed) for _ in range(chat.n or 1)]
            # An empty reply still cost its end token.
            plans = [Plan((), (), tuple(tokenise(text)) or (b"",)) for text in texts]
        else:
            draw = chat.seed if chat.seed is not None else attempt if self.options.draws == "successive" else 0
            plans = [self.model.plan(prompt, draw + number) for number in range(chat.n or 1)]
        return [cut(plan, chat.stop, room) for plan in plans]

    def _form(self, chat: shapes.Chat, prompt: str, prompt_tokens: int) -> bodies.Form:
        options = self.options
        more: dict[str, Any] = {}
        if isinstance(chat, shapes.OpenChat):
            more = {
                "token_ids": bool(chat.return_tokens_as_token_ids),
                "return_ids": bool(chat.return_token_ids),
                "return_logprob": bool(chat.return_logprob),
                "prompt_logprobs": None
                if chat.prompt_logprobs is None
                else tuple(tokenise(shapes.prompt_text(chat.messages))),
                "prompt_top": chat.prompt_logprobs or 0,
            }
        return bodies.Form(
            dialect=options.dialect,
            model=chat.model,
            reply_id=f"chatcmpl-{self.made}",
            reasoning=options.reasoning,
            logprobs=bool(chat.logprobs) and not options.no_logprobs,
            top=chat.top_logprobs,
            key=str(options.seed),
            hidden_reasoning=options.hidden_reasoning,
            prompt_tokens=prompt_tokens,
            chunk_tokens=options.chunk_tokens,
            **more,
        )

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


def cut(plan: Plan, stop: str | list[str] | None, room: dialects.Room) -> bodies.Choice:
    """The plan cut at the stop sequences and at the most tokens allowed."""
    reasoning, filler, tail, finish = plan.reasoning, plan.filler, plan.tail, "stop"
    stops = [stop] if isinstance(stop, str) else stop or []
    if stops:
        text = joined([*filler, *tail])
        at = min((found for each in stops if each and (found := text.find(each)) >= 0), default=None)
        if at is not None:
            filler, tail = (), tuple(tokenise(text[:at]))
    most = min((limit for limit in (room.most, room.context) if limit is not None), default=None)
    if most is not None and len(reasoning) + len(filler) + len(tail) > most:
        finish = "length"
        reasoning = reasoning[:most]
        filler = filler[: most - len(reasoning)]
        tail = tail[: most - len(reasoning) - len(filler)]
    return bodies.Choice(reasoning, filler, tail, finish)


class _Note:
    """What the journal is told of one request: that it came, and once what became of it."""

    def __init__(self, journal: Journal, request: HttpRequest) -> None:
        self.journal = journal
        self.body = hashlib.blake2b(request.body, digest_size=12).digest()
        self.attempt = journal.ask(self.body)
        self.fault: str | None = None
        self.good = False
        self.open = True
        if journal.keep_bodies:
            kept = {"path": request.path, "headers": request.headers, "attempt": self.attempt, "peer": request.peer}
            journal.kept.append(kept | {"body": request.body.decode(errors="replace")})

    def close(self, status: int | None, good: bool = False) -> None:
        """Tell the journal; ``status`` None: the client has not got a whole reply."""
        if self.open:
            self.open = False
            self.journal.answer(self.body, status, self.fault, good)


async def _noted(chunks: AsyncIterator[bytes], note: _Note) -> AsyncIterator[bytes]:
    """The chunks; the journal is told when all were taken, or that the client went away."""
    try:
        async for chunk in chunks:
            yield chunk
        note.close(200, good=True)
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
