"""lm-eval's YAML without lm-eval: text in, one merged mapping out, every error with its file and line.

Understood: `!function module.name` (kept as a `FunctionRef`, imported only by those who call it) and `include:`
(one path or a list, relative to the file; the including file's keys win, `metadata:` is merged key by key).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ares_eval.tasks.errors import BrokenTask

MAX_BYTES = 1 << 20
"""A task file is a page of text; anything larger is a mistake."""

_MAX_INCLUDES = 16


@dataclass(frozen=True, slots=True)
class FunctionRef:
    """`!function module.name`: ``module`` is a file beside the YAML, else a module of ares_eval."""

    file: Path
    line: int
    module: str
    name: str

    def path(self) -> Path | None:
        """The Python file that holds the function, for fingerprints; None where it cannot be found."""
        beside = self.file.parent / (self.module.replace(".", "/") + ".py")
        if beside.is_file():
            return beside
        if self.module.split(".")[0] != "ares_eval":
            return None
        spec = importlib.util.find_spec(self.module)
        return Path(spec.origin) if spec and spec.origin else None

    def load(self) -> Callable[..., Any]:
        """Import the function. Only a file beside the YAML or a module of ares_eval is imported."""
        path = self.path()
        if path is None:
            raise BrokenTask(
                self.file, self.line, f"!function {self.module}.{self.name}: no {self.module}.py beside it"
            )
        if path.parent == self.file.parent:
            name = f"ares_task_{self.file.parent.name}_{self.module}"
            module = sys.modules.get(name)
            if module is None or getattr(module, "__file__", None) != str(path):
                spec = importlib.util.spec_from_file_location(name, path)
                if spec is None or spec.loader is None:
                    raise BrokenTask(self.file, self.line, f"{path} cannot be imported")
                module = importlib.util.module_from_spec(spec)
                sys.modules[name] = module
                spec.loader.exec_module(module)
        else:
            module = importlib.import_module(self.module)
        function = getattr(module, self.name, None)
        if not callable(function):
            raise BrokenTask(self.file, self.line, f"!function {self.module}.{self.name}: no such function")
        return function  # type: ignore[no-any-return]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """SafeLoader that knows `!function` and refuses a key given twice (YAML would keep the last, silently)."""

    path: Path

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _function(loader: _Loader, node: yaml.Node) -> FunctionRef:
    text = loader.construct_scalar(node)
    module, dot, name = str(text).strip().rpartition(".")
    line = node.start_mark.line + 1
    if not dot or not all(part.isidentifier() for part in [*module.split("."), name]):
        raise BrokenTask(loader.path, line, f"!function {text}: must be MODULE.FUNCTION")
    return FunctionRef(loader.path, line, module, name)


_Loader.add_constructor("!function", _function)


@dataclass(frozen=True, slots=True)
class YamlTask:
    """A parsed task file. ``config``: the merged mapping; ``files``: the file itself and all it includes."""

    file: Path
    config: Mapping[str, Any]
    files: tuple[Path, ...]

    def error(self, cause: str, *keys: str) -> BrokenTask:
        """An error at the line of the nested key ``keys``, in whichever of the files has it."""
        for file in self.files:
            line = _line_of(file, keys)
            if line is not None:
                return BrokenTask(file, line, cause)
        return BrokenTask(self.file, None, cause)


def read_yaml(file: Path) -> YamlTask:
    """Read a task file and what it includes. Raises BrokenTask."""
    files: list[Path] = []
    return YamlTask(file, _read(file, files, ()), tuple(files))


def _read(file: Path, files: list[Path], parents: Sequence[Path]) -> dict[str, Any]:
    if file in parents or len(parents) > _MAX_INCLUDES:
        raise BrokenTask(parents[-1], None, f"include: {file.name} includes itself")
    files.append(file)
    config = _parse(file)
    includes = config.pop("include", None)
    if includes is None:
        return config
    merged: dict[str, Any] = {}
    for name in [includes] if isinstance(includes, str) else includes:
        if not isinstance(name, str):
            raise BrokenTask(file, _line_of(file, ("include",)), "include: must be a path or a list of paths")
        path = file.parent / name
        if not path.is_file():
            raise BrokenTask(file, _line_of(file, ("include",)), f"include: there is no {path}")
        merged = _merged(merged, _read(path, files, [*parents, file]))
    return _merged(merged, config)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """lm-eval's rule, a shallow update, but `metadata:` (ours) is merged one level deeper."""
    both = {**base, **over}
    if isinstance(base.get("metadata"), dict) and isinstance(over.get("metadata"), dict):
        both["metadata"] = {**base["metadata"], **over["metadata"]}
    return both


def _parse(file: Path) -> dict[str, Any]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BrokenTask(file, None, f"cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise BrokenTask(file, None, f"is {len(data)} bytes long, more than {MAX_BYTES}")
    try:
        loader = _Loader(data.decode("utf-8"))
        loader.path = file
        try:
            config = loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise BrokenTask(file, data.count(b"\n", 0, error.start) + 1, "is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise BrokenTask(file, line, error.problem or "is not YAML") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise BrokenTask(file, None, f"is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise BrokenTask(file, 1, "a task must be a mapping of keys to values")
    for key in config:
        if not isinstance(key, str):
            raise BrokenTask(file, None, f"the key {key!r} is not a text")
    return config


def _line_of(file: Path, keys: Sequence[str]) -> int | None:
    """The line (from 1) of a nested key; looked up only when there is an error to tell."""
    node = yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader)
    line = None
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
            continue
        if not isinstance(node, yaml.MappingNode):
            return line
        found = next(((k, v) for k, v in node.value if k.value == key), None)
        if found is None:
            return line
        line, node = found[0].start_mark.line + 1, found[1]
    return line
