"""VLMEvalKit's datasets without VLMEvalKit's start: no torch, no model classes, no side effects. In the child only.

`import vlmeval` takes half a minute, a gigabyte and torch, switches certificate checks off and reads a ``.env``. Here
the two packages get empty modules whose ``__path__`` is the installed folder, so that each dataset module is imported
by itself. What is put in the place of theirs, and why:

- ``eval`` in their modules takes literals and arithmetic only: they evaluate what the model wrote;
- ``build_judge`` gives the caller's judge: no vendor client, no key, no network;
- ``track_progress_rich`` writes its side file once, not after every row, and knows which row asks the judge;
- ``timeout_decorator`` and ``multiprocessing.Pool`` without semaphores, and no fixed names in ``/tmp``: both lie
  outside the own folder;
- predictions are read back as the texts they are ("007", "NA"), not as numbers or NaN.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import json
import multiprocessing
import operator
import os
import pkgutil
import re
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

PACKAGE = "ms-vlmeval"
LMU_DATA = "LMUData"

current = threading.local()
"""``row``: the row (pandas Series) that the thread is scoring."""


def package_folder() -> Path:
    """The installed ``vlmeval`` folder, found without importing it. Raises PackageNotFoundError."""
    return Path(str(importlib.metadata.distribution(PACKAGE).locate_file("vlmeval")))


def install(judge: Callable[..., Any]) -> None:
    """Make ``vlmeval.dataset.*`` importable, once per process; ``judge(**kwargs)`` stands in for build_judge."""
    root = package_folder()
    for name, folder in (("vlmeval", root), ("vlmeval.dataset", root / "dataset")):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
    _guard_eval()
    sys.modules["timeout_decorator"] = _timeouts()
    multiprocessing.Pool = _Pool  # type: ignore[assignment]
    files = importlib.import_module("vlmeval.smp.file")
    smp = importlib.import_module("vlmeval.smp")
    files.load = smp.load = _own_temporary(_texts_kept(files.load), 0)  # type: ignore[attr-defined]
    files.dump = smp.dump = _own_temporary(files.dump, 1)  # type: ignore[attr-defined]
    utils = importlib.import_module("vlmeval.utils")
    importlib.import_module("vlmeval.utils.mp_util").track_progress_rich = _track  # type: ignore[attr-defined]
    utils.track_progress_rich = _track  # type: ignore[attr-defined]
    judging = importlib.import_module("vlmeval.dataset.utils.judge_util")
    judging.build_judge = judge  # type: ignore[attr-defined]
    for name, module in list(sys.modules.items()):
        if name.startswith("vlmeval.") and hasattr(module, "build_judge"):
            module.build_judge = judge  # type: ignore[attr-defined]


# ---------------------------------------------------------------- which datasets there are


def index() -> dict[str, Any]:
    """Every dataset that can be reached: name -> module, class, url, md5, type, modality; and what cannot, why."""
    root = package_folder() / "dataset"
    # Of classes that claim the same name VLMEvalKit takes the first of its lists, which follow the imports.
    lists = (root / "__init__.py").read_text(encoding="utf-8").partition("\nIMAGE_DATASET = [")[2]
    order = re.findall(r"\b[A-Z_]\w+", lists)
    rank = {name: place for place, name in reversed(list(enumerate(order)))}
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    missing: dict[str, str] = {}
    for info in pkgutil.iter_modules([str(root)]):
        if info.name == "utils":
            continue
        try:
            module = importlib.import_module(f"vlmeval.dataset.{info.name}")
        except Exception as error:  # noqa: BLE001 - a module that needs more packages is one that is not reached
            missing[info.name] = f"{type(error).__name__}: {error}"[:200]
            continue
        for kind in vars(module).values():
            if not (inspect.isclass(kind) and kind.__name__ in rank and hasattr(kind, "supported_datasets")):
                continue
            if not kind.__module__.startswith(f"vlmeval.dataset.{info.name}"):
                continue
            for name in _names(kind):
                entry = _entry(name, kind)
                if name not in found or rank[kind.__name__] < found[name][0]:
                    found[name] = (rank[kind.__name__], entry)
    return {"datasets": {name: entry for name, (_, entry) in sorted(found.items())}, "missing": missing}


def _names(kind: Any) -> list[str]:
    try:
        return [str(name) for name in kind.supported_datasets()]
    except Exception:  # noqa: BLE001 - base classes raise whatever they like
        return []


def _entry(name: str, kind: Any) -> dict[str, Any]:
    def of(attribute: str) -> Any:
        table = getattr(kind, attribute, None)
        value = table.get(name) if isinstance(table, Mapping) else None
        return value if isinstance(value, str) and value else None

    kinds = [str(getattr(kind, a, "") or "") for a in ("TYPE", "MODALITY")]
    return {
        "module": kind.__module__,
        "class": kind.__name__,
        "url": of("DATASET_URL"),
        "md5": of("DATASET_MD5"),
        "type": kinds[0],
        "modality": kinds[1] or "IMAGE",
    }


def build(name: str, entry: Mapping[str, Any] | None) -> Any:
    """The dataset object, its rows read from ``$LMUData``; ``entry`` None: a table of the user's own."""
    kind = _custom(name) if entry is None else getattr(importlib.import_module(entry["module"]), entry["class"])
    # The caller has compared the checksum and says so; here a difference would start a download.
    checksums = getattr(kind, "DATASET_MD5", None)
    if isinstance(checksums, dict) and name in checksums:
        kind.DATASET_MD5 = {key: value for key, value in checksums.items() if key != name}
    return kind(dataset=name)


def _custom(name: str) -> Any:
    """The class that VLMEvalKit takes for a table it does not know (its build_dataset)."""
    import pandas as pd

    head = pd.read_csv(Path(os.environ[LMU_DATA]) / f"{name}.tsv", sep="\t", nrows=1)
    if "question" not in [str(column).lower() for column in head.columns]:
        raise ValueError(f"{name}.tsv has no column `question`")
    pictures = "image" in head or "image_path" in head
    if "A" in head and "B" in head:
        module, kind = ("image_mcq", "CustomMCQDataset") if pictures else ("text_mcq", "CustomTextMCQDataset")
    else:
        module, kind = "image_vqa", "CustomVQADataset"
    return getattr(importlib.import_module(f"vlmeval.dataset.{module}"), kind)


# ---------------------------------------------------------------- what stands in for theirs


class EvalRefused(NameError):
    """An expression that is no literal and no arithmetic."""


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
LONGEST_EXPRESSION = 200_000
LARGEST_BITS = 20_000
"""Bits of the largest integer that arithmetic may make: a power tower must not stop the machine."""


def literal(source: str) -> Any:
    """The value of an expression of literals, containers and arithmetic.

    Raises SyntaxError as eval does, EvalRefused (a NameError, as eval raises for unknown names) for anything else,
    OverflowError where a number grows too large.
    """
    if len(source) > LONGEST_EXPRESSION:
        raise EvalRefused("too long an expression")
    try:
        return _value(ast.parse(source.lstrip(" \t"), mode="eval").body)
    except (RecursionError, MemoryError):
        raise EvalRefused("too deep an expression") from None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [_value(item) for item in node.elts]
        case ast.Tuple():
            return tuple(_value(item) for item in node.elts)
        case ast.Set():
            return {_value(item) for item in node.elts}
        case ast.Dict() if all(key is not None for key in node.keys):
            keys = [_value(key) for key in node.keys if key is not None]
            return dict(zip(keys, map(_value, node.values), strict=True))
        case ast.UnaryOp() if type(node.op) in _UNARY:
            return _UNARY[type(node.op)](_value(node.operand))
        case ast.BinOp() if type(node.op) in _BINARY:
            return _arithmetic(node.op, _value(node.left), _value(node.right))
    raise EvalRefused(f"{type(node).__name__} is not evaluated")


def _arithmetic(op: ast.operator, left: Any, right: Any) -> Any:
    if not all(isinstance(side, int | float | complex) for side in (left, right)):
        if isinstance(op, ast.Add) and type(left) is type(right) and isinstance(left, str | list | tuple):
            return left + right
        raise TypeError("arithmetic on something that is no number")
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * (max(0, right) if isinstance(op, ast.Pow) else 1) + right.bit_length()
        if bits > LARGEST_BITS:
            raise OverflowError("too large a number")
    return _BINARY[type(op)](left, right)


def _guard_eval() -> None:
    """Their modules (by the caller's ``__name__``) get `literal` for eval, and no exec; all others the real ones."""
    real, execute = builtins.eval, builtins.exec

    def guarded(source: Any, scope: Any = None, local: Any = None, /) -> Any:
        frame = sys._getframe(1)
        if str(frame.f_globals.get("__name__", "")).startswith("vlmeval"):
            if not isinstance(source, str):
                raise TypeError("eval() arg 1 must be a string, bytes or code object")
            return literal(source)
        return real(source, *_scopes(frame, scope, local))

    def refused(source: Any, scope: Any = None, local: Any = None, /, **more: Any) -> None:
        frame = sys._getframe(1)
        if str(frame.f_globals.get("__name__", "")).startswith("vlmeval"):
            raise EvalRefused("programs that a model wrote are not run")
        execute(source, *_scopes(frame, scope, local), **more)

    builtins.eval, builtins.exec = guarded, refused


def _scopes(frame: types.FrameType, scope: Any, local: Any) -> tuple[Any, Any]:
    """Globals and locals as eval takes them from its caller."""
    if scope is None:
        return frame.f_globals, frame.f_locals if local is None else local
    return scope, scope if local is None else local


def _texts_kept(load: Callable[..., Any]) -> Callable[..., Any]:
    """VLMEvalKit's ``load``, whose tables keep predictions as they were written."""

    @functools.wraps(load)
    def kept(file: Any, fmt: Any = None) -> Any:
        suffix = fmt or str(file).rsplit(".", 1)[-1]
        if suffix in ("tsv", "csv") and Path(str(file)).exists():
            import pandas as pd

            return pd.read_csv(file, sep="\t" if suffix == "tsv" else ",", converters={"prediction": str})
        return load(file, fmt)

    return kept


def _own_temporary(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """``load`` or ``dump``, whose file is argument number ``place``, with their fixed ``/tmp/`` in the own folder."""

    @functools.wraps(function)
    def moved(*arguments: Any, **named: Any) -> Any:
        file = arguments[place] if len(arguments) > place else None
        if isinstance(file, str) and file.startswith("/tmp/") and not file.startswith(os.environ["HOME"]):
            changed = str(Path(os.environ["TMPDIR"], Path(file).name))
            arguments = (*arguments[:place], changed, *arguments[place + 1 :])
        return function(*arguments, **named)

    return moved


class _Pool:
    """The part of multiprocessing.Pool that their scorers use, in threads: its queues need semaphores."""

    def __init__(self, processes: int | None = None, *_: Any, **__: Any) -> None:
        self._threads = ThreadPoolExecutor(max_workers=min(processes or 4, 16))

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], _chunk: int | None = None) -> list[Any]:
        return list(self._threads.map(function, items))

    def starmap(self, function: Callable[..., Any], items: Iterable[Any], _chunk: int | None = None) -> list[Any]:
        return list(self._threads.map(lambda item: function(*item), items))

    def apply_async(
        self,
        function: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        **_: Any,
    ) -> Any:
        future = self._threads.submit(function, *args, **(kwds or {}))
        if callback is not None:
            future.add_done_callback(lambda done: callback(done.result()))
        return types.SimpleNamespace(get=future.result, wait=future.exception, ready=future.done)

    def close(self) -> None:
        """Nothing more comes."""

    def join(self) -> None:
        self._threads.shutdown()

    terminate = join

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.join()


def _rows_of(inputs: Any) -> Any:
    """The row among the arguments of a scoring function: a Series, else the first of a group."""
    values = inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, list | tuple) else [inputs]
    for value in values:
        if hasattr(value, "iloc") and hasattr(value, "keys") and "index" in value:
            return value if not hasattr(value, "columns") else value.iloc[0]
    return None


def _track(
    func: Callable[..., Any],
    tasks: Iterable[Any] = (),
    nproc: int | None = 1,
    save: Any = None,
    keys: Any = None,
    **_: Any,
) -> list[Any]:
    """track_progress_rich in threads: results in order; ``save`` is written once, with what it held before."""
    files = sys.modules["vlmeval.smp.file"]
    work = list(tasks)

    def one(place: int) -> Any:
        inputs = work[place]
        current.row = _rows_of(inputs)
        if isinstance(inputs, dict):
            return func(**inputs)
        return func(*inputs) if isinstance(inputs, list | tuple) else func(inputs)

    results: list[Any] = [None] * len(work)
    with ThreadPoolExecutor(max_workers=max(1, nproc or 1)) as pool:
        waiting = {pool.submit(one, place): place for place in range(len(work))}
        for future in as_completed(waiting):
            results[waiting[future]] = future.result()
    if save is not None:
        kept = files.load(save) if Path(save).exists() else {}
        if keys is not None:
            kept.update(zip(keys, results, strict=True))
        files.dump(kept, save)
    return results


def _timeouts() -> types.ModuleType:
    """timeout_decorator: signals as the original, processes with a pipe where it has a queue."""
    real = importlib.import_module("timeout_decorator")
    module = types.ModuleType("timeout_decorator")
    module.TimeoutError = real.TimeoutError  # type: ignore[attr-defined]

    def timeout(seconds: Any = None, use_signals: bool = True, **options: Any) -> Any:
        if use_signals or seconds is None:
            return real.timeout(seconds, use_signals=True, **options)
        error = options.get("timeout_exception", real.TimeoutError)
        return functools.partial(_in_process, float(seconds), error)

    module.timeout = timeout  # type: ignore[attr-defined]
    return module


def _in_process(seconds: float, error: type[Exception], function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)

        def answer() -> None:
            try:
                sender.send((True, function(*arguments, **named)))
            except Exception as failure:  # noqa: BLE001 - whatever it was is raised again by the caller
                sender.send((False, failure))

        process = context.Process(target=answer, daemon=True)
        process.start()
        sender.close()
        try:
            if not receiver.poll(seconds):
                raise error("Timed Out")
            good, value = receiver.recv()
        except EOFError:
            raise error("the process that scored ended") from None
        finally:
            receiver.close()
            with contextlib.suppress(OSError):
                process.kill()
            process.join(5)
        if good:
            return value
        raise value

    return run


# ---------------------------------------------------------------- values that JSON carries


def plain(value: Any) -> Any:
    """A cell or metric as JSON: None for what is missing; text for what JSON has no word for."""
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        with contextlib.suppress(ValueError, TypeError):
            value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    return str(value)


def lines(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
