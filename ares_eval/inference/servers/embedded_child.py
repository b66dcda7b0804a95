"""The embedded server's own process: llama.cpp's HTTP server (package xllamacpp) on a free port of this machine.

``python -m ares_eval.inference.servers.embedded_child --model FILE --name NAME --announce FILE [--port N] [--slots N]
[--context N] [--threads N]``. It runs apart from us so that a crash or a flood of log lines stays here. It must be
started with ``OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0``: with spinning OpenMP threads a second busy process on the
machine slows it down tenfold (measured: 55 to 4.5 tokens/s).
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ares_eval.inference.servers.process import HOST, available_cores
from ares_eval.inference.servers.weights import write_atomically

SLOTS = 4
CONTEXT = 2048
"""Tokens of each slot: enough for the short questions that a 135M model can be asked."""


def arguments() -> argparse.ArgumentParser:
    """What the server can be told (`--serve-args`)."""
    parser = argparse.ArgumentParser(prog="embedded server", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--announce", required=True, type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=SLOTS, help="requests answered at once")
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens of prompt and answer for each slot")
    parser.add_argument("--threads", type=int, default=max(1, available_cores() - 1))
    return parser


def main(argv: Sequence[str]) -> None:
    """Load the model, listen, write the address into the announce file, and stay."""
    options = arguments().parse_args(argv)
    import xllamacpp

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.name}
    params.hostnames = [HOST]
    params.port = options.port
    params.n_parallel = options.slots
    # llama.cpp shares n_ctx among the slots.
    params.n_ctx = options.slots * options.context
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    # A parameter that a request leaves out must mean "not used", as on other servers; llama.cpp's defaults differ.
    params.sampling.top_k = 0
    params.sampling.top_p = 1.0
    params.sampling.min_p = 0.0
    params.sampling.temp = 1.0
    # Else llama.cpp keeps past prompts in up to 8 GiB of memory; questions are not asked twice.
    params.cache_ram_mib = 0
    params.ui = False
    params.fit_params = False
    params.endpoint_metrics = True
    server = xllamacpp.Server(params)
    write_atomically(options.announce, server.listening_address.encode())
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
