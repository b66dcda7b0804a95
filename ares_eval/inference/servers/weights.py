"""What weights a server serves: a digest of the files, remembered so that a large model is hashed once.

The digest becomes a part of the reply cache's key: two checkpoints under one name must never share replies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

MODEL_FILES = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".txt", ".model", ".jinja", ".tiktoken", ".py", ".spm"}
)
"""Suffixes of the files of a model folder that can change a reply; pictures and read-me files cannot."""


def cache_folder() -> Path:
    """Where models that we fetch and digests that we computed are kept: ARES_CACHE, or ``ares`` in the user's cache."""
    own = os.environ.get("ARES_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "ares"


def digest(path: Path) -> str:
    """``sha256:...`` of a weights file, or of the names and contents of a model folder's files (not of sub-folders).

    A file's hash is remembered by path, size and time of change in the cache folder's ``digests.json``. Raises OSError.
    """
    memory = cache_folder() / "digests.json"
    known = _read(memory)
    before = dict(known)
    if path.is_file():
        result = _file(path, known)
    else:
        total = hashlib.sha256()
        for item in sorted(path.iterdir()):
            if item.is_file() and item.suffix in MODEL_FILES and not item.name.startswith("."):
                total.update(f"{item.name}\0{_file(item, known)}\n".encode())
        result = total.hexdigest()
    if known != before:
        # The memory saves time and is never needed: a read-only or full disk must not end the run here.
        with contextlib.suppress(OSError):
            write_atomically(memory, json.dumps(known, indent=0).encode())
    return f"sha256:{result}"


def write_atomically(path: Path, data: bytes) -> None:
    """Write ``data`` so that a reader sees the old file or the whole new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _file(path: Path, known: dict[str, list[object]]) -> str:
    """Hash of one file, remembered in ``known`` as path -> [size, mtime in ns, hash]."""
    name, stat = str(path.resolve()), path.stat()
    entry = known.get(name)
    if isinstance(entry, list) and len(entry) == 3 and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
        return str(entry[2])
    with path.open("rb") as file:
        result = hashlib.file_digest(file, "sha256").hexdigest()
    known[name] = [stat.st_size, stat.st_mtime_ns, result]
    return result


def _read(memory: Path) -> dict[str, list[object]]:
    try:
        known = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
