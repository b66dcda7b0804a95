"""What is put in the place of parts of VLMEvalKit, and why. Runs in the child only.

- ``eval`` in their modules takes literals and arithmetic only: they evaluate what the model wrote;
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
import multiprocessing
import operator
import os
import sys
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

current = threading.local()
"""``row``: the row (pandas Series) that the thread is scoring."""


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


def guard_eval() -> None:
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


def texts_kept(load: Callable[..., Any]) -> Callable[..., Any]:
    """VLMEvalKit's ``load``, whose tables keep predictions as they were written."""

    @functools.wraps(load)
    def kept(file: Any, fmt: Any = None) -> Any:
        suffix = fmt or str(file).rsplit(".", 1)[-1]
        if suffix in ("tsv", "csv") and Path(str(file)).exists():
            import pandas as pd

            return pd.read_csv(file, sep="\t" if suffix == "tsv" else ",", converters={"prediction": str})
        return load(file, fmt)

    return kept


def own_temporary(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """``load`` or ``dump``, whose file is argument number ``place``, with their fixed ``/tmp/`` in the own folder."""

    @functools.wraps(function)
    def moved(*arguments: Any, **named: Any) -> Any:
        file = arguments[place] if len(arguments) > place else None
        if isinstance(file, str) and file.startswith("/tmp/") and not file.startswith(os.environ["HOME"]):
            changed = str(Path(os.environ["TMPDIR"], Path(file).name))
            arguments = (*arguments[:place], changed, *arguments[place + 1 :])
        return function(*arguments, **named)

    return moved


class Pool:
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

    def __enter__(self) -> Pool:
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


def track(
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


def timeouts() -> types.ModuleType:
    """timeout_decorator: signals as the original; its processes with pipes where it has queues."""
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
    """``function`` in a process that is killed after ``seconds``; the process serves a thread's further calls.

    VLMEvalKit starts one for each call: with a table of a thousand rows in memory that takes minutes.
    """
    own = threading.local()

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        worker: _Worker | None = getattr(own, "worker", None)
        if worker is None:
            worker = own.worker = _Worker(function)
        answer = worker.ask((arguments, named), seconds)
        if answer is None:
            worker.stop()
            own.worker = None
            raise error("Timed Out")
        good, value = answer
        if good:
            return value
        raise value

    return run


class _Worker:
    """A forked process that calls one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        context = multiprocessing.get_context("fork")
        self._here, there = _pipes(context)
        self._process = context.Process(target=_serve, args=(function, there, self._here), daemon=True)
        self._process.start()
        for end in there:
            end.close()

    def ask(self, call: Any, seconds: float) -> tuple[bool, Any] | None:
        """(True, result) or (False, exception); None where there was no answer in time."""
        receiver, sender = self._here
        try:
            sender.send(call)
            if receiver.poll(seconds):
                answer: tuple[bool, Any] = receiver.recv()
                return answer
        except (EOFError, BrokenPipeError):
            pass
        return None

    def stop(self) -> None:
        """End it; where signals are forbidden it ends with the process that forked it."""
        for end in self._here:
            end.close()
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.join(1)


def _pipes(context: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Two ends, each a (receiver, sender) pair."""
    receive_there, send_here = context.Pipe(duplex=False)
    receive_here, send_there = context.Pipe(duplex=False)
    return (receive_here, send_here), (receive_there, send_there)


def _serve(function: Callable[..., Any], there: tuple[Any, Any], here: tuple[Any, Any]) -> None:
    """Calls until the pipe is closed; ``here`` are the other process's ends."""
    for end in here:
        end.close()
    receiver, sender = there
    while True:
        try:
            arguments, named = receiver.recv()
        except EOFError:
            return
        try:
            answer = (True, function(*arguments, **named))
        except Exception as failure:  # noqa: BLE001 - whatever it was is raised again by the caller
            answer = (False, failure)
        sender.send(answer)
