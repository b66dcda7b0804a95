"""``start``: a server from ``--serve`` to a URL that answers, and its end with the ``with`` block."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ares_eval.inference.servers import launch
from ares_eval.inference.servers.identity import weights_digest
from ares_eval.inference.servers.process import ServerProcess, command_without_secrets, free_port
from ares_eval.inference.servers.spec import ServerSpec, parse_spec


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers.

    ``base_url`` ends in ``/v1``. ``weights_digest``: ``sha256:...`` of files, ``commit:...`` of a hub model, or None
    where neither is known. ``vocabulary``: width of the model's output. ``context``: tokens of prompt and answer
    together. ``identity`` goes into run.json; it holds no secret.
    """

    base_url: str
    model_name: str
    weights_digest: str | None
    vocabulary: int | None
    context: int | None
    identity: Mapping[str, Any]
    log_path: Path
    process: ServerProcess = field(repr=False)

    def death(self) -> str | None:
        """None while the server lives; else one message with its last log lines, for a run whose server died."""
        if self.process.alive():
            return None
        return f"the server ended during the run; the end of its log {self.log_path}:\n{self.process.last_lines()}"


def _silent(_line: str) -> None:
    return None


@contextmanager
def start(
    spec: str,
    *,
    extra_args: Sequence[str] = (),
    log_dir: Path,
    model_name: str | None = None,
    api_key: str | None = None,
    port: int | None = None,
    notify: Callable[[str], None] = _silent,
) -> Iterator[RunningServer]:
    """Start the server ``spec`` and yield it when it is ready; it is stopped when the block ends, however it ends.

    Its log is appended to ``log_dir/server-KIND.log``. ``api_key`` is only sent by our own questions (a server that was
    given one in ``extra_args``). ``notify`` gets a line for each thing that takes long. Raises ServeSpecError for
    what cannot be started at all, ServerFailed for what did not become ready.
    """
    parsed = parse_spec(spec)
    finds_its_own = parsed.kind in ("embedded", "hf")
    with tempfile.TemporaryDirectory(prefix="ares-server-") as folder:
        plan = launch.plan(
            parsed,
            extra_args,
            model_name,
            port or (0 if finds_its_own else free_port()),
            Path(folder) / "address",
            notify,
        )
        with ServerProcess(plan.launch, log_dir / f"server-{parsed.kind}.log", api_key) as process:
            notify(f"starting {parsed} (log: {process.log_path})")
            entry = process.wait_ready()
            # After the start, which may have fetched the embedded or a hub model.
            digest = weights_digest(parsed, _revision(extra_args))
            yield _describe(parsed, extra_args, plan, process, entry, digest)


def _describe(
    spec: ServerSpec,
    extra_args: Sequence[str],
    plan: launch.Plan,
    process: ServerProcess,
    entry: Mapping[str, object],
    digest: str | None,
) -> RunningServer:
    """Join what we knew before the start with what the server says of its model (``entry`` of /v1/models)."""
    said = entry.get("meta")
    meta: Mapping[str, object] = said if isinstance(said, dict) else {}
    context = _count(meta.get("n_ctx")) or _count(entry.get("max_model_len"))
    vocabulary = _count(meta.get("n_vocab")) or (launch.vocabulary(plan.weights) if plan.weights else None)
    identity = {
        "serve": str(spec),
        "serve_args": command_without_secrets(extra_args),
        "program": plan.program,
        "version": _version(plan.program),
        "command": command_without_secrets(plan.launch.command),
        "model_name": plan.launch.model_name,
        "weights": digest,
        "vocabulary": vocabulary,
        "context": context,
    }
    return RunningServer(
        base_url=f"{process.root}/v1",
        model_name=plan.launch.model_name,
        weights_digest=digest,
        vocabulary=vocabulary,
        context=context,
        identity=identity,
        log_path=process.log_path,
        process=process,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _version(program: str) -> str | None:
    package = {"ares transformers server": "transformers"}.get(program, program)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # vLLM and lmdeploy usually live in another environment; the probe asks the server itself.
        return None


def _revision(extra_args: Sequence[str]) -> str | None:
    words = list(extra_args)
    return words[words.index("--revision") + 1] if "--revision" in words[:-1] else None
