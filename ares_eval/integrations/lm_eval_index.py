"""Which names lm-eval has and where their YAML lies, without scanning its 14,000 files each time.

lm-eval builds its index anew on every start (about ten seconds). Ours is made once for a version of lm-eval, by the
worker, and kept as JSON in the cache folder. ``closure`` gives the entries that one name needs, so that a worker
registers just those. Reading it imports nothing of lm-eval.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

FORMAT = 1


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A name of the registry. ``path``: its YAML, absolute or relative to lm-eval's folder; tags have none.

    ``members``: names that a group or tag is made of. ``whole``: a group that only makes sense as one, since it has a
    score of its own or members without a name of their own.
    """

    kind: Literal["task", "class", "group", "tag"]
    path: str | None
    members: tuple[str, ...] = ()
    whole: bool = False


Index: TypeAlias = Mapping[str, Entry]


class _File(msgspec.Struct):
    format: int
    version: str
    names: dict[str, Entry]


def version() -> str | None:
    """Version of the lm-eval that is installed, or None; imports nothing of it."""
    try:
        return importlib.metadata.version("lm-eval")
    except importlib.metadata.PackageNotFoundError:
        return None


def file(cache_dir: Path, installed: str) -> Path:
    """Where the index of a version is kept."""
    return cache_dir / "lm_eval" / f"index-{installed}-{FORMAT}.json"


def read(path: Path, installed: str) -> dict[str, Entry] | None:
    """The index in a file, or None where there is none of this version."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError):
        return None
    return found.names if (found.format, found.version) == (FORMAT, installed) else None


def write(path: Path, installed: str, names: dict[str, Entry]) -> None:
    """Keep an index, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(msgspec.json.encode(_File(FORMAT, installed, names)))
    part.replace(path)


def expand(name: str, index: Index) -> list[str]:
    """The names that ``name`` (a glob, a tag, a group without a score of its own) stands for; [] where unknown."""
    if any(mark in name for mark in "*?["):
        found = [known for known in index if fnmatch.fnmatchcase(known, name)]
        return list(dict.fromkeys(one for known in sorted(found) for one in expand(known, index)))
    entry = index.get(name)
    if entry is None:
        return []
    if entry.kind == "tag" or (entry.kind == "group" and not entry.whole):
        return list(dict.fromkeys(one for member in entry.members for one in expand(member, index)))
    return [name]


def closure(name: str, index: Index) -> dict[str, Entry]:
    """The entries that loading ``name`` needs."""
    needed: dict[str, Entry] = {}
    waiting = [name]
    while waiting:
        entry = index.get(one := waiting.pop())
        if entry is not None and one not in needed:
            needed[one] = entry
            waiting.extend(entry.members)
    return needed


def nearest(name: str, index: Index) -> list[str]:
    """Names that look like ``name``, best first."""
    return difflib.get_close_matches(name, index, n=3, cutoff=0.6)
