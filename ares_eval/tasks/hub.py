"""The Hugging Face hub, through `datasets`: rows with the original picture bytes, pinned to a commit.

`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN` and the cache's variables mean what they mean to `datasets`. Whatever
stands between us and the rows becomes one DataUnavailable with its mend; a token is never part of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ares_eval.tasks.arrow import ArrowTable
from ares_eval.tasks.availability import in_cache, offline
from ares_eval.tasks.definition import Definition, HubLayout
from ares_eval.tasks.errors import DataUnavailable
from ares_eval.tasks.rows import Table
from ares_eval.tasks.sources import Source, choose_splits, described, of_configs
from ares_eval.types import Picture


def hub_source(definition: Definition, dataset_dir: Path | None, cache_dir: Path | None) -> Source:
    """The task's rows from the hub or its cache, downloaded where they are not there. Raises DataUnavailable."""
    hub = definition.hub
    if hub is None:
        raise DataUnavailable(definition.name, "it is on no hub", "give --dataset-dir a folder that has it")
    name, looked = definition.name, f"nothing for it in {dataset_dir}; " if dataset_dir is not None else ""
    unreachable = None if offline() else _unreachable(endpoint())
    if unreachable is not None and not in_cache(hub.path):
        raise DataUnavailable(name, f"{looked}{hub.path} from {shown_endpoint()}: {unreachable}", _mend(name, _NETWORK))
    first = _open(definition, hub.configs[0] if hub.configs else hub.config, cache_dir, unreachable, looked)
    tables: tuple[Table, ...]
    if hub.configs:
        known = {hub.configs[0]: first}

        def opened(config: str, split: str) -> Table:
            dataset = known.pop(config, None) or _open(definition, config, cache_dir, unreachable, looked)
            return dataset.table(split)

        tables = of_configs(hub, opened, first.splits, hub.configs)
    else:
        tables = tuple(first.table(split) for split in first.splits)
    named = f"{len(hub.configs)} configs" if hub.configs else f"config {hub.config}" if hub.config else ""
    cached = f", from its cache, as {shown_endpoint()} {unreachable}" if unreachable is not None else ""
    return Source(
        name,
        "hub",
        f"hub: {hub.path}{', ' if named else ''}{named} ({described(definition, first.splits)}){cached}",
        Path(),
        tables,
        revision=first.revision,
    )


@dataclass(frozen=True)
class _Opened:
    """One config of a dataset, downloaded; ``splits``: those that the task reads."""

    builder: Any
    hub: HubLayout
    splits: tuple[str, ...]

    @property
    def revision(self) -> str:
        return str(self.builder.hash or self.hub.revision)

    def table(self, split: str) -> Table:
        return HubTable(self.builder.as_dataset(split=split), self.hub, split)


def _open(
    definition: Definition, config: str | None, cache_dir: Path | None, unreachable: str | None, looked: str
) -> _Opened:
    """Download one config where it is not in the cache. Raises DataUnavailable."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    hub, name = definition.hub, definition.name
    assert hub is not None
    # The second base is the HTTP library's own error class (requests or httpx, by version), for failed connections.
    transport: type[Exception] = HfHubHTTPError.__mro__[1]
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        with _cached_only(unreachable is not None):
            builder = datasets.load_dataset_builder(
                hub.path, config, revision=hub.revision, cache_dir=None if cache_dir is None else str(cache_dir)
            )
            builder.download_and_prepare()
        # Builders read from the cache without a network may not know their splits before they are prepared.
        there = set(builder.info.splits or ())
        splits = choose_splits(definition, there.__contains__)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, transport) as error:
        cause, mend = _told(error, hub)
        raise DataUnavailable(name, looked + cause, _mend(name, mend)) from error
    if splits is None:
        wanted = ", ".join(definition.variants or definition.splits)
        raise DataUnavailable(name, f"{hub.path} has no split {wanted}, only {', '.join(sorted(there))}", _mend(name))
    return _Opened(builder, hub, splits)


class HubTable(ArrowTable):
    """One split as `datasets` holds it: memory-mapped Arrow, read without decoding any picture."""

    def __init__(self, dataset: Any, hub: HubLayout, split: str) -> None:
        super().__init__(split)
        self._dataset = dataset.with_format("arrow")
        self._name = f"{hub.path} split {split}"

    @property
    def size(self) -> int:
        """Rows."""
        return len(self._dataset)

    def files(self) -> Sequence[Path]:
        """None: the commit is the digest."""
        return ()

    def pieces(self) -> Sequence[str]:
        """The split as a whole."""
        return (self._name,)

    def schema(self, piece: int) -> Any:  # noqa: ARG002
        """Of the storage, where a picture is a struct of bytes and path."""
        return self._dataset.data.schema

    def batches(self, piece: int, size: int) -> Iterator[Any]:  # noqa: ARG002
        """Slices of the memory map."""
        return iter(self._dataset.iter(batch_size=size))

    def cells_from(self, piece: int, row: int, column: str) -> Iterator[tuple[int, Any]]:  # noqa: ARG002
        """The one cell: any row is reached at once."""
        yield row, self._dataset[row : row + 1][column].to_pylist()[0]

    def outside(self, path: Any) -> Picture | None:
        """A file that `datasets` itself put into its cache."""
        if not isinstance(path, str) or not Path(path).is_absolute():
            return None
        return Picture(path, Path(path).read_bytes)


_NETWORK = "check the network and HF_ENDPOINT"


def _mend(name: str, first: str = "") -> str:
    local = f"put it into --dataset-dir as DIR/{name}/ (`ares-eval show {name}` tells the layouts)"
    return f"{first}, or {local}" if first else local


def _told(error: Exception, hub: HubLayout) -> tuple[str, str]:
    """Cause and mend in the reader's terms."""
    from huggingface_hub.errors import GatedRepoError

    chain = _chain(error)
    token = "ask for access with the account of HF_TOKEN" if os.environ.get("HF_TOKEN") else "set HF_TOKEN"
    if any(isinstance(one, GatedRepoError) or "gated dataset" in str(one) for one in chain):
        return f"{hub.path} is gated", f"accept its terms on the hub and {token}"
    if offline():
        return f"{hub.path} is not in the hub's cache and HF_HUB_OFFLINE is set", "unset it"
    if any(type(one).__name__ in ("RepositoryNotFoundError", "DatasetNotFoundError") for one in chain):
        return f"the hub has no dataset {hub.path} for you (absent, or private)", token
    first = str(error).strip().splitlines() or [type(error).__name__]
    return f"{hub.path} from {shown_endpoint()}: {first[0][:200]}", _NETWORK


def endpoint() -> str:
    """The hub's address."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def shown_endpoint() -> str:
    """The hub's address without any password that is part of it."""
    scheme, _, rest = endpoint().rpartition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[-1]}"


@contextlib.contextmanager
def _cached_only(active: bool) -> Iterator[None]:
    """As under HF_HUB_OFFLINE, which both libraries read once, when they are imported."""
    import datasets.config
    import huggingface_hub.constants

    switches: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    for switch in switches:
        switch.HF_HUB_OFFLINE = switch.HF_HUB_OFFLINE or active
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value


@functools.lru_cache(maxsize=4)
def _unreachable(url: str) -> str | None:
    """Why no connection can be made, asked once: the hub's own client would retry for half a minute per dataset.

    None where there is one, or where a proxy stands between and only the client can tell.
    """
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY")):
        return None
    parts = urlsplit(url)
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        with socket.create_connection((parts.hostname or "", port), timeout=_PROBE_SECONDS):
            return None
    except (OSError, ValueError) as error:
        return f"cannot be reached ({error})"


_PROBE_SECONDS = 10.0


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain and len(chain) < 16:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
