"""Which tasks there are: the files of `tasks/`, of further folders, and of sources that others plug in.

A task's name is its file's stem. Suites are named by the tasks (`metadata.suites`), but for `all`, which is every
benchmark of `tasks/`: not `smoke*`, and not the further settings of one (`metadata.variant_of`). Names with a prefix
(`lm:gsm8k_cot`) belong to the entry point of that name in the group `ares_eval.task_sources`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ares_eval import resources
from ares_eval.tasks.definition import Definition, read_definition
from ares_eval.tasks.errors import UnknownTask

ENTRY_POINTS = "ares_eval.task_sources"

BUILT_IN = {"lm": "ares_eval.integrations.lm_eval:SOURCE", "vlm": "ares_eval.integrations.vlmeval:SOURCE"}
"""Prefix -> source of the registries that we come with; their packages are needed only when a task is loaded."""


class TaskSource(Protocol):
    """What an entry point of the group `ares_eval.task_sources` gives; the entry point's name is the prefix.

    It may also have ``resolve(name) -> names``: the tasks that a name stands for, where the source has suites.
    """

    def names(self) -> Iterable[str]:
        """Full names, prefix included."""

    def load(self, name: str, **options: Any) -> Any:
        """An object with the interface of ares_eval.tasks.Task; scoring.py says how it brings its own scoring."""


def files(include_path: Sequence[str | Path] = ()) -> dict[str, Path]:
    """Name -> file of every task, ours first. A name that is given twice is an error (UnknownTask's sibling)."""
    found: dict[str, Path] = {}
    for folder in [resources.folder("tasks"), *map(Path, include_path)]:
        if not folder.is_dir():
            raise UnknownTask(str(folder), cause=f"there is no folder {folder} (--include-path)")
        for path in sorted(folder.glob("*.yaml")):
            if path.stem.startswith("_"):
                continue
            if path.stem in found and found[path.stem].resolve() != path.resolve():
                raise UnknownTask(path.stem, cause=f"{path} has the name of {found[path.stem]}: rename it")
            found[path.stem] = path
    return found


def names(include_path: Sequence[str | Path] = ()) -> tuple[str, ...]:
    """The names of all tasks with a file."""
    return tuple(files(include_path))


def definitions(include_path: Sequence[str | Path] = ()) -> list[Definition]:
    """All tasks with a file, read and checked. Raises BrokenTask for the first that is broken."""
    return [read_definition(path) for path in files(include_path).values()]


def suites(include_path: Sequence[str | Path] = ()) -> dict[str, tuple[str, ...]]:
    """Suite -> its tasks."""
    ours = resources.folder("tasks")
    members: dict[str, list[str]] = {"all": []}
    for definition in definitions(include_path):
        benchmark = not definition.name.startswith("smoke") and definition.variant_of is None
        if definition.file.parent == ours and benchmark:
            members["all"].append(definition.name)
        for suite in definition.suites:
            members.setdefault(suite, []).append(definition.name)
    return {suite: tuple(tasks) for suite, tasks in members.items()}


def resolve(datasets: str | Iterable[str], include_path: Sequence[str | Path] = ()) -> tuple[str, ...]:
    """`--datasets a,b,suite` as task names: suites replaced by their tasks, duplicates dropped, order kept.

    Raises UnknownTask, also where nothing is named.
    """
    words = datasets.split(",") if isinstance(datasets, str) else list(datasets)
    wanted = [word.strip() for word in words if word.strip()]
    if not wanted:
        raise UnknownTask("", cause="no dataset is named")
    known = files(include_path)
    groups: dict[str, tuple[str, ...]] | None = None
    resolved: dict[str, None] = {}
    for word in wanted:
        if word in known:
            resolved[word] = None
        elif ":" in word:
            expand = getattr(external(word), "resolve", None)
            resolved.update(dict.fromkeys(expand(word) if expand is not None else [word]))
        else:
            groups = suites(include_path) if groups is None else groups
            if word not in groups:
                raise UnknownTask(word, _nearest(word, [*known, *groups]))
            resolved.update(dict.fromkeys(groups[word]))
    return tuple(resolved)


def find(name: str, include_path: Sequence[str | Path] = ()) -> Path:
    """The file of a task. Raises UnknownTask."""
    known = files(include_path)
    if name not in known:
        raise UnknownTask(name, _nearest(name, known))
    return known[name]


def prefixes() -> dict[str, Any]:
    """Prefix -> entry point of every task source; nothing of them is imported."""
    from importlib.metadata import EntryPoint, entry_points

    ours = {name: EntryPoint(name, value, ENTRY_POINTS) for name, value in BUILT_IN.items()}
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)} | ours


def external(name: str) -> TaskSource | None:
    """The source that a prefixed name belongs to, imported; None for a name without prefix. Raises UnknownTask."""
    prefix, colon, _ = name.partition(":")
    if not colon:
        return None
    known = prefixes()
    if prefix not in known:
        there = ", ".join(sorted(known))
        raise UnknownTask(name, cause=f"{name!r}: no task source has the prefix {prefix!r} (there are {there})")
    source: TaskSource = known[prefix].load()
    return source


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name.lower(), list(dict.fromkeys(known)), n=3, cutoff=0.4)
