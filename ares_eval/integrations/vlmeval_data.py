"""Where VLMEvalKit's tables lie, and what was made of them: the index of datasets, prepared prompts.

A table is looked for in ``--dataset-dir``, ``$LMUData``, ``~/LMUData`` and our own store, in this order, and else
fetched from the address that VLMEvalKit names for it, with its checksum. Prompts and pictures are made once per content
of the table, in the locked-down child, and kept in the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.metadata
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ares_eval.integrations import vlmeval_process as process
from ares_eval.tasks.errors import DataUnavailable
from ares_eval.types import Json

PACKAGE = "ms-vlmeval"
LMU_DATA = "LMUData"
"""VLMEvalKit's environment variable for the folder of its tables."""
INSTALL = "pip install 'ares[vlm]' && pip install --no-deps ms-vlmeval==0.0.20"
FORMAT = 1
"""Raised when what is prepared changes its form or content."""
TIMEOUT = 60.0
"""Seconds without a byte before a download counts as lost."""


class Dataset(msgspec.Struct, frozen=True, rename={"kind": "class"}):
    """What VLMEvalKit says about one of its datasets."""

    module: str
    kind: str
    url: str | None
    md5: str | None
    type: str
    modality: str


class Index(msgspec.Struct, frozen=True):
    """All datasets that can be reached without torch; ``missing``: modules that need more packages, and which."""

    datasets: dict[str, Dataset]
    missing: dict[str, str]


class Row(msgspec.Struct, frozen=True):
    """A prepared row: its prompt as (kind, text or path of a picture) pairs, its columns without pictures."""

    index: str
    parts: list[tuple[str, str]]
    columns: dict[str, Json]


class Prepared(msgspec.Struct, frozen=True):
    """What was prepared of a table: number of all its rows, and VLMEvalKit's type and class."""

    rows: int
    type: str
    kind: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table that was found. ``digest``: SHA-256 of its bytes; ``official``: whether its checksum is VLMEvalKit's,
    None where VLMEvalKit names none."""

    path: Path
    digest: str
    official: bool | None


def version() -> str | None:
    """The installed version of VLMEvalKit, without importing it."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def store() -> Path:
    """Our folder for tables, prompts and pictures."""
    from ares_eval.config import user_cache

    return user_cache() / "vlmeval"


# ---------------------------------------------------------------- the index


def index() -> Index:
    """The datasets of the installed VLMEvalKit; made by the child at the first use, kept per version.

    Raises process.ChildFailed, and DataUnavailable where it is not installed.
    """
    installed = version()
    if installed is None:
        raise DataUnavailable("vlm", "VLMEvalKit is not installed", INSTALL)
    path = store() / f"index-{installed}-{FORMAT}.json"
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=Index)
    with folder() as own:
        made = process.run("index", own)
    found = msgspec.convert(made.value, Index)
    _write(path, msgspec.json.encode(made.value))
    return found


# ---------------------------------------------------------------- tables


def find(name: str, dataset: Dataset | None, dataset_dir: Path | None, *, fetch: bool = True) -> Table:
    """The table of a dataset, fetched where it is not here. Raises DataUnavailable."""
    for place in places(dataset_dir):
        path = place / f"{name}.tsv"
        if path.is_file():
            return _table(path, dataset)
    if dataset is None or not dataset.url or not fetch:
        where = "; from " + dataset.url if dataset and dataset.url else ""
        raise DataUnavailable(f"vlm:{name}", f"no {name}.tsv", f"put it into --dataset-dir or $LMUData{where}")
    return _table(download(name, dataset), dataset)


def places(dataset_dir: Path | None) -> list[Path]:
    """Folders in which tables are looked for."""
    named = os.environ.get(LMU_DATA)
    return [
        *([dataset_dir] if dataset_dir else []),
        *([Path(named)] if named else []),
        Path.home() / "LMUData",
        store() / "tables",
    ]


def _table(path: Path, dataset: Dataset | None) -> Table:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    expected = dataset.md5 if dataset else None
    return Table(path, sha256.hexdigest(), None if expected is None else md5.hexdigest() == expected)


def download(name: str, dataset: Dataset) -> Path:
    """Fetch a table from VLMEvalKit's address into our store. Raises DataUnavailable, also for a wrong checksum."""
    assert dataset.url is not None
    target = store() / "tables" / f"{name}.tsv"
    target.parent.mkdir(parents=True, exist_ok=True)
    md5 = hashlib.md5(usedforsecurity=False)
    mend = f"fetch {dataset.url} yourself, as {name}.tsv in --dataset-dir"
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".part-", delete=False) as part:
        try:
            if not dataset.url.startswith(("https://", "http://")):
                raise DataUnavailable(f"vlm:{name}", f"{dataset.url} is no web address", mend)
            with urllib.request.urlopen(dataset.url, timeout=TIMEOUT) as answer:
                while block := answer.read(1 << 20):
                    part.write(block)
                    md5.update(block)
            part.flush()
            if dataset.md5 is not None and md5.hexdigest() != dataset.md5:
                raise DataUnavailable(f"vlm:{name}", f"{dataset.url} has not the checksum {dataset.md5}", mend)
            Path(part.name).replace(target)
        except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
            raise DataUnavailable(f"vlm:{name}", f"{dataset.url} cannot be had ({_plain(error)})", mend) from None
        finally:
            Path(part.name).unlink(missing_ok=True)
    return target


def _plain(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason if reason is not None else error) or type(error).__name__


# ---------------------------------------------------------------- prompts


def prepared(name: str, dataset: Dataset | None, table: Table, limit: int | None) -> Path:
    """The folder with ``rows.jsonl``, ``prepared.json`` and pictures for the first ``limit`` rows; made where missing.

    Raises DataUnavailable where VLMEvalKit cannot read the table or make a prompt.
    """
    content = [FORMAT, version(), name, table.digest, limit]
    key = hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16]
    target = store() / "prompts" / f"{name}-{key}"
    if (target / "prepared.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with folder(target.parent) as own:
        link_data(own, name, table)
        try:
            made = process.run(
                "prepare",
                own,
                readable=[table.path, table.path.parent],
                memory_bytes=process.MEMORY_BYTES + 8 * table.path.stat().st_size,
                seconds=900 + table.path.stat().st_size / 1e6,
                name=name,
                entry=to_entry(dataset),
                limit=limit,
            )
        except process.ChildFailed as error:
            mend = "check the table" if table.official is not True else "see docs/vlmevalkit.md"
            raise DataUnavailable(
                f"vlm:{name}", f"VLMEvalKit makes no prompts of {table.path} ({error})", mend
            ) from None
        value = {"rows": made.value["rows"], "type": made.value["type"], "kind": made.value["class"]}
        (own / "prepared.json").write_bytes(msgspec.json.encode(value))
        _keep(own, target)
    return target


def _keep(own: Path, target: Path) -> None:
    """Move what was made to its place, all at once; another process may have been faster. The table's links go."""
    for entry in (own / "data").iterdir():
        if entry.is_symlink():
            entry.unlink()
    kept = own.with_name(own.name + "-kept")
    kept.mkdir()
    for name in ("rows.jsonl", "prepared.json", "data"):
        (own / name).rename(kept / name)
    try:
        kept.rename(target)
    except OSError:
        shutil.rmtree(kept)


def read_prepared(place: Path) -> Prepared:
    """What is known of a prepared folder."""
    return msgspec.json.decode((place / "prepared.json").read_bytes(), type=Prepared)


def rows(place: Path, data: Path) -> Iterator[Row]:
    """The rows of a prepared folder, paths of pictures resolved; ``data``: the folder of the table.

    Raises ValueError for a picture that lies neither in the prepared folder nor beside the table.
    """
    decoder = msgspec.json.Decoder(Row)
    allowed = (place.resolve(), data.resolve())
    with (place / "rows.jsonl").open("rb") as lines:
        for line in lines:
            row = decoder.decode(line)
            parts = [
                (kind, str(_inside(place / text, allowed)) if kind == "image" else text) for kind, text in row.parts
            ]
            yield Row(row.index, parts, row.columns)


def _inside(path: Path, allowed: tuple[Path, ...]) -> Path:
    found = path.resolve()
    if not any(found.is_relative_to(folder) for folder in allowed):
        raise ValueError(f"the picture {path} lies outside the data")
    return found


def link_data(own: Path, name: str, table: Table) -> None:
    """Lay the table, its neighbours and its pictures into ``own/data`` by reference."""
    data = own / "data"
    data.mkdir(exist_ok=True)
    for entry in sorted(table.path.parent.iterdir()):
        if entry.is_file() and entry.suffix in (".tsv", ".json") and entry.name != f"{name}.tsv":
            (data / entry.name).symlink_to(entry.resolve())
    (data / f"{name}.tsv").symlink_to(table.path.resolve())
    pictures = table.path.parent / "images"
    if pictures.is_dir():
        _link_tree(pictures, data / "images")


def _link_tree(source: Path, target: Path) -> None:
    """The same folders, and links to the files: the child may add files of its own."""
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _link_tree(entry, target / entry.name)
        else:
            (target / entry.name).symlink_to(entry.resolve())


# ---------------------------------------------------------------- folders


@contextlib.contextmanager
def folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder for one child, gone with all in it afterwards."""
    own = Path(tempfile.mkdtemp(prefix=".vlmeval-", dir=parent))
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def to_entry(dataset: Dataset | None) -> Mapping[str, Json] | None:
    """The dataset as the child takes it."""
    return None if dataset is None else msgspec.to_builtins(dataset)
