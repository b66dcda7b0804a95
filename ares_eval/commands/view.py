"""Look at runs and their replies in a browser.

  ares-eval view                      all runs below results/runs
  ares-eval view DIR --port 8123      all runs below DIR, at http://127.0.0.1:8123

Filter by task, tier, verdict or flips against another run; open a reply with its tokens' entropy, its HWE windows, its
pictures and how it was judged; set two runs side by side. Only this machine can reach the page unless --host says
otherwise. docs/report.md describes it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ares_eval.view.server import Page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``ares-eval view``."""
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("results/runs"), metavar="DIR", help="[results/runs]"
    )
    parser.add_argument("--port", type=int, default=8765, help="0 for any free one [8765]")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1: this machine only]")
    parser.add_argument("--dataset-dir", type=Path, metavar="DIR", help="where the tasks' data lies, for pictures")
    parser.add_argument(
        "--include-path", type=Path, action="append", default=[], metavar="DIR", help="a further folder of task files"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; 2 where the folder or the address cannot be used."""
    import asyncio

    if not args.folder.is_dir():
        print(f"ares-eval view: no folder {args.folder}", file=sys.stderr)
        return 2
    try:
        import duckdb  # noqa: F401 - only whether it is there
    except ImportError:
        print("ares-eval view: needs duckdb: pip install 'ares[report]'", file=sys.stderr)
        return 2
    with _page(args) as page:
        try:
            asyncio.run(_serve(page, args.host, args.port))
        except KeyboardInterrupt:
            return 0
        except OSError as error:
            print(f"ares-eval view: cannot listen on {args.host}:{args.port}: {error.strerror}", file=sys.stderr)
            return 2
    return 0


@contextlib.contextmanager
def _page(args: argparse.Namespace) -> Iterator[Page]:
    from ares_eval.verify import Verifier
    from ares_eval.view.library import Library
    from ares_eval.view.pictures import Pictures
    from ares_eval.view.query import Queries
    from ares_eval.view.server import Page

    with contextlib.ExitStack() as stack:
        library = stack.enter_context(contextlib.closing(Library(args.folder.resolve())))
        queries = stack.enter_context(contextlib.closing(Queries()))
        verifier = stack.enter_context(Verifier(workers=1))
        yield Page(library, queries, Pictures(args.dataset_dir, args.include_path), verifier)


async def _serve(page: Page, host: str, port: int) -> None:
    import asyncio

    from aiohttp import web

    from ares_eval.view.server import application, is_loopback

    runner = web.AppRunner(application(page, host), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        at = runner.addresses[0]
        shown = f"[{at[0]}]" if ":" in at[0] else at[0]
        print(f"runs of {page.library.folder}: http://{shown}:{at[1]}/  (Ctrl-C ends)", flush=True)
        if not is_loopback(host):
            print("ares-eval view: whoever reaches this address can read all of it", file=sys.stderr, flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
