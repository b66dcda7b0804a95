"""What is known of a ``--serve`` before anything is started: the name it serves under and the digest of its weights."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ares_eval.inference.servers import embedded_model, weights
from ares_eval.inference.servers.spec import ServerSpec, parse_spec


def served_name(spec: str | ServerSpec) -> str:
    """The name a server is started under where ``--model-name`` gives none. Raises ServeSpecError."""
    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    if parsed.path is not None:
        return parsed.path.stem if parsed.path.is_file() else parsed.path.name
    return parsed.hub.rpartition("/")[2] if parsed.hub else embedded_model.NAME


def weights_digest(spec: str | ServerSpec, revision: str | None = None) -> str | None:
    """``sha256:...`` of the files, ``commit:...`` of a hub model that lies in the local hub cache, else None.

    Nothing is fetched: the embedded model's digest is known beforehand. A large folder is hashed once and remembered.
    Raises ServeSpecError, OSError.
    """
    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    if parsed.path is not None:
        return weights.digest(parsed.path)
    if parsed.hub is None:
        return f"sha256:{embedded_model.SHA256}"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError, OSError, ValueError):
        return f"commit:{Path(snapshot_download(parsed.hub, revision=revision, local_files_only=True)).name}"
    return None
