"""What ``--serve`` says: ``embedded``, or ``KIND:MODEL`` with KIND one of vllm, lmdeploy, llama.cpp, hf."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from ares_eval.inference.servers.errors import ServeSpecError

KINDS = ("embedded", "vllm", "lmdeploy", "llama.cpp", "hf")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """A parsed ``--serve``: ``path`` of weights on this disk, or the model's name on the ``hub``; embedded: none."""

    kind: str
    path: Path | None = None
    hub: str | None = None

    @property
    def model(self) -> str:
        """The model as a server's command line takes it."""
        return str(self.path) if self.path else self.hub or ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.model}" if self.model else self.kind


def parse_spec(text: str) -> ServerSpec:
    """Read ``--serve``; a path that exists wins over a hub name. Raises ServeSpecError, which says what is right."""
    kind, colon, model = text.partition(":")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"kinds: {', '.join(KINDS)}"
        raise ServeSpecError(f"--serve {text}: unknown kind of server {kind!r}; {hint}")
    if kind == "embedded":
        if colon:
            raise ServeSpecError(
                "--serve embedded takes no model; for a GGUF file of yours: --serve llama.cpp:FILE.gguf"
            )
        return ServerSpec(kind)
    if not model:
        raise ServeSpecError(
            f"--serve {kind} needs a model: --serve {kind}:{'FILE.gguf' if kind == 'llama.cpp' else 'PATH'}"
        )
    path = Path(model).expanduser()
    if kind == "llama.cpp":
        if not path.is_file():
            raise ServeSpecError(f"--serve {text}: there is no such file")
        return ServerSpec(kind, path=path.resolve())
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ServeSpecError(f"--serve {text}: the folder has no config.json, so it is no Hugging Face model")
        return ServerSpec(kind, path=path.resolve())
    if _HUB_NAME.fullmatch(model):
        return ServerSpec(kind, hub=model)
    raise ServeSpecError(f"--serve {text}: there is no such folder, and it is no Hugging Face model name (owner/name)")
