"""The benchmarks that can be run, and whether their data is here.

  ares-eval list                     every task
  ares-eval list 'math*'             names or suites that match (without * ? [ the pattern is a part of a name)
  ares-eval list --dataset-dir DIR   look for local data in DIR

HERE: yes (local files, or the hub's cache), hub (would be downloaded), no.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path
from typing import Any

from ares_eval.tasks import catalog
from ares_eval.tasks.availability import availability
from ares_eval.tasks.definition import Definition, read_definition
from ares_eval.tasks.errors import BrokenTask, UnknownTask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ares-eval list`."""
    parser.add_argument("pattern", nargs="?", default="", metavar="PATTERN", help="part of a name or suite, or a glob")
    parser.add_argument("--dataset-dir", type=Path, metavar="DIR", help="folder with local data")
    parser.add_argument("--include-path", action="append", default=[], metavar="DIR", help="more folders of task files")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table; 2 where a task file is broken or a folder is not there, else 0."""
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    try:
        files = catalog.files(args.include_path)
    except UnknownTask as error:
        print(f"ares-eval list: {error}", file=sys.stderr)
        return 2
    for path in files.values():
        try:
            definition = read_definition(path)
        except BrokenTask as error:
            broken.append(str(error))
            continue
        if matches(args.pattern, [definition.name, *definition.suites]):
            rows.append(_row(definition, args.dataset_dir))
    prefixes = sorted(catalog.prefixes())
    if args.json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode({"tasks": rows, "sources": prefixes}), indent=2).decode())
    else:
        _print_table(rows)
        for prefix in prefixes:
            print(f"{prefix}:NAME belongs to an installed task source")
    for line in broken:
        print(f"ares-eval list: {line}", file=sys.stderr)
    return 2 if broken else 0


def matches(pattern: str, names: list[str]) -> bool:
    """Whether a glob matches one of the names, or a text is part of one."""
    if any(mark in pattern for mark in "*?["):
        return any(fnmatch.fnmatchcase(name, pattern) for name in names)
    return any(pattern.lower() in name.lower() for name in names)


def _row(definition: Definition, dataset_dir: Path | None) -> dict[str, Any]:
    here, where = availability(definition, dataset_dir)
    return {
        "name": definition.name,
        "suites": list(definition.suites),
        "modality": definition.modality,
        "size": definition.size,
        "repeats": definition.repeats,
        "source": where,
        "available": here,
        "description": definition.metadata.get("description", ""),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    words = {True: "yes", None: "hub", False: "no"}
    head = ("NAME", "SUITE", "MODALITY", "SIZE", "HERE", "SOURCE")
    cells = [
        (r["name"], ",".join(r["suites"]), r["modality"], _size(r), words[r["available"]], r["source"]) for r in rows
    ]
    widths = [max(len(row[i]) for row in [head, *cells]) for i in range(len(head) - 1)]
    for row in [head, *cells]:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))
    if not rows:
        print("nothing matches")


def _size(row: dict[str, Any]) -> str:
    size = "?" if row["size"] is None else str(row["size"])
    return size if row["repeats"] == 1 else f"{size} x {row['repeats']}"
