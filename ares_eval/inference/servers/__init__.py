"""Model servers that we start ourselves (``--serve``): embedded, hf, llama.cpp, vllm, lmdeploy.

``start(spec, ...)`` is a context manager that yields a RunningServer; ``served_name`` and ``weights_digest`` say what
it would serve without starting it.
"""

from ares_eval.inference.servers.errors import ServerFailed, ServeSpecError
from ares_eval.inference.servers.identity import served_name, weights_digest
from ares_eval.inference.servers.running import RunningServer, start
from ares_eval.inference.servers.spec import ServerSpec, parse_spec

__all__ = [
    "RunningServer",
    "ServeSpecError",
    "ServerFailed",
    "ServerSpec",
    "parse_spec",
    "served_name",
    "start",
    "weights_digest",
]
