"""`python -m tests.loopback`: serve until a signal comes."""

import asyncio
import signal
import sys

from tests.loopback.app import run
from tests.loopback.options import parse


async def main() -> None:
    """Run the server."""
    options = parse()
    task = asyncio.get_running_loop().create_task(run(options))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return


sys.exit(asyncio.run(main()))
