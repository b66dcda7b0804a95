"""Model servers that we start ourselves (``--serve``): embedded, hf, llama.cpp, vllm, lmdeploy.

``start(spec, ...)`` is the whole interface: a context manager that yields a RunningServer.
"""

from ares_eval.inference.servers.errors import ServerFailed, ServeSpecError
from ares_eval.inference.servers.running import RunningServer, start
from ares_eval.inference.servers.spec import ServerSpec, parse_spec

__all__ = ["RunningServer", "ServeSpecError", "ServerFailed", "ServerSpec", "parse_spec", "start"]
