"""`--model ares` for lm-eval: its evaluator, our engine underneath (cache, retries, adaptive concurrency, pictures).

Imported by lm-eval's registry when the model is asked for (lm_eval_command.py registers it). The key comes from the
environment alone: lm-eval writes ``model_args`` into its results. Chat contexts travel as the JSON list of messages,
pictures stand at their ``<image>`` marks, and the k-th repeat of a request is draw k, with a cache entry of its own;
the entries are those of `ares-eval --datasets lm:TASK`. A request that failed is no reply: it ends the evaluation with
a line that says so, after everything else was asked, and the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.model import LM

from ares_eval import plan
from ares_eval.config import user_cache
from ares_eval.inference.cache import Cache
from ares_eval.inference.engine import Engine, EngineOptions
from ares_eval.inference.transport import Endpoint, Transport
from ares_eval.integrations.lm_eval_prompts import as_json, generation, interleaved, read_chat
from ares_eval.tasks import pictures, prompts
from ares_eval.types import Failure, Picture, Request, Sampling, WireMessage

OPENAI_URL = "https://api.openai.com/v1"
LIMITS = pictures.PixelLimits(1, 1 << 40)
"""Pictures are sent as they are, as lm-eval does."""
FROM_LM_EVAL = ("batch_size", "max_batch_size", "device")
"""What lm-eval passes to every model; nothing of it means anything here."""
SECRET_NAMES = ("api_key", "openai_api_key", "auth_token", "key", "token")


class NotMeasured(RuntimeError):
    """Some requests were not answered; lm-eval has no word for that, and a wrong answer it is not."""


class BadUse(ValueError):
    """Arguments that are none of ours, or a task that cannot be asked in this way."""


class AresLM(LM):  # type: ignore[misc]
    """A model behind an OpenAI-compatible endpoint.

    ``model``: its name. ``base_url``: with or without /chat/completions. ``num_concurrent``, ``max_retries`` and
    ``timeout`` (seconds without a byte): as lm-eval names them. ``revision``: part of the cache's key. ``logprobs``:
    top alternatives of each token, kept with the reply in the cache. ``transport``: aiohttp or openai. Raises BadUse
    for any other argument, above all for a key.
    """

    MULTIMODAL = True

    def __init__(
        self,
        model: str = "",
        base_url: str = OPENAI_URL,
        num_concurrent: int = 8,
        max_retries: int = 3,
        timeout: float = 600.0,
        max_gen_toks: int | None = None,
        revision: str | None = None,
        logprobs: int = 0,
        cache_dir: str | None = None,
        no_cache: bool = False,
        transport: str = "aiohttp",
        **more: Any,
    ) -> None:
        super().__init__()
        _refuse({name for name in more if name not in FROM_LM_EVAL})
        if not model:
            raise BadUse("--model ares needs the model's name: --model_args model=NAME,base_url=URL")
        if transport not in ("aiohttp", "openai"):
            raise BadUse(f"transport={transport!r}: must be aiohttp or openai")
        self._model = plan.ModelIdentity(str(model), None if revision is None else str(revision))
        self._endpoint = Endpoint(
            base_url.rstrip("/").removesuffix("/completions").removesuffix("/chat"), os.environ.get("OPENAI_API_KEY")
        )
        self._threads, self._max_retries, self._timeout = int(num_concurrent), int(max_retries), float(timeout)
        self._max_gen_toks, self._logprobs = max_gen_toks, int(logprobs)
        self._cache_dir = None if no_cache else Path(cache_dir) if cache_dir else user_cache()
        self._openai = transport == "openai"

    # ------------------------------------------------------------ prompts

    @property
    def tokenizer_name(self) -> str:
        """Part of lm-eval's key of cached requests."""
        return f"ares-{self._model.name}"

    def chat_template(self, chat_template: bool | str = False) -> str:  # noqa: ARG002 - as lm-eval calls it
        """The server has its own."""
        return ""

    def apply_chat_template(self, chat_history: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """The messages as JSON: the server makes a prompt of them."""
        return as_json(chat_history, add_generation_prompt)

    def get_model_info(self) -> dict[str, Any]:
        """For lm-eval's results."""
        return {"model_name": self._model.name, "model_revision": self._model.revision}

    # ------------------------------------------------------------ requests

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """The text of each reply, its reasoning apart, in the order of ``requests``."""
        replies = self._ask(self._generations(requests))
        return [replies[number] for number in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:  # noqa: ARG002
        """(log-likelihood, greedy) of each continuation; see inference/likelihood.py for what the server must do."""
        return self._likelihoods([(one, one.args[0], one.args[1]) for one in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Log-likelihood of each whole text."""
        return [total for total, _ in self._likelihoods([(one, "", one.args[0]) for one in requests])]

    def _generations(self, requests: Sequence[Any]) -> Iterator[Request]:
        draws: Counter[int] = Counter()
        for number, one in enumerate(requests):
            visual = list(one.args[2].get("visual") or []) if len(one.args) > 2 else []
            messages = _wire(read_chat(one.args[0]), visual)
            draw = draws[id(one)]
            draws[id(one)] += 1
            yield self._request(one.task_name, number, draw, messages, self._sampling(one.args[1]), "reply")

    def _sampling(self, given: dict[str, Any]) -> Sampling:
        settings = generation(given)
        if self._max_gen_toks is not None and "max_gen_toks" not in given:
            settings["max_tokens"] = int(self._max_gen_toks)
        return Sampling(**{**settings, "stop": tuple(settings["stop"])}, logprobs=self._logprobs)

    def _likelihoods(self, pairs: Sequence[tuple[Any, str, str]]) -> list[tuple[float, bool]]:
        """The pairs of one document travel together, as those of `lm:TASK` do."""
        together: list[list[tuple[Any, str, str]]] = []
        for pair in pairs:
            one = pair[0]
            if len(one.args) > 2:
                raise BadUse(f"{one.task_name} asks for the likelihood of texts about pictures, which no server tells")
            if isinstance(pair[1], str) and pair[1].startswith('[{"role"'):
                raise BadUse(
                    f"{one.task_name} asks for log-likelihoods, which are those of plain text: "
                    "run it without --apply_chat_template"
                )
            before = together[-1][-1][0] if together else None
            if (
                before is not None
                and (before.task_name, before.doc_id) == (one.task_name, one.doc_id)
                and (before.idx < one.idx)
            ):
                together[-1].append(pair)
            else:
                together.append([pair])
        requests = (
            self._request(
                asked[0][0].task_name,
                number,
                0,
                tuple(WireMessage(r, (t,)) for _, c, s in asked for r, t in (("user", c), ("assistant", s))),
                plan.LIKELIHOOD,
                "likelihood",
            )
            for number, asked in enumerate(together)
        )
        replies = self._ask(requests)
        return [tuple(found) for number in range(len(together)) for found in json.loads(replies[number])]

    def _request(
        self,
        task: str,
        number: int,
        draw: int,
        messages: tuple[WireMessage, ...],
        sampling: Sampling,
        ask: Any,
    ) -> Request:
        key = plan.request_key(self._model, prompts.prompt_digest(messages), sampling, draw, ask)
        return Request(task, str(number), draw, messages, sampling, key, ask)

    def _ask(self, requests: Iterable[Request]) -> dict[int, str]:
        """Number of each request to its reply's text. Raises NotMeasured."""
        texts: dict[int, str] = {}
        lost: list[Failure] = []
        with contextlib.ExitStack() as stack:
            cache = None
            if self._cache_dir is not None:
                cache = stack.enter_context(contextlib.closing(Cache(self._cache_dir)))
            options = EngineOptions(
                threads=self._threads, max_retries=self._max_retries, secrets=self._endpoint.secrets()
            )
            engine = stack.enter_context(Engine(self._model.name, self._transport, options, cache=cache))
            for request, outcome in engine.run(requests):
                if isinstance(outcome, Failure):
                    lost.append(outcome)
                else:
                    texts[int(request.sample)] = outcome.text
        if engine.fatal is not None:
            raise NotMeasured(engine.fatal.message)
        if lost:
            kept = "" if cache is None else "; the others are cached, and the same command asks for these alone"
            raise NotMeasured(f"{len(lost)} requests were not answered, the first: {lost[0].message}{kept}")
        return texts

    def _transport(self) -> Transport:
        if self._openai:
            from ares_eval.inference.transport_openai import OpenAITransport

            return OpenAITransport(self._endpoint, connections=self._threads, timeout=self._timeout)
        from ares_eval.inference.transport_aiohttp import AiohttpTransport

        return AiohttpTransport(self._endpoint, connections=self._threads, timeout=self._timeout)


def _refuse(names: set[str]) -> None:
    secret = sorted(name for name in names if name.lower() in SECRET_NAMES)
    if secret:
        raise BadUse(f"{secret[0]} in --model_args would be written into lm-eval's results: set OPENAI_API_KEY")
    if names:
        known = [name for name in AresLM.__init__.__annotations__ if name not in ("more", "return")]
        word = sorted(names)[0]
        near = difflib.get_close_matches(word, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; it takes {', '.join(known)}"
        raise BadUse(f"--model ares takes no {word}{hint}")


def _wire(turns: list[tuple[str, str]], visual: Sequence[Any]) -> tuple[WireMessage, ...]:
    prepared = [pictures.prepare(Picture("a picture of lm-eval", _reader(image)), LIMITS) for image in visual]
    last = max((number for number, (role, _) in enumerate(turns) if role == "user"), default=0)
    return tuple(
        WireMessage(role, tuple(interleaved(text, prepared)) if prepared and number == last else (text,))
        for number, (role, text) in enumerate(turns)
    )


def _reader(image: Any) -> Any:
    def read() -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()

    return read
