"""Our transformers server's own process: OpenAI's chat API over one Hugging Face checkpoint, text and pictures.

``python -m ares_eval.inference.servers.hf_child --model PATH --name NAME --announce FILE [--port N] [--context N]
[--dtype NAME] [--device NAME] [--threads N]``. For tiny checkpoints and tests: exact log-probs and entropies and
repeatable draws matter, speed does not. One request is generated at a time, its draws side by side; the others wait. A
request whose client has gone is dropped at its next token.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import json
import logging
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web

from ares_eval import __version__
from ares_eval.inference.servers import hf_generate, hf_model, hf_wire
from ares_eval.inference.servers.hf_generate import Cancelled, Draw, Token
from ares_eval.inference.servers.process import HOST, available_cores
from ares_eval.inference.servers.weights import write_atomically

MAX_BODY = 256 * 2**20
OWNER = "ares"
_log = logging.getLogger(__name__)


def arguments() -> argparse.ArgumentParser:
    """What the server can be told (`--serve-args`)."""
    parser = argparse.ArgumentParser(prog="transformers server", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--announce", required=True, type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--context", type=int, default=None, help="tokens of prompt and answer, if less than the model's"
    )
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16", "auto"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=max(1, available_cores() - 1))
    return parser


class ChatServer:
    """The HTTP side; the model itself is only touched in the one thread of ``_model_thread``."""

    def __init__(self, chat: hf_model.ChatModel, name: str) -> None:
        self.chat, self.name = chat, name
        self._model_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._token_text = functools.lru_cache(maxsize=None)(lambda number: chat.tokenizer.decode([number]))
        self.app = web.Application(client_max_size=MAX_BODY)
        self.app.router.add_get("/health", self.health)
        self.app.router.add_get("/version", self.version)
        self.app.router.add_get("/v1/models", self.models)
        self.app.router.add_post("/v1/chat/completions", self.completions)

    async def health(self, _request: web.Request) -> web.Response:
        """The model was loaded before this server listened."""
        return web.json_response({"status": "ok"})

    async def version(self, _request: web.Request) -> web.Response:
        """Versions of everything that makes the replies."""
        return web.json_response({"version": fingerprint()})

    async def models(self, _request: web.Request) -> web.Response:
        """The one model, with the context and vocabulary that clients ask for."""
        entry = {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": OWNER,
            "max_model_len": self.chat.context,
            "meta": {"n_ctx": self.chat.context, "n_vocab": self.chat.vocabulary},
        }
        return web.json_response({"object": "list", "data": [entry]})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """One chat request, plain or streamed."""
        try:
            try:
                body = await request.json()
            except (ValueError, RecursionError) as error:
                raise hf_wire.Refused(f"the body is no JSON: {error}") from error
            asked = hf_wire.read(body, self.name, takes_pictures=self.chat.takes_pictures)
            if asked.stream:
                return await self._stream(request, asked)
            prompt, draws = await self._run(asked, lambda *_: None, lambda _: None)
            return web.json_response(
                {
                    **self._head("chat.completion"),
                    "choices": [
                        hf_wire.choice(i, draw, self._names(draw.tokens, asked)) for i, draw in enumerate(draws)
                    ],
                    "usage": hf_wire.usage(prompt, draws),
                }
            )
        except hf_wire.Refused as error:
            return web.json_response(error.body(), status=error.status)

    async def _stream(self, request: web.Request, asked: hf_wire.Asked) -> web.StreamResponse:
        """Server-sent events, one a token; the headers wait for the prompt, so that a refusal keeps its status."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        head = self._head("chat.completion.chunk")

        def put(chunk: dict[str, Any] | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, chunk)

        def on_token(number: int, text: str, token: Token) -> None:
            names = self._names([token], asked)
            logprobs = None if names is None else {"content": [hf_wire.entry(token, names)]}
            put(_chunk(head, number, {"content": text}, logprobs=logprobs))

        def on_prompt(_tokens: int) -> None:
            for number in range(asked.sampling.draws):
                put(_chunk(head, number, {"role": "assistant", "content": ""}))

        running = asyncio.ensure_future(self._run(asked, on_token, on_prompt))
        running.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            first = await queue.get()
            if first is None:
                await running
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
            await response.prepare(request)
            chunk = first
            while chunk is not None:
                await response.write(_event(chunk))
                chunk = await queue.get()
            prompt, draws = await running
            for number, draw in enumerate(draws):
                await response.write(_event(_chunk(head, number, {}, finish=draw.finish)))
            if asked.include_usage:
                await response.write(_event({**head, "choices": [], "usage": hf_wire.usage(prompt, draws)}))
            await response.write(b"data: [DONE]\n\n")
            await response.write_eof()
            return response
        finally:
            running.cancel()

    async def _run(
        self,
        asked: hf_wire.Asked,
        on_token: Callable[[int, str, Token], None],
        on_prompt: Callable[[int], None],
    ) -> tuple[int, list[Draw]]:
        """(prompt tokens, draws), generated in the model's thread; ends there soon where this task is cancelled."""
        cancelled = threading.Event()
        work = functools.partial(self._generate, asked, on_token, on_prompt, cancelled)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._model_thread, work)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def _generate(
        self,
        asked: hf_wire.Asked,
        on_token: Callable[[int, str, Token], None],
        on_prompt: Callable[[int], None],
        cancelled: threading.Event,
    ) -> tuple[int, list[Draw]]:
        pictures = [hf_wire.decode_picture(data) for data in asked.pictures]
        try:
            inputs = self.chat.encode(asked.messages, pictures, asked.template_options)
        except hf_model.BadPrompt as error:
            raise hf_wire.Refused(str(error), "messages") from error
        prompt = int(inputs["input_ids"].shape[1])
        sampling = dataclasses.replace(asked.sampling, max_tokens=self._room(prompt, asked.max_tokens))
        on_prompt(prompt)
        try:
            return prompt, hf_generate.generate(self.chat, inputs, sampling, on_token, cancelled)
        except Cancelled:
            _log.info("a client has gone; its request was dropped")
            return prompt, []

    def _room(self, prompt: int, wanted: int | None) -> int:
        """Tokens that may be generated; raises Refused where prompt and answer do not fit the context."""
        limit = self.chat.context
        if prompt + (wanted or 1) > limit:
            asked = f"{prompt + (wanted or 0)} tokens ({prompt} in the messages, {wanted or 0} in the completion)"
            raise hf_wire.Refused(
                f"This model's maximum context length is {limit} tokens. However, you requested {asked}.",
                "messages" if prompt >= limit else "max_tokens",
                "context_length_exceeded",
            )
        return wanted or limit - prompt

    def _names(self, tokens: Sequence[Token], asked: hf_wire.Asked) -> dict[int, str] | None:
        """The texts of all alternatives; None where no log-probs were asked for."""
        if asked.sampling.logprobs is None:
            return None
        return {number: self._token_text(number) for token in tokens for number, _ in token.top}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
            "system_fingerprint": fingerprint(),
        }


@functools.cache
def fingerprint() -> str:
    """Versions of everything that makes the replies."""
    import torch
    import transformers

    return f"ares {__version__}, transformers {transformers.__version__}, torch {torch.__version__}"


def _chunk(
    head: dict[str, Any], number: int, delta: dict[str, Any], *, logprobs: Any = None, finish: str | None = None
) -> dict[str, Any]:
    return {**head, "choices": [{"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]}


def _event(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def serve(server: ChatServer, port: int, announce: Path) -> None:
    """Listen, write the address into ``announce``, and stay."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((HOST, port))
    runner = web.AppRunner(server.app, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, listening, backlog=1024).start()
    write_atomically(announce, f"http://{HOST}:{listening.getsockname()[1]}".encode())
    await asyncio.Event().wait()


def main(argv: Sequence[str]) -> None:
    """Load the model and serve it."""
    options = arguments().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    import torch

    torch.set_num_threads(options.threads)
    chat = hf_model.load(options.model, options.device, options.dtype, options.context)
    asyncio.run(serve(ChatServer(chat, options.name), options.port, options.announce))


if __name__ == "__main__":
    main(sys.argv[1:])
