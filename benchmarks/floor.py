"""The floor of this machine: the least that a Python client can do, for comparison with `ares-eval`.

    python -m benchmarks.floor --url URL --questions FILE.jsonl --in-flight 64 --log OUT.jsonl

Sends each question once over kept-alive aiohttp connections (pictures as their files' bytes), appends each reply to
a log and matches `\\boxed{...}`. No retries, no cache, no checks, no results: not an evaluator.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import aiohttp

BOXED = re.compile(r"\\boxed\{([^}]*)\}")


def body(row: dict[str, Any], folder: Path, logprobs: int) -> dict[str, Any]:
    """One request."""
    content: Any = row["question"]
    if "image" in row:
        data = base64.b64encode((folder / row["image"]).read_bytes()).decode()
        content = [
            {"type": "text", "text": row["question"]},
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}},
        ]
    made = {"model": "m", "messages": [{"role": "user", "content": content}], "temperature": 0.3, "max_tokens": 8192}
    return made | ({"logprobs": True, "top_logprobs": logprobs} if logprobs else {})


async def main(arguments: argparse.Namespace) -> int:
    """Ask everything; prints the share of right answers."""
    rows = [json.loads(line) for line in arguments.questions.open(encoding="utf-8")]
    folder = arguments.questions.parents[1]
    right = 0
    waiting = iter(rows)
    with arguments.log.open("a", encoding="utf-8") as log:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def work() -> None:
                nonlocal right
                for row in waiting:
                    asked = body(row, folder, arguments.logprobs)
                    async with session.post(f"{arguments.url}/chat/completions", json=asked) as reply:
                        text = json.loads(await reply.read())["choices"][0]["message"]["content"]
                    log.write(json.dumps({"text": text}) + "\n")
                    found = BOXED.search(text)
                    right += found is not None and found[1] == str(row["answer"]).rpartition("#### ")[2]

            await asyncio.gather(*(work() for _ in range(arguments.in_flight)))
    print(f"{right} of {len(rows)} right")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--logprobs", type=int, default=0)
    parser.add_argument("--log", type=Path, required=True)
    raise SystemExit(asyncio.run(main(parser.parse_args())))
