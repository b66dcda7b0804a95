"""Where a task's rows come from: its own files, the authors' files, a Hub folder, a VLMEvalKit TSV, or the Hub.

With `--dataset-dir DIR` the layouts are tried in that order (docs/tasks.md); the first that is there is taken, and
the run's record names it. Without one, or where DIR has nothing for the task, the Hugging Face hub is asked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ares_eval.tasks.definition import Definition, NativeLayout, compile_expression
from ares_eval.tasks.errors import BadRow, DataUnavailable
from ares_eval.tasks.rows import JsonFile, JsonLines, Row, RowError, Table, digest_of, picture_file
from ares_eval.tasks.samples import context
from ares_eval.tasks.templates import TemplateError


@dataclass(frozen=True)
class Source:
    """The rows of a task. ``tables``: one per split that is read; several are read side by side (variants).

    ``layout``: shipped, native, hub-folder, tsv or hub. ``revision``: the Hub's commit, where the rows come from there.
    """

    task: str
    layout: str
    description: str
    root: Path
    tables: tuple[Table, ...]
    adapt: Callable[[Row], Row] | None = None
    revision: str | None = None

    @property
    def size(self) -> int | None:
        """Rows of all tables. Raises BadRow where a file is none of its kind."""
        try:
            sizes = [table.size for table in self.tables]
        except RowError as error:
            raise BadRow(self.task, error.file, error.row, str(error)) from error
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @functools.cached_property
    def digest(self) -> str:
        """The Hub's commit, or SHA-256 over the files that hold the rows. Pictures in files of their own are not
        read for it: each of them is part of its request's key."""
        if self.revision is not None:
            return self.revision
        return "sha256:" + digest_of([path for table in self.tables for path in table.files()], self.root)

    def rows(self) -> Iterator[Row]:
        """The rows in the order of the source; with several tables row by row across them. Raises BadRow."""
        try:
            for row in _side_by_side([table.rows() for table in self.tables]):
                yield self.adapt(row) if self.adapt is not None else row
        except RowError as error:
            raise BadRow(self.task, error.file, error.row, str(error)) from error


def find_source(definition: Definition, dataset_dir: Path | None, cache_dir: Path | None) -> Source:
    """The first place that has the task's data. Raises DataUnavailable."""
    source = find_local(definition, dataset_dir)
    if source is not None:
        return source
    if definition.hub is None:
        raise DataUnavailable(
            definition.name, f"nothing for it in {dataset_dir}", "give --dataset-dir a folder that has it"
        )
    from ares_eval.tasks.hub import hub_source

    return hub_source(definition, dataset_dir, cache_dir)


def find_local(definition: Definition, dataset_dir: Path | None) -> Source | None:
    """The task's data on this machine, outside the Hub's cache; None where there is none. Reads no row."""
    if definition.shipped:
        return _native_source(definition, definition.file.parent, "shipped")
    if dataset_dir is None:
        return None
    if not dataset_dir.is_dir():
        raise DataUnavailable(definition.name, f"{dataset_dir} is no folder", "check --dataset-dir")
    name = definition.name
    if definition.native is not None and (dataset_dir / name).is_dir():
        source = _native_source(definition, dataset_dir / name, "native")
        if source is not None:
            return source
    from ares_eval.tasks.hub_folder import hub_folder_source
    from ares_eval.tasks.tsv import tsv_source

    return hub_folder_source(definition, dataset_dir) or tsv_source(definition, dataset_dir)


def choose_splits(definition: Definition, available: Callable[[str], bool]) -> tuple[str, ...] | None:
    """All variants, or the first split that is there; None where nothing is."""
    if definition.variants:
        return definition.variants if all(available(split) for split in definition.variants) else None
    split = next((split for split in definition.splits if available(split)), None)
    return None if split is None else (split,)


def _native_source(definition: Definition, root: Path, layout: str) -> Source | None:
    native = definition.native
    if native is None:
        return None
    found = {split: path for split, paths in native.files.items() if (path := _first(root, paths)) is not None}
    splits = choose_splits(definition, found.__contains__)
    if splits is None:
        return None
    tables = tuple(_json_table(found[split], split, native.key) for split in splits)
    where = found[splits[0]] if len(splits) == 1 else root
    return Source(
        definition.name,
        layout,
        f"{layout}: {where} ({described(definition, splits)})",
        root,
        tables,
        _native_adapter(definition, native, root, layout),
    )


def described(definition: Definition, splits: Sequence[str]) -> str:
    """The split for people, and that it is not the one that was wanted where it is not."""
    if len(splits) > 1:
        return f"{len(splits)} splits, {splits[0]} to {splits[-1]}"
    wanted = definition.splits[0]
    return f"split {splits[0]}" + (f", as there is no {wanted}" if splits[0] != wanted else "")


def _first(root: Path, patterns: Sequence[str]) -> Path | None:
    for pattern in patterns:
        path = root / pattern
        if path.is_file():
            return path
    return None


def _json_table(path: Path, split: str, key: str | None) -> Table:
    # JSON lines may be called .jsonl or .txt; .json is looked at.
    return JsonFile(path, split, key) if path.suffix == ".json" else JsonLines(path, split)


def _native_adapter(definition: Definition, native: NativeLayout, root: Path, key: str) -> Callable[[Row], Row] | None:
    if not native.columns and not native.pictures:
        return None
    columns, pictures = (
        {
            name: compile_expression(definition, source, key, part, name)
            for name, source in getattr(native, part).items()
        }
        for part in ("columns", "pictures")
    )
    variants = {split: number for number, split in enumerate(definition.variants, 1)}

    def adapt(row: Row) -> Row:
        folder = Path(row.file).parent.relative_to(root).as_posix()
        seen = {"file_folder": folder, **context(row, variants.get(row.split))}
        values = dict(row.values)
        try:
            for name, make in columns.items():
                values[name] = make(seen)
            for name, make in pictures.items():
                values[name] = _native_pictures(root, make(seen))
        except (TemplateError, ValueError) as error:
            raise BadRow(definition.name, row.file, row.number, str(error)) from error
        return Row(values, row.file, row.number, row.index, row.split)

    return adapt


def _native_pictures(root: Path, named: Any) -> Any:
    if named is None:
        return None
    if isinstance(named, (list, tuple)):
        return [picture_file(root, name) for name in named]
    return picture_file(root, named)


def _side_by_side(tables: Sequence[Iterator[Row]]) -> Iterator[Row]:
    if len(tables) == 1:
        yield from tables[0]
        return
    running = list(tables)
    while running:
        for rows in list(running):
            row = next(rows, None)
            if row is None:
                running.remove(rows)
            else:
                yield row


def locations(definition: Definition) -> Mapping[str, str]:
    """Where the task's data is looked for, layout by layout, for people."""
    places = {}
    if definition.shipped:
        return {"shipped": str(definition.file.parent)}
    if definition.native is not None:
        places["native"] = f"DIR/{definition.name}/" + ", ".join(
            p for ps in definition.native.files.values() for p in ps
        )
    if definition.hub is not None:
        places["hub-folder"] = f"DIR/hub_{definition.name}/ or DIR/{definition.name}/hub_{definition.name}*/"
        places["hub"] = (
            f"{definition.hub.path} (config {definition.hub.config or 'default'}, revision {definition.hub.revision})"
        )
    if definition.tsv is not None:
        places["tsv"] = f"DIR/{definition.tsv.name}.tsv"
    return places
