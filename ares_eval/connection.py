"""From the settings of a run to a connection: the endpoint, the transport of its choice, and room for its sockets."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from ares_eval.inference.transport import Endpoint, Transport

if TYPE_CHECKING:
    from ares_eval.config import RunConfig

OPENAI_URL = "https://api.openai.com/v1"

OTHER_FILES = 200
"""Open files besides connections: datasets, records, cache, the verifier's pipes."""


def endpoint_of(config: RunConfig, base_url: str | None = None) -> Endpoint:
    """Where requests go: ``base_url`` (a server that we started), else the configured one, else OpenAI's."""
    key = config.openai_api_key.value if config.openai_api_key else None
    return Endpoint(base_url or config.openai_base_url or OPENAI_URL, key)


def secrets_of(config: RunConfig, endpoint: Endpoint) -> tuple[str, ...]:
    """What must be cut out of every message; the official client takes further keys from the environment by itself."""
    names = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN") if config.transport == "openai" else ()
    return (*endpoint.secrets(), *(os.environ[name] for name in names if os.environ.get(name)))


def transport_of(config: RunConfig, endpoint: Endpoint) -> Transport:
    """The transport that the settings name, made inside of the engine's loop."""
    if config.transport == "openai":
        from ares_eval.inference.transport_openai import OpenAITransport

        return OpenAITransport(endpoint, connections=config.eval_threads, timeout=config.timeout)
    from ares_eval.inference.transport_aiohttp import AiohttpTransport

    return AiohttpTransport(endpoint, connections=config.eval_threads, timeout=config.timeout)


def allow_open_files(connections: int) -> None:
    """Raise this process's limit of open files where it would not hold every connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
