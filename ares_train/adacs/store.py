"""Files that stages leave behind: written whole or not at all, done only while their manifest says so.

A stage's folder holds ``part-NNNNN.parquet`` and beside each a manifest ``part-NNNNN.json``. A manifest carries the
fingerprint of the stage's settings and of the part's inputs, so a part made by other settings or from other data is not
done and is made anew. The order of writing (old manifest away, data to a temporary file and renamed, manifest last)
means that a kill at any moment leaves no manifest that speaks of other data. One process writes a part at a time.

Equal tables give equal bytes under one version of pyarrow: nothing of time, host or process is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from ares_eval.types import Json
from ares_train.adacs.errors import AdacsError

VERSION = 1
"""Raised when files of an earlier layout must be made anew."""

Content: TypeAlias = Any
"""A pyarrow.Table, or an iterable of pyarrow.RecordBatch that is written as it comes."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a finished file. ``fingerprint`` covers settings and inputs, ``settings`` the former alone."""

    rows: int
    bytes: int
    sha256: str
    settings: str
    fingerprint: str
    version: int = VERSION


def fingerprint(*values: Any) -> str:
    """SHA-256 (hex) of JSON-like values (dicts in any order, msgspec structs and dataclasses too)."""
    return hashlib.sha256(msgspec.json.encode(plain(values), order="sorted", enc_hook=str)).hexdigest()


def plain(value: Any) -> Any:
    """``value`` with every dataclass in it as a dict of all its fields.

    msgspec leaves out the fields of a dataclass that nobody gave: a setting given as its default would count as another
    one, and a new default would count as the same.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


@dataclass(frozen=True, slots=True)
class Stage:
    """The parts of one stage. ``fingerprint``: of the stage's settings, all that changes its content."""

    folder: Path
    fingerprint: str

    def path(self, part: int) -> Path:
        """Where a part lies, finished or not."""
        return self.folder / f"part-{part:05}.parquet"

    def done(self, part: int, inputs: Sequence[str] = ()) -> bool:
        """Whether the part was finished with these settings and inputs (digests of what it was made from)."""
        return _matches(self.path(part), self.manifest(part), fingerprint(self.fingerprint, list(inputs)))

    def finished(self, part: int) -> bool:
        """Whether the part was finished with these settings, whatever its inputs were."""
        manifest = self.manifest(part)
        if manifest is None or manifest.settings != self.fingerprint:
            return False
        return _matches(self.path(part), manifest, manifest.fingerprint)

    def write(self, part: int, content: Content, schema: pa.Schema, inputs: Sequence[str] = ()) -> Manifest:
        """Write a part; ``content`` is cast to ``schema`` (columns by name; raises where a value does not fit)."""
        path = self.path(part)
        whole = fingerprint(self.fingerprint, list(inputs))
        return _keep(path, path.with_suffix(".json"), content, schema, self.fingerprint, whole)

    def manifest(self, part: int) -> Manifest | None:
        """The part's manifest; None where there is none that can be read."""
        return _read_manifest(self.path(part).with_suffix(".json"))

    def numbers(self) -> list[int]:
        """Numbers of the parts that were finished with these settings, in order."""
        words = (file.stem.removeprefix("part-") for file in sorted(self.folder.glob("part-*.json")))
        return [int(word) for word in words if word.isdigit() and self.finished(int(word))]

    def parts(self) -> list[Path]:
        """The finished parts, in order."""
        return [self.path(number) for number in self.numbers()]

    def keep_only(self, parts: Iterable[int]) -> None:
        """Remove parts of other numbers, left by an earlier run over other data."""
        kept = set(parts)
        for file in [*self.folder.glob("part-*.json"), *self.folder.glob("part-*.parquet")]:
            word = file.stem.removeprefix("part-")
            if word.isdigit() and int(word) not in kept:
                file.unlink(missing_ok=True)


def opened(folder: Path) -> Stage:
    """The stage in ``folder`` as its first part's manifest has it, for readers that know not how it was made."""
    for file in sorted(folder.glob("part-*.json")):
        manifest = _read_manifest(file)
        if manifest is not None:
            return Stage(folder, manifest.settings)
    return Stage(folder, "")


def write_artifact(
    path: Path, content: Content | Json, settings: str, inputs: Sequence[str] = (), *, schema: pa.Schema | None = None
) -> Manifest:
    """Write a single file and its manifest (``NAME.manifest.json``): parquet with a ``schema``, else ``content`` as
    JSON. ``settings``: the stage's fingerprint; ``inputs``: digests of what it was made from."""
    return _keep(path, artifact_manifest(path), content, schema, settings, fingerprint(settings, list(inputs)))


def artifact_done(path: Path, settings: str, inputs: Sequence[str] = ()) -> bool:
    """Whether ``path`` was finished with these settings and inputs."""
    return _matches(path, _read_manifest(artifact_manifest(path)), fingerprint(settings, list(inputs)))


def artifact_manifest(path: Path) -> Path:
    """Where the manifest of a single file lies."""
    return path.with_name(path.name + ".manifest.json")


def begin_artifact(path: Path) -> None:
    """Say that ``path`` is no longer what it was made from: until it is written anew, nobody may read it."""
    artifact_manifest(path).unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 of a finished file by its manifest, part or artefact. Raises FileNotFoundError where it has none."""
    for place in (path.with_suffix(".json"), artifact_manifest(path)):
        manifest = None if place == path else _read_manifest(place)
        if manifest is not None:
            return manifest.sha256
    raise FileNotFoundError(f"{path} is not finished: it has no manifest")


def damaged(folder: Path) -> list[Path]:
    """Finished files below ``folder`` whose bytes are no longer those that their manifests speak of; reads them all."""
    found = []
    for beside in sorted(folder.rglob("*.json")):
        manifest = _read_manifest(beside)
        if manifest is not None:
            name = beside.name.removesuffix(".manifest.json")
            path = beside.with_suffix(".parquet") if name == beside.name else beside.with_name(name)
            if path.is_file() and file_digest(path) != manifest.sha256:
                found.append(path)
    return found


def unfinish(path: Path) -> None:
    """Say that a file, part or artefact, is not done."""
    if path.stem.startswith("part-"):
        path.with_suffix(".json").unlink(missing_ok=True)
    else:
        begin_artifact(path)


def digest_or(path: Path, stage: str) -> str:
    """``digest``, or AdacsError that names the stage whose work is missing."""
    try:
        return digest(path)
    except FileNotFoundError:
        raise AdacsError(f"{path} is not there: run `ares-train adacs {stage}` to its end first") from None


def batches(
    paths: Iterable[Path], columns: Sequence[str] | None = None, rows: int = 65_536
) -> Iterator[pa.RecordBatch]:
    """The rows of parquet files in order, at most ``rows`` at a time, only ``columns`` read."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(rows, columns=None if columns is None else list(columns))


def write_json(path: Path, content: Json) -> None:
    """Replace a JSON file in one step; without a manifest, for files that no stage is made from."""
    write_text(path, _json(content).decode())


def write_text(path: Path, text: str) -> None:
    """Replace a file by ``text`` in one step; without a manifest, for files that only people read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _keep(
    path: Path, beside: Path, content: Content | Json, schema: pa.Schema | None, settings: str, whole: str
) -> Manifest:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside.unlink(missing_ok=True)
    with _replacing(path) as temporary:
        if schema is None:
            rows = 1
            temporary.write_bytes(_json(content))
        else:
            rows = _write_parquet(temporary, content, schema)
        manifest = Manifest(
            rows=rows,
            bytes=temporary.stat().st_size,
            sha256=file_digest(temporary),
            settings=settings,
            fingerprint=whole,
        )
    with _replacing(beside) as temporary:
        temporary.write_bytes(_json(manifest))
    return manifest


def _json(content: Json) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content, order="sorted"), indent=2) + b"\n"


def _write_parquet(path: Path, content: Content, schema: pa.Schema) -> int:
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        if isinstance(content, pa.Table):
            rows = content.num_rows
            writer.write_table(content.select(schema.names).cast(schema), row_group_size=65_536)
        else:
            for batch in content:
                rows += batch.num_rows
                writer.write_table(pa.Table.from_batches([batch]).select(schema.names).cast(schema))
    return rows


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when all went well, on disk before it does."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _matches(path: Path, manifest: Manifest | None, whole: str) -> bool:
    if manifest is None or manifest.version != VERSION or manifest.fingerprint != whole:
        return False
    return path.is_file() and path.stat().st_size == manifest.bytes


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
