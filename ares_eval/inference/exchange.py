"""One try of one request: encode it, carry it, decode the answer. It raises what went wrong and decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor

from ares_eval.inference import likelihood, wire
from ares_eval.inference.logprobs import MissingLogprobs
from ares_eval.inference.parameters import ParameterChanges
from ares_eval.inference.stream import SseReply
from ares_eval.inference.transport import HttpAnswer, Transport, TransportError
from ares_eval.types import Reply, Request, Sampling

LARGE_BODY = 100_000
"""Bytes from which a reply is decoded in a thread, so that the loop goes on sending meanwhile."""


class Refused(Exception):
    """An answer of another status than 200."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer


FAULTS = (Refused, TransportError, wire.Malformed, wire.EmptyReply, wire.ServerSaidError, MissingLogprobs)
"""What ``exchange`` raises; ``failures.classify`` says what each means."""


async def exchange(
    transport: Transport,
    model: str,
    request: Request,
    sampling: Sampling,
    changes: ParameterChanges,
    urls: Mapping[str, str],
    *,
    vocabulary: int | None,
    deadline: float,
    decoders: Executor,
) -> Reply:
    """The reply to ``request``, without latency and attempts.

    ``sampling`` stands in for the request's own; ``urls``: data URL of each picture by digest; ``deadline``: time of
    the loop's clock at which the request is given up. Raises FAULTS.
    """
    likely = request.ask == "likelihood"
    if likely:
        body = likelihood.encode_request(model, request.messages)
    else:
        body = wire.encode_request(model, request.messages, sampling, changes, urls)
    try:
        async with asyncio.timeout_at(deadline):
            if likely:
                answer = await transport.post_completion(body)
            elif sampling.stream:
                collected = SseReply(logprobs=sampling.logprobs, vocabulary=vocabulary)
                answer = await transport.stream_chat(body, collected.feed)
                if answer.status == 200 and not answer.body:
                    return collected.reply()
            else:
                answer = await transport.post_chat(body)
    except TimeoutError as error:
        raise TransportError("timeout", "no answer within the time that a request may take in all") from error
    if answer.status != 200:
        raise Refused(answer)
    if len(answer.body) < LARGE_BODY:
        return _decoded(answer, request, vocabulary)
    return await asyncio.get_running_loop().run_in_executor(decoders, _decoded, answer, request, vocabulary)


def _decoded(answer: HttpAnswer, request: Request, vocabulary: int | None) -> Reply:
    if request.ask == "likelihood":
        return likelihood.decode_reply(answer.body, request.messages)
    return wire.decode_reply(answer.body, logprobs=request.sampling.logprobs, vocabulary=vocabulary)
