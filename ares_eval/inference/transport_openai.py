"""The official `openai` client as the transport: for Azure, and for whatever only that client speaks.

The client sends and authenticates; its retries, its models and its own reading of errors are left out, so that
decoding, retries and records are the same as with the default transport. Where AZURE_OPENAI_ENDPOINT and
OPENAI_API_VERSION are set, the requests go to Azure and the endpoint's URL is not used; the key is then
AZURE_OPENAI_API_KEY or AZURE_OPENAI_AD_TOKEN, else the endpoint's.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ares_eval.inference.transport import (
    CONNECT_SECONDS,
    MAX_ANSWER_BYTES,
    USER_AGENT,
    Endpoint,
    HttpAnswer,
    TransportError,
    environment_proxy,
    is_streamed,
)


class OpenAITransport:
    """Requests through AsyncOpenAI or AsyncAzureOpenAI; parameters as for AiohttpTransport.

    ``environ`` is where the Azure variables are looked up. Raises ImportError where the extra is not installed and
    ValueError where Azure has no key.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connections: int,
        timeout: float,
        total: float = 7200.0,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise ImportError("the openai transport needs the extra: pip install 'ares[openai]'") from None
        self._openai = openai
        # The client is built on httpx up to 2.x and on httpx2 from 3.x: its exceptions come from the one it uses.
        base = openai.DefaultAsyncHttpxClient.__base__
        self._httpx = httpx = sys.modules[base.__module__.partition(".")[0]]
        self._timeout = timeout
        self._total = total
        azure = environ.get("AZURE_OPENAI_ENDPOINT") if environ.get("OPENAI_API_VERSION") else None
        headers: dict[str, Any] = {"User-Agent": USER_AGENT, **endpoint.headers}
        self._without_key = {} if azure or endpoint.api_key else {"Authorization": openai.Omit()}
        own_store = environ.get("SSL_CERT_FILE") or environ.get("SSL_CERT_DIR")
        shared: dict[str, Any] = {
            "max_retries": 0,
            "default_headers": headers,
            "http_client": openai.DefaultAsyncHttpxClient(
                timeout=openai.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS), pool=None),
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
                follow_redirects=False,
                trust_env=False,
                verify=ssl.create_default_context() if own_store else True,
                proxy=environment_proxy(azure or endpoint.base_url),
            ),
        }
        if azure:
            token = environ.get("AZURE_OPENAI_AD_TOKEN")
            key = environ.get("AZURE_OPENAI_API_KEY") or endpoint.api_key
            if not token and not key:
                raise ValueError("Azure needs AZURE_OPENAI_API_KEY, AZURE_OPENAI_AD_TOKEN or an API key")
            credential = {"azure_ad_token": token} if token else {"api_key": key}
            self._client: openai.AsyncOpenAI = openai.AsyncAzureOpenAI(
                azure_endpoint=azure, api_version=environ["OPENAI_API_VERSION"], **credential, **shared
            )
        else:
            key = endpoint.api_key or "none"
            self._client = openai.AsyncOpenAI(api_key=key, base_url=endpoint.base_url, **shared)

    async def post_chat(self, body: bytes) -> HttpAnswer:
        """See Transport."""
        return await self._post(body, None)

    async def post_completion(self, body: bytes) -> HttpAnswer:
        """See Transport."""
        return await self._post(body, None, plain=True)

    async def stream_chat(self, body: bytes, feed: Callable[[bytes], None]) -> HttpAnswer:
        """See Transport."""
        return await self._post(body, feed)

    async def _post(self, body: bytes, feed: Callable[[bytes], None] | None, *, plain: bool = False) -> HttpAnswer:
        openai, httpx = self._openai, self._httpx
        fields = msgspec.json.decode(body)
        asked = "prompt" if plain else "messages"
        named = {"model": fields.pop("model"), asked: fields.pop(asked)}
        more = {"extra_body": fields, "extra_headers": self._without_key}
        completions: Any = self._client.completions if plain else self._client.chat.completions
        create = completions.with_streaming_response.create
        try:
            async with asyncio.timeout(self._total), create(**named, **more) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                streamed = feed is not None and is_streamed(response.status_code, headers.get("content-type", ""))
                chunks: list[bytes] = []
                size = 0
                async for chunk in response.iter_bytes():
                    size += len(chunk)
                    if size > MAX_ANSWER_BYTES:
                        raise TransportError("read", f"the answer is longer than {MAX_ANSWER_BYTES >> 20} MiB")
                    if streamed and feed is not None:
                        feed(chunk)
                    else:
                        chunks.append(chunk)
                return HttpAnswer(response.status_code, headers, b"".join(chunks))
        except openai.APIStatusError as error:
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            return HttpAnswer(error.status_code, headers, error.response.content)
        except openai.APIConnectionError as error:
            raise self._fault(error.__cause__ or error) from None
        except httpx.HTTPError as error:
            raise self._fault(error) from None
        except TimeoutError:
            raise TransportError("timeout", f"the request took longer than {self._total:g} s") from None

    def _fault(self, error: BaseException) -> TransportError:
        httpx = self._httpx
        if isinstance(error, httpx.ConnectTimeout):
            return TransportError("connect", "the server did not accept a connection in time")
        if isinstance(error, httpx.TimeoutException):
            return TransportError("timeout", f"no byte came for {self._timeout:g} s")
        if isinstance(error, httpx.ConnectError | httpx.ProxyError):
            return TransportError("connect", f"cannot connect: {str(error) or type(error).__name__}")
        return TransportError("read", f"the connection failed: {type(error).__name__}")

    async def close(self) -> None:
        """Close the client and its connections, for good."""
        await self._client.close()
