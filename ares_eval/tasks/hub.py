"""The Hugging Face hub, through `datasets`: rows with the original picture bytes, pinned to a commit.

`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN` and the cache's variables mean what they mean to `datasets`. Whatever
stands between us and the rows becomes one DataUnavailable with its mend; a token is never part of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ares_eval.tasks.arrow import ArrowTable
from ares_eval.tasks.definition import Definition, HubLayout
from ares_eval.tasks.errors import DataUnavailable
from ares_eval.tasks.sources import Source, choose_splits, described
from ares_eval.types import Picture


def hub_source(definition: Definition, dataset_dir: Path | None, cache_dir: Path | None) -> Source:
    """The task's rows from the hub or its cache, downloaded where they are not there. Raises DataUnavailable."""
    hub = definition.hub
    if hub is None:
        raise DataUnavailable(definition.name, "it is on no hub", "give --dataset-dir a folder that has it")
    name, looked = definition.name, f"nothing for it in {dataset_dir}; " if dataset_dir is not None else ""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    # The second base is the HTTP library's own error class (requests or httpx, by version), for failed connections.
    transport: type[Exception] = HfHubHTTPError.__mro__[1]
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(
            hub.path, hub.config, revision=hub.revision, cache_dir=None if cache_dir is None else str(cache_dir)
        )
        builder.download_and_prepare()
        # Builders read from the cache without a network may not know their splits before they are prepared.
        there = set(builder.info.splits or ())
        splits = choose_splits(definition, there.__contains__)
        if splits is None:
            wanted = ", ".join(definition.variants or definition.splits)
            raise DataUnavailable(name, f"{hub.path} has no split {wanted}, only {', '.join(sorted(there))}", _LOCAL)
        tables = tuple(HubTable(builder.as_dataset(split=split), hub, split) for split in splits)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, transport) as error:
        cause, mend = _told(error, hub)
        raise DataUnavailable(name, looked + cause, mend.replace("NAME", name)) from error
    return Source(
        name,
        "hub",
        f"hub: {hub.path}{f', config {hub.config}' if hub.config else ''} ({described(definition, splits)})",
        Path(),
        tables,
        revision=str(builder.hash or hub.revision),
    )


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


_LOCAL = "put it into --dataset-dir as DIR/NAME/ (`ares-eval show NAME` tells the layouts)"


def _told(error: Exception, hub: HubLayout) -> tuple[str, str]:
    """Cause and mend in the reader's terms."""
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled

    chain = _chain(error)
    words = " ".join(str(one) for one in chain)
    token = "set HF_TOKEN" if not _has_token() else "ask for access with the account of HF_TOKEN"
    if any(isinstance(one, GatedRepoError) for one in chain) or "gated" in words:
        return f"{hub.path} is gated", f"accept its terms on the hub and {token}, or {_LOCAL}"
    if any(isinstance(one, OfflineModeIsEnabled) for one in chain) or _offline():
        return f"{hub.path} is not in the hub's cache and HF_HUB_OFFLINE is set", f"unset it, or {_LOCAL}"
    if any(type(one).__name__ in ("RepositoryNotFoundError", "DatasetNotFoundError") for one in chain):
        return f"the hub has no dataset {hub.path} for you (absent, or private)", f"{token}, or {_LOCAL}"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").split("@")[-1]
    first = str(chain[-1]).strip().splitlines() or [type(error).__name__]
    return f"{hub.path} from {endpoint}: {first[0][:200]}", f"check the network and HF_ENDPOINT, or {_LOCAL}"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes, outermost first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain and len(chain) < 16:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _has_token() -> bool:
    return bool(os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"))


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
