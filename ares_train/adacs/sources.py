"""The rows of a source: JSONL, JSON, parquet, globs of them, a folder in the Hub's form, or a dataset of the Hub.

Files are read as the evaluator reads benchmarks (ares_eval.tasks): lazily, pictures by reference, every fault with file
and row.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ares_eval.tasks import DataUnavailable, TaskError
from ares_eval.tasks.arrow import Parquet
from ares_eval.tasks.definition import Definition, HubLayout
from ares_eval.tasks.hub_folder import split_files
from ares_eval.tasks.rows import Chain, JsonFile, JsonLines, Row, RowError, Table, digest_of
from ares_eval.tasks.yaml_task import YamlTask
from ares_train.adacs.config import SourceConfig
from ares_train.adacs.errors import AdacsError

_SUFFIXES = {".jsonl": "lines", ".json": "json", ".parquet": "parquet", ".pq": "parquet"}


@dataclass(frozen=True)
class Opened:
    """A source that was found. ``digest``: of its files, or the Hub's commit. ``image_root``: where pictures lie that
    rows name by path; None for a dataset of the Hub where none was given."""

    config: SourceConfig
    table: Table
    image_root: Path | None
    digest: str
    description: str

    def size(self) -> int | None:
        """How many rows ``rows`` gives; None where only reading would tell. Raises AdacsError."""
        with faults(f"source {self.config.name}"):
            size, limit = self.table.size, self.config.limit
        return size if limit is None or size is None else min(size, limit)

    def rows(self) -> Iterator[Row]:
        """The rows in order, at most ``limit`` of them. Raises AdacsError with file and row."""
        with faults(f"source {self.config.name}"):
            yield from itertools.islice(self.table.rows(), self.config.limit)


@contextlib.contextmanager
def faults(what: str) -> Iterator[None]:
    """Faults of files as AdacsError: what was read, file, row where there is one, and cause."""
    try:
        yield
    except RowError as error:
        row = f", row {error.row}" if error.row else ""
        raise AdacsError(f"{what}: {error.file}{row}: {error}") from error
    except OSError as error:
        raise AdacsError(f"{what}: {error.filename or 'a file'}: {error.strerror or error}") from error


def open_source(config: SourceConfig) -> Opened:
    """Find a source. Raises AdacsError."""
    if config.hub is not None:
        return _hub(config)
    assert config.path is not None
    path = Path(config.path).expanduser()
    if path.is_dir():
        try:
            files = split_files(config.name, path, config.config).get(config.split, [])
        except TaskError as error:
            raise AdacsError(f"source {config.name}: {error}") from error
        if not files:
            raise AdacsError(f"source {config.name}: {path} has no split {config.split}")
    else:
        files = [Path(name) for name in sorted(glob.glob(str(path)))]  # noqa: PTH207 - the pattern may be absolute
        if not files:
            raise AdacsError(f"source {config.name}: there is no file {path}")
    root = files[0].parent if not path.is_dir() else path
    with faults(f"source {config.name}"):
        digest = digest_of(files, root)
    return Opened(
        config,
        files_table(config.name, files, config.split),
        config.image_root or root,
        f"sha256:{digest}",
        f"{path} ({len(files)} file{'s' if len(files) > 1 else ''})",
    )


def files_table(name: str, files: list[Path], split: str) -> Table:
    """One table of files of a known kind. Raises AdacsError."""
    for file in files:
        if file.suffix not in _SUFFIXES:
            raise AdacsError(f"source {name}: {file} is none of {', '.join(_SUFFIXES)}")
    if all(_SUFFIXES[file.suffix] == "parquet" for file in files):
        return Parquet(files, split)
    return Chain([functools.partial(_file_table, file, split) for file in files])


def _file_table(file: Path, split: str) -> Table:
    kind = _SUFFIXES[file.suffix]
    if kind == "parquet":
        return Parquet([file], split)
    return JsonFile(file, split, None) if kind == "json" else JsonLines(file, split)


def _hub(config: SourceConfig) -> Opened:
    from ares_eval.tasks.hub import hub_source

    assert config.hub is not None
    layout = HubLayout(config.hub, config.config, config.revision)
    try:
        source = hub_source(_definition(config, layout), None, None)
    except DataUnavailable as error:
        raise AdacsError(f"source {config.name}: {error.cause}; check the name, the network and HF_TOKEN") from error
    return Opened(config, source.tables[0], config.image_root, source.digest, source.description)


def _definition(config: SourceConfig, hub: HubLayout) -> Definition:
    """What the evaluator's reader of the Hub needs to know: a dataset and its split."""
    return Definition(
        name=config.name,
        yaml=YamlTask(Path(config.name), {}, ()),
        suites=(),
        modality="image+text",
        metrics=(),
        repeats=1,
        size=None,
        hub=hub,
        native=None,
        shipped=False,
        tsv=None,
        splits=(config.split,),
        variants=(),
        answers=(),
        images=(),
    )
