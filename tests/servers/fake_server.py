"""A stand-in for a model server's program: takes each kind's options for port and name, and misbehaves when told.

Not a model: it tests how servers are started, watched and stopped. Settings come by environment: FAKE_ARGV (file that
gets the arguments), FAKE_MODE (ok, exit, deaf, unlisted, refusing, stubborn), FAKE_PIDS (file for process ids).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

MODE = os.environ.get("FAKE_MODE", "ok")


def option(*names: str) -> str:
    """The value of the first of these options that is given."""
    for name in names:
        if name in sys.argv:
            return sys.argv[sys.argv.index(name) + 1]
    raise SystemExit(f"none of {names} given")


class Handler(BaseHTTPRequestHandler):
    """Health, model list, one-token chat."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, {})
        else:
            name = "another" if MODE == "unlisted" else option("--served-model-name", "--model-name", "--alias")
            self.answer(200, {"data": [{"id": name, "max_model_len": 123}]})

    def do_POST(self) -> None:
        if MODE == "refusing":
            self.answer(400, {"error": {"message": "this model has no chat template"}})
        else:
            self.answer(200, {"choices": [{"message": {"content": "x"}}]})

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    if "FAKE_ARGV" in os.environ:
        Path(os.environ["FAKE_ARGV"]).write_text(json.dumps(sys.argv))
    print("loading weights", flush=True)
    if MODE == "exit":
        print("out of memory: tried to allocate 80 GiB", flush=True)
        raise SystemExit(3)
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if "FAKE_PIDS" in os.environ:
        Path(os.environ["FAKE_PIDS"]).write_text(f"{os.getpid()} {child.pid}")
    if MODE == "deaf":
        time.sleep(600)
    HTTPServer(("127.0.0.1", int(option("--port", "--server-port"))), Handler).serve_forever()


if __name__ == "__main__":
    main()
