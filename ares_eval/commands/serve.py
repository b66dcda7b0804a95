"""Start a model server, print its URL, and stay until Ctrl-C.

SPEC is what `ares-eval run --serve` takes:

  embedded              SmolLM2-135M through llama.cpp (extra [local]); fetched once, 93 MB
  llama.cpp:FILE.gguf   llama-server from the PATH (or $ARES_LLAMA_SERVER), else the extra [local]
  vllm:PATH             vLLM of this environment, of $ARES_VLLM_PYTHON's, or from the PATH
  lmdeploy:PATH         lmdeploy from the PATH or of $ARES_LMDEPLOY_PYTHON's environment
  hf:PATH               our own transformers server for tiny checkpoints (extra [hf]), with exact log-probs

PATH is a folder, or a model's name on the Hugging Face hub.

examples:
  ares-eval serve embedded --port 8000 --serve-args "--slots 8 --context 4096"
  ARES_VLLM_PYTHON=~/vllm/bin/python ares-eval serve vllm:./checkpoint --serve-args=--enforce-eager
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time

from ares_eval.inference.servers import weights

LOOK_EVERY = 0.5
"""Seconds between two looks at whether the server still lives."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("spec", metavar="SPEC", help="embedded, llama.cpp:FILE, vllm:PATH, lmdeploy:PATH or hf:PATH")
    parser.add_argument("--port", type=int, default=None, help="port on 127.0.0.1 [a free one]")
    parser.add_argument("--model-name", metavar="NAME", help="name to serve the model under [its own]")
    parser.add_argument("--serve-args", metavar="ARGS", default="", help="further arguments, in one quoted string")


def run(args: argparse.Namespace) -> int:
    """0: stopped by Ctrl-C or SIGTERM; 2: SPEC is wrong or a program is missing; 4: it did not start, or it died."""
    from ares_eval.inference import servers

    # A terminated `serve` must take its server with it in order, not through the guard's emergency exit; and a shell
    # that starts it in the background makes it deaf to SIGINT, which nobody who sends one means.
    previous = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with servers.start(
            args.spec,
            extra_args=shlex.split(args.serve_args),
            log_dir=weights.cache_folder() / "logs",
            model_name=args.model_name,
            port=args.port,
            notify=lambda line: print(line, file=sys.stderr),
        ) as server:
            url, name = server.base_url, server.model_name
            print(f"{name} at {url}   (context {server.context or 'unknown'}; Ctrl-C stops it)")
            print(f"  ares-eval --openai-base-url {url} --model-name {name} --datasets smoke_text")
            print(f"  ares-eval doctor --openai-base-url {url}", flush=True)
            while (death := server.death()) is None:
                time.sleep(LOOK_EVERY)
            print(f"ares-eval serve: {death}", file=sys.stderr)
            return 4
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 0
    except servers.ServeSpecError as error:
        print(f"ares-eval serve: {error}", file=sys.stderr)
        return 2
    except servers.ServerFailed as error:
        print(f"ares-eval serve: {error}", file=sys.stderr)
        return 4
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
