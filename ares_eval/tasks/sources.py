"""Where a task's rows come from: its own files, the authors' files, a Hub folder, a VLMEvalKit TSV, or the Hub.

With `--dataset-dir DIR` the layouts are tried in that order (docs/tasks.md); the first that is there is taken, and
the run's record names it. Without one, or where DIR has nothing for the task, the Hugging Face hub is asked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ares_eval.tasks.definition import Definition, HubLayout, NativeLayout, compile_expression
from ares_eval.tasks.errors import BadRow, DataUnavailable
from ares_eval.tasks.rows import Chain, JsonFile, JsonLines, Row, RowError, Table, digest_of, picture_file
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

    def size_until(self, limit: int) -> int | None:
        """Rows, as far as it takes to know that there are ``limit`` of them; opens no more of the source than that."""
        if len(self.tables) == 1 and isinstance(self.tables[0], Chain):
            try:
                return self.tables[0].size_until(limit)
            except RowError as error:
                raise BadRow(self.task, error.file, error.row, str(error)) from error
        return self.size

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
    for folder in definition.folders:
        if definition.native is not None and (dataset_dir / folder).is_dir():
            source = _native_source(definition, dataset_dir / folder, "native")
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
    tables = tuple(_joined([_json_table(path, split, native) for path in found[split]]) for split in splits)
    where = found[splits[0]][0] if len(splits) == 1 and len(found[splits[0]]) == 1 else root
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


def _first(root: Path, patterns: Sequence[str]) -> list[Path] | None:
    for pattern in patterns:
        paths = sorted(root.glob(pattern)) if "*" in pattern else [root / pattern]
        if paths and all(path.is_file() for path in paths):
            return paths
    return None


def _json_table(path: Path, split: str, native: NativeLayout) -> Table:
    # JSON lines may be called .jsonl or .txt; .json is looked at.
    return JsonFile(path, split, native.key, native.rows) if path.suffix == ".json" else JsonLines(path, split)


def _joined(tables: Sequence[Table]) -> Table:
    return tables[0] if len(tables) == 1 else Chain([functools.partial(_itself, table) for table in tables])


def _itself(table: Table) -> Table:
    return table


def of_configs(
    hub: HubLayout, open_config: Callable[[str, str], Table], splits: Sequence[str], configs: Sequence[str]
) -> tuple[Table, ...]:
    """The tables of a dataset of several configs; ``open_config(config, split)`` is called when its rows are due."""
    openers = [functools.partial(open_config, config, splits[0]) for config in configs]
    added = [{"config": config} for config in configs]
    if hub.interleaved:
        return tuple(Chain([opener], [values]) for opener, values in zip(openers, added, strict=True))
    return (Chain(openers, added),)


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

    def adapt(row: Row) -> Row:
        path = Path(row.file)
        folder = path.parent.relative_to(root).as_posix()
        seen = {"file_folder": folder, "file_stem": path.stem, **context(row)}
        values = dict(row.values)
        try:
            for name, make in columns.items():
                values[name] = make(seen)
            for name, make in pictures.items():
                values[name] = _native_pictures(root, make(seen))
        except (TemplateError, ValueError) as error:
            raise BadRow(definition.name, row.file, row.number, str(error)) from error
        return replace(row, values=values)

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
    running = list(enumerate(tables, 1))
    while running:
        for number, rows in list(running):
            row = next(rows, None)
            if row is None:
                running.remove((number, rows))
            else:
                yield replace(row, variant=number)


def locations(definition: Definition) -> Mapping[str, str]:
    """Where the task's data is looked for, layout by layout, for people."""
    places = {}
    if definition.shipped:
        return {"shipped": str(definition.file.parent)}
    if definition.native is not None:
        folders = " or ".join(f"DIR/{folder}/" for folder in definition.folders)
        places["native"] = f"{folders}: " + ", ".join(p for ps in definition.native.files.values() for p in ps)
    if definition.hub is not None:
        places["hub-folder"] = f"DIR/hub_{definition.name}/ or DIR/{definition.name}/hub_{definition.name}*/"
        hub = definition.hub
        configs = f"{len(hub.configs)} configs" if hub.configs else f"config {hub.config or 'default'}"
        places["hub"] = f"{hub.path} ({configs}, revision {hub.revision})"
    if definition.tsv is not None:
        places["tsv"] = f"DIR/{definition.tsv.name}.tsv"
    return places
