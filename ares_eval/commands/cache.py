"""The reply cache: what is in it, and moving or dropping entries.

examples:
  ares-eval cache stats
  ares-eval cache prune --older-than 30            entries older than 30 days
  ares-eval cache prune --model-name my-model      entries of one model
  ares-eval cache export replies.jsonl             one JSON line an entry, checksummed
  ares-eval cache import replies.jsonl             entries that are whole and new here
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ares_eval.inference.cache import Cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action, its file, and its conditions."""
    parser.add_argument("action", choices=["stats", "prune", "export", "import"])
    parser.add_argument("file", nargs="?", type=Path, help="for export and import; - or nothing: standard streams")
    parser.add_argument("--cache-dir", type=Path, help="reply cache [$ARES_CACHE or ~/.cache/ares]")
    parser.add_argument("--older-than", type=float, metavar="DAYS", help="for prune")
    parser.add_argument("--model-name", metavar="NAME", help="for prune")
    parser.add_argument("--json", action="store_true", help="stats as JSON")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 2 where the cache or the file cannot be used."""
    from ares_eval.config import user_cache
    from ares_eval.inference.cache import Cache, CacheError

    if args.action == "prune" and args.older_than is None and args.model_name is None:
        print("ares-eval cache prune: give --older-than DAYS or --model-name NAME", file=sys.stderr)
        return 2
    try:
        with closing(Cache(args.cache_dir or user_cache())) as cache:
            if args.action == "stats":
                _stats(cache, args.json)
            elif args.action == "prune":
                before = None if args.older_than is None else time.time() - args.older_than * 86400
                print(f"{cache.prune(older_than=before, model=args.model_name)} entries dropped")
            elif args.action == "export":
                _export(cache, args.file)
            else:
                taken, refused = _import(cache, args.file)
                print(f"{taken} entries taken, {refused} lines refused")
                return 2 if refused and not taken else 0
    except (CacheError, OSError) as error:
        print(f"ares-eval cache: {error}", file=sys.stderr)
        return 2
    return 0


def _stats(cache: Cache, as_json: bool) -> None:
    found = cache.stats()
    if as_json:
        print(
            json.dumps({"path": str(cache.path), "entries": found.entries, "bytes": found.size, "models": found.models})
        )
        return
    print(f"{cache.path}: {found.entries} replies, {found.size / 1e6:.1f} MB")
    for model, count in found.models.items():
        print(f"  {count:>8}  {model}")
    if found.oldest is not None and found.newest is not None:
        days = [time.strftime("%Y-%m-%d", time.gmtime(moment)) for moment in (found.oldest, found.newest)]
        print(f"  from {days[0]} to {days[1]}")


def _export(cache: Cache, file: Path | None) -> None:
    if file is None or str(file) == "-":
        for line in cache.export():
            sys.stdout.buffer.write(line)
        return
    with file.open("wb") as out:
        out.writelines(cache.export())


def _import(cache: Cache, file: Path | None) -> tuple[int, int]:
    if file is None or str(file) == "-":
        return cache.load(sys.stdin.buffer)
    with file.open("rb") as lines:
        return cache.load(lines)
